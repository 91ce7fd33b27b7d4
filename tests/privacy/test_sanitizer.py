"""The one door: what cannot be made private stays inside, and what leaves is one step of clipped gradients."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tasks.errors import BudgetExhausted, PrivacyError
from tasks.models import build_model
from tasks.privacy import local_dp, sanitizer
from tasks.privacy.local_dp import STEPS_PER_CLIP
from tasks.privacy.sanitizer import Release, sanitize
from tasks.records import ModelRef, Plan
from tasks.study import Evaluation, LocalDP, NoPrivacy, Training
from tasks.tensors import Weights, parameters, set_parameters, to_bytes
from tasks.training import RawUpdate, train_local

SECRET = bytes(range(32))
NONE = NoPrivacy(mechanism="none", i_accept_no_privacy=True)
LOCAL = LocalDP(mechanism="local_dp", epsilon=3, delta=1e-5, clip_norm=0.5, public_num_examples=50)
BASE = {"bias": torch.zeros(1), "weight": torch.ones(1, 3)}
SITES = ("701", "702", "703")


def plan(privacy: NoPrivacy | LocalDP, **changes: Any) -> Plan:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    fields: dict[str, Any] = {
        "study": "derm56",
        "study_digest": "d" * 64,
        "server_round": 3,
        "run_id": "test",
        "opened_at": now,
        "deadline": now,
        "sites": SITES,
        "min_sites": 2,
        "strict": False,
        "base_model": ModelRef(server_round=2, key="k", sha256="b" * 64),
        "training": Training(lr=0.3, l2=0.01, local_iterations=1, weighting="plain"),
        "privacy": privacy,
        "evaluation": Evaluation(holdout_fraction=0.2),
        "total_rounds": 20,
    }
    return Plan(**(fields | changes))


def release(tensors: Weights, privacy: NoPrivacy | LocalDP, **changes: Any) -> Release:
    arguments: dict[str, Any] = {"site": "701", "releases": 1, "secret": SECRET} | changes
    used = arguments.pop("plan", plan(privacy))
    return sanitize(RawUpdate(tensors, 10, 1), BASE, used, **arguments)


def raw_delta(**changes: torch.Tensor) -> Weights:
    return {"bias": torch.tensor([0.5]), "weight": torch.tensor([[1.0, -2.0, 3.0]])} | changes


def raw_sum(*values: int) -> Weights:
    return {"sum": torch.tensor(values or (1, 2, 3, 4), dtype=torch.int64)}


# what gets through


def test_none_releases_the_update_as_it_is() -> None:
    out = release(raw_delta(), NONE)
    assert list(out.tensors) == ["bias", "weight"]
    assert all(torch.equal(out.tensors[name], tensor) for name, tensor in raw_delta().items())
    assert (out.spend.mechanism, out.spend.unit, out.spend.epsilon) == ("none", "nothing", None)


def test_local_dp_releases_float32_tensors_of_the_models_shape() -> None:
    out = release(raw_sum(), LOCAL, releases=20)
    assert {name: (t.shape, t.dtype) for name, t in out.tensors.items()} == {
        name: (t.shape, torch.float32) for name, t in BASE.items()
    }
    assert out.spend.releases == 20
    assert out.spend.epsilon == pytest.approx(3, rel=1e-6)


# fail closed

NAN, INF = float("nan"), float("inf")
CANARY = 123456789


@pytest.mark.parametrize(
    ("tensors", "privacy", "says"),
    [
        ({}, NONE, "0 values"),
        ({}, LOCAL, "0 values"),
        ({"bias": torch.zeros(0), "weight": torch.zeros(0)}, NONE, "0 values"),
        (raw_delta(bias=torch.tensor([NAN])), NONE, "bias holds NaN"),
        (raw_delta(weight=torch.tensor([[CANARY, INF, 0.0]])), NONE, "weight holds NaN or infinity"),
        (raw_delta(weight=torch.tensor([[CANARY, -INF, 0.0]])), NONE, "weight holds NaN or infinity"),
        (raw_delta(bias=torch.tensor([1e39], dtype=torch.float64)), NONE, "bias does not fit float32"),
        (raw_delta(bias=torch.tensor([CANARY])), NONE, "bias is torch.int64"),
        (raw_delta(bias=torch.tensor([True])), NONE, "bias is torch.bool"),
        (raw_delta(bias=torch.tensor([1j])), NONE, "bias is torch.complex64"),
        (raw_delta(extra=torch.zeros(1)), NONE, "not the model's parameters"),
        ({"weight": torch.zeros(1, 3)}, NONE, "not the model's parameters"),
        (raw_delta(weight=torch.zeros(3, 1)), NONE, "not the model's parameters"),
        (raw_delta(weight=torch.zeros(3)), NONE, "not the model's parameters"),
        (raw_sum(), NONE, "not the model's parameters"),
        (raw_delta(), LOCAL, "one summed gradient of 4 values"),
        (raw_sum() | raw_delta(), LOCAL, "one summed gradient of 4 values"),
        (raw_sum(1, 2, 3), LOCAL, "one summed gradient of 4 values"),
        (raw_sum(1, 2, 3, 4, 5), LOCAL, "one summed gradient of 4 values"),
        ({"sum": torch.zeros(4)}, LOCAL, "not torch.float32"),
        ({"sum": torch.full((4,), NAN)}, LOCAL, "sum holds NaN"),
        ({"sum": torch.zeros((1, 4), dtype=torch.int64)}, LOCAL, "vector of int64 grid steps"),
    ],
)
def test_what_cannot_be_privatised_stays_at_the_site(tensors: Weights, privacy: NoPrivacy | LocalDP, says: str) -> None:
    with pytest.raises(PrivacyError, match=says) as caught:
        release(tensors, privacy)
    assert str(CANARY) not in str(caught.value)


@pytest.mark.parametrize("length", [0, 16, 31])
def test_a_short_noise_key_stops_the_release(length: int) -> None:
    with pytest.raises(PrivacyError, match=f"has {length} bytes"):
        release(raw_sum(), LOCAL, secret=bytes(length))


def test_a_release_that_is_not_paid_for_is_refused() -> None:
    with pytest.raises(BudgetExhausted, match="release 21"):
        release(raw_sum(), LOCAL, releases=21)


def test_too_large_an_update_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanitizer, "MAX_PARAMETERS", 3)
    with pytest.raises(PrivacyError, match="4 values cannot be privatised"):
        release(raw_delta(), NONE)


# determinism, and noise of its own for each release


def test_the_same_update_again_is_the_same_release() -> None:
    first, again = (release(raw_sum(), LOCAL) for _ in range(2))
    assert to_bytes(first.tensors) == to_bytes(again.tensors)
    assert first == Release(first.tensors, again.spend, again.commitment)


def changed_terms(**changes: Any) -> Plan:
    return plan(LocalDP(**(LOCAL.model_dump() | changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"site": "702"},
        {"secret": bytes(32)},
        {"plan": plan(LOCAL, server_round=4)},
        {"plan": plan(LOCAL, study="nocomp24")},
        {"plan": plan(LOCAL, base_model=ModelRef(server_round=2, key="k", sha256="c" * 64))},
        {"plan": changed_terms(epsilon=8)},
        {"plan": changed_terms(delta=1e-6)},
        {"plan": plan(LOCAL, total_rounds=40)},
    ],
    ids=["site", "secret", "round", "study", "base model", "epsilon", "delta", "rounds"],
)
def test_another_context_gets_other_noise_and_another_commitment(changes: dict[str, Any]) -> None:
    """Were it the same noise at another scale, two releases of one sum would give the sum away."""
    first, other = release(raw_sum(), LOCAL), release(raw_sum(), LOCAL, **changes)
    assert first.commitment != other.commitment
    ratios = [_noise(first, LOCAL) / _noise(other, changes.get("plan", plan(LOCAL)).privacy)]
    assert not np.allclose(ratios, ratios[0][0], rtol=1e-2), "proportional noise"


def test_another_update_in_the_same_round_gets_other_noise() -> None:
    first, other = release(raw_sum(1, 2, 3, 4), LOCAL), release(raw_sum(1, 2, 3, 5), LOCAL)
    assert first.commitment != other.commitment
    assert not np.allclose(_noise(first, LOCAL), _noise(other, LOCAL), rtol=1e-2)


def _noise(out: Release, privacy: NoPrivacy | LocalDP) -> np.ndarray:
    """The noise in a release, in gradient units, up to the sum's few grid steps."""
    assert isinstance(privacy, LocalDP)
    flat = torch.cat([out.tensors[n].flatten() / -0.3 - 0.01 * BASE[n].flatten() for n in BASE])
    return (flat * privacy.public_num_examples / len(SITES)).numpy()


