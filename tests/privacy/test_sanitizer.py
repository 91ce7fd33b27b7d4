"""The one door: what cannot be made private stays inside, and what leaves is one step of clipped gradients."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tasks.errors import BudgetExhausted, PrivacyError
from tasks.learning.building import build_model
from tasks.learning.flat import Shape
from tasks.learning.training import RawUpdate
from tasks.privacy import sanitizer
from tasks.privacy.codecs import codec_of
from tasks.privacy.noise.grid import STEPS_PER_CLIP
from tasks.privacy.noise.source import NoiseSource, SeededNoise, SystemNoise
from tasks.privacy.opened import interpret
from tasks.privacy.sanitizer import Release, contribution, sanitize
from tasks.privacy.secure_sum.contribution import Maskable
from tasks.privacy.train_local import train_local
from tasks.store.records.model import ModelRef
from tasks.store.records.round import Plan
from tasks.store.weights import Weights, from_bytes, parameters, set_parameters
from tasks.study.codec import Dense, Random, StudyCodec, Top
from tasks.study.privacy import DistributedDP, GaussianUpdate, LocalDP, NoPrivacy, Privacy, SparseVector
from tasks.study.sections import Evaluation, Training
from tests.learning.binary_task import BINARY

NONE = NoPrivacy(mechanism="none", i_accept_no_privacy=True)
LOCAL = LocalDP(mechanism="local_dp", epsilon=3, delta=1e-5, clip_norm=0.5, public_num_examples=50)
SHARED = DistributedDP(
    mechanism="distributed_dp",
    epsilon=3,
    delta=1e-5,
    clip_norm=0.5,
    public_num_examples=50,
    tolerated_dropouts=0,
    colluding_sites=0,
)
GAUSSIAN = GaussianUpdate(
    mechanism="gaussian_update", epsilon=3, delta=1e-5, clip_norm=2, tolerated_dropouts=0, colluding_sites=0
)
SVT = SparseVector(mechanism="svt", epsilon=3, delta=1e-5, fraction=0.5, gamma=2, tau=0)
TOP = Top(name="top", fraction=0.5)
RANDOM = Random(name="random", fraction=0.5)
BASE = {"bias": torch.zeros(1), "weight": torch.ones(1, 3)}
SITES = ("701", "702", "703")


class Silence:
    """No noise, to see what a mechanism does without it; a subset is the first components."""

    def gaussian(self, size: int, sd: float) -> np.ndarray:
        return np.zeros(size, dtype=np.int64)

    def laplace(self, size: int, scale: float) -> np.ndarray:
        return np.zeros(size, dtype=np.int64)

    def subset(self, population: int, size: int) -> np.ndarray:
        return np.arange(size)

    def uniform(self, size: int) -> np.ndarray:
        return np.full(size, 0.5, dtype=np.float32)


def plan(privacy: Privacy, **changes: Any) -> Plan:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    model = ModelRef(server_round=2, key="k", sha256="b" * 64)
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
        "base_model": model,
        "evaluated_model": model,
        "training": Training(lr=0.3, l2=0.01, local_iterations=1, weighting="plain"),
        "privacy": privacy,
        "evaluation": Evaluation(holdout_fraction=0.2),
        "total_rounds": 20,
    }
    return Plan(**(fields | changes))


def release(tensors: Weights, privacy: Privacy, **changes: Any) -> Release:
    arguments: dict[str, Any] = {"releases": 1, "noise": SystemNoise()} | changes
    used = arguments.pop("plan", None) or plan(privacy, codec=arguments.pop("codec", Dense()))
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
        ({"sum": torch.zeros((1, 4), dtype=torch.int64)}, LOCAL, "int64 grid steps can be protected"),
        *[(raw_sum(), privacy, "not the model's parameters") for privacy in (GAUSSIAN, SVT)],
        *[({}, privacy, "0 values") for privacy in (GAUSSIAN, SVT)],
        (raw_sum(), SHARED, "cannot leave by itself under plain: set channel: masks"),
    ],
)
def test_what_cannot_be_privatised_stays_at_the_site(tensors: Weights, privacy: Privacy, says: str) -> None:
    with pytest.raises(PrivacyError, match=says) as caught:
        release(tensors, privacy)
    assert str(CANARY) not in str(caught.value)


NOT_FINITE = {
    "NaN": torch.tensor([[1.0, NAN, 3.0]]),
    "infinity": torch.tensor([[1.0, INF, 3.0]]),
    "minus infinity": torch.tensor([[1.0, -INF, 3.0]]),
    "beyond float32": torch.tensor([[1.0, 1e39, 3.0]], dtype=torch.float64),
}
ZERO_THERE = raw_delta(weight=torch.tensor([[1.0, 0.0, 3.0]]))


@pytest.mark.parametrize("weight", NOT_FINITE.values(), ids=NOT_FINITE)
@pytest.mark.parametrize("privacy", [GAUSSIAN, SVT])
def test_where_a_whole_update_is_protected_what_is_not_finite_counts_as_zero(
    privacy: Privacy, weight: torch.Tensor
) -> None:
    """A refusal would tell, without noise, that the patients make such a value. The bytes tell nothing either."""
    for seed in (bytes(32), bytes(range(32))):
        released, zeroed = (
            release(tensors, privacy, noise=SeededNoise(seed)) for tensors in (raw_delta(weight=weight), ZERO_THERE)
        )
        assert released.body == zeroed.body
        assert released.spend == zeroed.spend
        assert all(torch.isfinite(tensor).all() for tensor in released.tensors.values())


@pytest.mark.parametrize("weight", NOT_FINITE.values(), ids=NOT_FINITE)
def test_a_protected_update_that_is_not_finite_is_clipped_as_one_with_zeros(weight: torch.Tensor) -> None:
    """The sensitivity stays clip_norm: the finite components alone use all of it. Behind masks just so."""
    long = {"bias": torch.tensor([0.5]), "weight": 1000 * weight}
    out = release(long, GAUSSIAN, noise=Silence())
    norm = math.sqrt(sum(float(tensor.double().square().sum()) for tensor in out.tensors.values()))
    assert 0.999 * GAUSSIAN.clip_norm < norm <= GAUSSIAN.clip_norm
    used = plan(GAUSSIAN, channel="masks")
    hidden, zeroed = (
        contribution(RawUpdate(raw_delta(weight=values), 10, 1), BASE, used, sites=3, noise=SeededNoise(bytes(32)))
        for values in (weight, ZERO_THERE["weight"])
    )
    assert hidden.values.tolist() == zeroed.values.tolist()


def test_a_release_that_is_not_paid_for_is_refused() -> None:
    for privacy, raw in ((LOCAL, raw_sum()), (GAUSSIAN, raw_delta()), (SVT, raw_delta())):
        assert release(raw, privacy, releases=20).spend.releases == 20
        with pytest.raises(BudgetExhausted, match="release 21"):
            release(raw, privacy, releases=21)


def test_too_large_an_update_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanitizer, "MAX_PARAMETERS", 3)
    with pytest.raises(PrivacyError, match="4 values cannot be privatised"):
        release(raw_delta(), NONE)


# behind masks


def masked(privacy: Privacy, tensors: Weights, **changes: Any) -> Release:
    arguments = {"mask": lambda part: part.values.view(np.uint64) + np.uint64(7), "num_masked": 3} | changes
    return release(tensors, privacy, plan=plan(privacy, channel="masks"), **arguments)


@pytest.mark.parametrize(("privacy", "tensors"), [(SHARED, raw_sum()), (GAUSSIAN, raw_delta()), (NONE, raw_delta())])
def test_what_leaves_a_masked_plan_is_what_the_mask_gave(privacy: Privacy, tensors: Weights) -> None:
    seen: list[Maskable] = []

    def mask(part: Maskable) -> np.ndarray:
        seen.append(part)
        return np.arange(len(part.values), dtype=np.uint64)

    out = masked(privacy, tensors, mask=mask)
    assert {name: t.tolist() for name, t in out.tensors.items()} == {"masked": [0, 1, 2, 3]}
    assert out.tensors["masked"].dtype == torch.uint64
    assert (seen[0].sites, len(seen)) == (3, 1)
    assert from_bytes(out.body)["masked"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("privacy", [SHARED, GAUSSIAN, NONE])
def test_without_masks_nothing_of_a_masked_plan_leaves(privacy: Privacy) -> None:
    with pytest.raises(PrivacyError, match="behind masks only"):
        masked(privacy, raw_sum() if privacy is SHARED else raw_delta(), mask=None)


@pytest.mark.parametrize("privacy", [LOCAL, SVT])
def test_what_cannot_be_summed_is_not_masked(privacy: Privacy) -> None:
    with pytest.raises(PrivacyError, match="cannot be summed behind masks"):
        masked(privacy, raw_sum() if privacy is LOCAL else raw_delta())


def test_masks_that_the_plan_does_not_have_stop_the_release() -> None:
    with pytest.raises(PrivacyError, match="this plan has no masks"):
        release(raw_delta(), NONE, mask=lambda part: part.values.view(np.uint64))


def test_a_roster_that_is_all_lost_or_colluding_gets_no_share_of_noise() -> None:
    privacy = DistributedDP(**(SHARED.model_dump() | {"tolerated_dropouts": 1, "colluding_sites": 1}))
    with pytest.raises(PrivacyError):
        masked(privacy, raw_sum(), num_masked=2)


def test_counts_belong_to_the_masked_sum() -> None:
    used = plan(SHARED, channel="masks", evaluation=Evaluation(holdout_fraction=0.2, score_bins=2))
    with pytest.raises(PrivacyError, match="one summed gradient of 8 values"):
        contribution(RawUpdate(raw_sum(), 10, 1), BASE, used, sites=3, noise=SystemNoise())


# noise of its own for each release


@pytest.mark.parametrize(("privacy", "tensors"), [(LOCAL, raw_sum()), (GAUSSIAN, raw_delta()), (SVT, raw_delta())])
def test_no_two_releases_have_the_same_noise(privacy: Privacy, tensors: Weights) -> None:
    bodies = {release(tensors, privacy).body for _ in range(20)}
    fewest = 5 if privacy is SVT else 20  # so much noise that svt sends plus or minus gamma: 24 releases in all
    assert len(bodies) >= fewest


def test_noise_is_repeated_only_through_the_seam() -> None:
    first, again = (release(raw_sum(), LOCAL, noise=SeededNoise(bytes(32))).body for _ in range(2))
    assert first == again != release(raw_sum(), LOCAL, noise=SeededNoise(bytes([1] * 32))).body


# what becomes of it


def read(out: Release, privacy: Privacy, codec: StudyCodec = Dense()) -> list[float]:  # noqa: B008
    """As the hub does."""
    return codec_of(plan(privacy, codec=codec), Shape.of(BASE)).read(bytearray(out.body), "701").tolist()


def test_top_sends_the_largest_and_keeps_the_rest_back() -> None:
    feedback = TOP.model_copy(update={"error_feedback": True})
    out = release(raw_delta(), NONE, codec=feedback)
    assert out.tensors["values"].tolist() == [-2.0, 3.0]
    assert read(out, NONE, feedback) == [0.0, 0.0, -2.0, 3.0]
    assert out.residual is not None
    assert [kept.tolist() for kept in out.residual.values()] == [[0.5, 1.0, 0.0, 0.0]]
    nothing = {"bias": torch.zeros(1), "weight": torch.zeros(1, 3)}
    later = release(nothing, NONE, codec=feedback, carried=out.residual)
    assert read(later, NONE, feedback) == [0.5, 1.0, 0.0, 0.0]
    assert later.residual is not None
    assert [kept.tolist() for kept in later.residual.values()] == [[0.0] * 4]


def test_without_error_feedback_nothing_is_kept_back() -> None:
    assert release(raw_delta(), NONE, codec=TOP).residual is None


@pytest.mark.parametrize("codec", [TOP, RANDOM])
def test_sparse_releases_are_read_back_by_the_hub(codec: StudyCodec) -> None:
    flat = read(release(raw_delta(), NONE, codec=codec), NONE, codec)
    sent = [value for value in flat if value]
    assert len(sent) == 2
    assert all(value in (0.0, raw) for value, raw in zip(flat, [0.5, 1.0, -2.0, 3.0], strict=True))


def test_what_svt_releases_travels_as_the_components_that_are_not_zero() -> None:
    out = release(raw_delta(), SVT)
    flat = read(out, SVT)
    assert (len(flat), sum(value != 0 for value in flat)) == (4, len(out.tensors["values"]))
    assert len(out.tensors["values"]) <= 2


def test_a_residual_of_another_model_is_refused() -> None:
    feedback = TOP.model_copy(update={"error_feedback": True})
    (name,) = release(raw_delta(), NONE, codec=feedback).residual or {}
    with pytest.raises(PrivacyError, match="another model"):
        release(raw_delta(), NONE, codec=feedback, carried={name: torch.zeros(5)})


@pytest.mark.parametrize("other", [{"privacy": NONE}, {"codec": "random"}, {"codec": "half as many"}])
def test_what_a_raw_update_has_left_is_in_no_release_of_another_mechanism_or_codec(other: dict[str, Any]) -> None:
    """A site's files of rounds without privacy may still be there when the study begins to promise some."""
    codec = TOP.model_copy(update={"error_feedback": True})
    before = {
        "random": Random(name="random", fraction=0.5, error_feedback=True),
        "half as many": codec.model_copy(update={"fraction": 0.25}),
    }.get(other.get("codec", ""), codec)
    huge = {"bias": torch.tensor([1e9]), "weight": torch.tensor([[1e9, 1e9, 1e9]])}
    left = release(huge, other.get("privacy", GAUSSIAN), codec=before).residual
    assert left
    seeded = {"codec": codec, "releases": 2}
    with_it, without = (
        release(raw_delta(), GAUSSIAN, noise=SeededNoise(bytes(32)), carried=carried, **seeded)
        for carried in (left, None)
    )
    assert with_it.body == without.body


@pytest.mark.parametrize("privacy", [GAUSSIAN, SVT])
def test_error_feedback_keeps_what_is_left_of_the_release_and_not_of_the_raw_update(privacy: Privacy) -> None:
    """So that two raw updates with one release leave one residual: here, of which one is a thousand times the other."""
    codec = TOP.model_copy(update={"error_feedback": True, "fraction": 0.25})
    long = {"bias": torch.tensor([500.0]), "weight": torch.tensor([[1000.0, -2000.0, 3000.0]])}
    longer = {name: 1000 * tensor for name, tensor in long.items()}
    one, other = (release(raw, privacy, codec=codec, noise=Silence()) for raw in (long, longer))
    assert one.body == other.body
    assert one.residual
    assert other.residual
    for name, left in one.residual.items():
        assert torch.equal(left, other.residual[name])


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
@pytest.mark.parametrize("privacy", [LOCAL, SHARED])
def test_without_noise_the_round_is_the_centralised_step(
    path: str, options: dict[str, object], privacy: Privacy
) -> None:
    generator = torch.Generator().manual_seed(5)
    sizes = (7, 20, 23)
    inputs = torch.randn(sum(sizes), 6, generator=generator)
    labels = (torch.rand(sum(sizes), generator=generator) < 0.5).float()
    model = build_model(f"tasks.models:{path}", 6, options, seed=3)
    base = {name: torch.randn(w.shape, generator=generator) for name, w in parameters(model).items()}
    used = plan(privacy, channel="plain" if privacy is LOCAL else "masks")
    raws = []
    for x, y in zip(inputs.split(sizes), labels.split(sizes), strict=True):
        set_parameters(model, base)
        raws.append(train_local(BINARY, model, x, y, used.training, used.privacy, seed=1))
    made = step_of(raws, base, used, Silence())
    set_parameters(model, base)
    total, clipped = clipped_sum(model, inputs, labels, LOCAL.clip_norm)
    assert 5 < clipped < sum(sizes), "some gradients are clipped, some are not"
    for name in base:
        step = -0.3 * (total[name] / LOCAL.public_num_examples + 0.01 * base[name].double())
        torch.testing.assert_close(made[name].double(), step, rtol=2e-5, atol=1e-6)
        assert float(step.abs().max()) > 1e-3
    noisy = step_of(raws, base, used, SystemNoise())
    assert min(float((noisy[n] - made[n]).abs().max()) for n in base) > 1e-4, "noise is off only in this test"