def test_the_commitment_hides_the_update() -> None:
    """It is keyed: without the secret, nobody can try out sums against it."""
    commitments = {release(raw_sum(), LOCAL, secret=bytes([i] * 32)).commitment for i in range(5)}
    assert len(commitments) == 5


# the step


def clipped_sum(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, clip: float) -> tuple[Weights, int]:
    """One patient after the other with plain autograd; and how many gradients were clipped."""
    own = dict(sorted(model.named_parameters()))
    total, clipped = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in own.items()}, 0
    for x, y in zip(inputs, labels, strict=True):
        loss = nn.functional.binary_cross_entropy_with_logits(model(x[None])[0], y)
        gradient = [g.double() for g in torch.autograd.grad(loss, list(own.values()))]
        norm = float(torch.cat([g.flatten() for g in gradient]).norm())
        clipped += norm > clip
        for name, g in zip(own, gradient, strict=True):
            total[name] += g * min(1.0, clip / norm)
    return total, clipped


@pytest.mark.parametrize(("path", "options"), [("LogisticRegression", {}), ("MLP", {"hidden": 5})])
def test_without_noise_the_mean_of_the_shares_is_the_centralised_step(
    path: str, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_dp, "gaussian_integers", lambda _key, size, _sd: np.zeros(size, dtype=np.int64))
    generator = torch.Generator().manual_seed(5)
    sizes = (7, 20, 23)
    inputs = torch.randn(sum(sizes), 6, generator=generator)
    labels = (torch.rand(sum(sizes), generator=generator) < 0.5).float()
    model = build_model(f"tasks.models:{path}", 6, options, seed=3)
    base = {name: torch.randn(w.shape, generator=generator) for name, w in parameters(model).items()}
    used = plan(LOCAL)
    shares = []
    for site, x, y in zip(SITES, inputs.split(sizes), labels.split(sizes), strict=True):
        set_parameters(model, base)
        raw = train_local(model, x, y, used.training, used.privacy, seed=1)
        shares.append(sanitize(raw, base, used, site=site, releases=1, secret=SECRET).tensors)
    set_parameters(model, base)
    total, clipped = clipped_sum(model, inputs, labels, LOCAL.clip_norm)
    assert 5 < clipped < sum(sizes), "some gradients are clipped, some are not"
    for name in base:
        mean = sum(share[name].double() for share in shares) / len(shares)
        step = -0.3 * (total[name] / LOCAL.public_num_examples + 0.01 * base[name].double())
        torch.testing.assert_close(mean, step, rtol=2e-5, atol=1e-6)
        assert float(step.abs().max()) > 1e-3


def test_noise_off_is_off_only_in_that_test() -> None:
    noisy = release(raw_sum(0, 0, 0, 0), LOCAL)
    assert float(np.abs(_noise(noisy, LOCAL)).min()) > 1 / STEPS_PER_CLIP