def step_of(raws: list[RawUpdate], base: Weights, used: Plan, noise: NoiseSource) -> Weights:
    """The mean of the shares, or the opened sum: what the hub adds to the model."""
    if used.channel.name == "masks":
        parts = [contribution(raw, base, used, sites=3, noise=noise) for raw in raws]
        return interpret(sum(part.values for part in parts), used, base, [1.0] * 3).delta
    shares = [sanitize(raw, base, used, releases=1, noise=noise).tensors for raw in raws]
    return {name: sum(share[name].double() for share in shares) / len(shares) for name in base}


def test_a_masked_sum_of_plain_updates_is_their_weighted_mean() -> None:
    used = plan(NONE, channel="masks", training=Training(lr=0.3, local_epochs=1, weighting="samples"))
    raws = [RawUpdate(raw_delta(bias=torch.tensor([value])), count, 1) for value, count in ((1.0, 1), (-3.0, 3))]
    parts = [contribution(raw, BASE, used, sites=2, noise=Silence()) for raw in raws]
    opened = interpret(parts[0].values + parts[1].values, used, BASE, [1.0, 3.0])
    assert opened.delta["bias"].tolist() == [pytest.approx(-2.0, abs=1e-8)]
    assert opened.sums is None


def test_counts_come_back_from_the_opened_sum() -> None:
    used = plan(SHARED, channel="masks", evaluation=Evaluation(holdout_fraction=0.2, score_bins=2))
    total = torch.tensor([1, 2, 3, 4, *(STEPS_PER_CLIP * n for n in (5, 6, 7, 8))], dtype=torch.int64)
    part = contribution(RawUpdate({"sum": total}, 10, 1), BASE, used, sites=3, noise=Silence())
    opened = interpret(part.values, used, BASE, [1.0])
    assert opened.sums is not None
    assert opened.sums.tolist() == [5.0, 6.0, 7.0, 8.0]
