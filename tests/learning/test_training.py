"""Local training against loops written by hand, and the same bytes for the same seed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tasks.errors import DataError
from tasks.learning.building import build_model
from tasks.learning.training import RawUpdate
from tasks.privacy.noise.grid import STEPS_PER_CLIP
from tasks.privacy.train_local import summed_gradients, train_local
from tasks.store.settings import PROJECT
from tasks.store.weights import parameters, set_parameters, to_bytes
from tasks.study.privacy import LocalDP, NoPrivacy
from tasks.study.sections import Training
from tests.learning.binary_task import BINARY

NONE = NoPrivacy(mechanism="none", i_accept_no_privacy=True)
LOCAL = LocalDP(mechanism="local_dp", epsilon=3, delta=1e-5, clip_norm=0.5, public_num_examples=50)
ONE_STEP = Training(lr=0.3, local_iterations=1, weighting="plain")
LOGISTIC = ("tasks.models:LogisticRegression", {})
PERCEPTRON = ("tasks.models:MLP", {"hidden": 5})
Spec = tuple[str, dict[str, object]]


def patients(number: int, inputs: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(number, inputs, generator=generator)
    return x, (torch.rand(number, generator=generator) < torch.sigmoid(2 * x[:, 0])).float()


def model(spec: Spec = LOGISTIC, inputs: int = 4) -> nn.Module:
    """With weights that are all different from zero."""
    made = build_model(spec[0], inputs, spec[1], seed=1)
    generator = torch.Generator().manual_seed(2)
    set_parameters(made, {n: torch.randn(w.shape, generator=generator) for n, w in parameters(made).items()})
    return made


def train(training: Training, number: int = 20, *, seed: int = 7, spec: Spec = LOGISTIC, **more: Any) -> RawUpdate:
    return train_local(BINARY, model(spec), *patients(number), training, NONE, seed=seed, **more)


def digest(update: RawUpdate) -> str:
    return hashlib.sha256(to_bytes(update.tensors)).hexdigest()


# private gradients


def gradient_rows(made: nn.Module, x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    """(patients, parameters) in order of the parameters' names, by plain autograd in float64, one patient at a time."""
    own = [parameter for _, parameter in sorted(made.double().named_parameters())]
    rows = []
    for one, label in zip(x.double(), y.double(), strict=True):
        loss = nn.functional.binary_cross_entropy_with_logits(made(one[None])[0], label)
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, own)]).numpy())
    return np.array(rows)


@pytest.mark.parametrize("spec", [LOGISTIC, PERCEPTRON], ids=["logistic", "mlp"])
@pytest.mark.parametrize(("clip_norm", "clipped"), [(0.01, "all"), (1.0, "some"), (1e4, "none")])
def test_summed_gradients_are_those_of_a_plain_loop(spec: Spec, clip_norm: float, clipped: str) -> None:
    x, y = patients(30)
    found = summed_gradients(BINARY, model(spec), x, y, clip_norm)
    rows = gradient_rows(model(spec), x, y)
    norms = np.linalg.norm(rows, axis=1)
    expected = (rows * np.minimum(1, clip_norm / norms)[:, None]).sum(axis=0)
    assert (found.dtype, found.shape) == (torch.int64, expected.shape)
    steps = expected * STEPS_PER_CLIP / clip_norm
    assert np.abs(found.numpy() - steps).max() <= len(rows) + 1, "each patient is cut by less than one step"
    assert {0: "none", 30: "all"}.get(int((norms > clip_norm).sum()), "some") == clipped


def test_clipping_binds() -> None:
    x, y = patients(30)
    rows = gradient_rows(model(), x, y)
    clip_norm = float(np.linalg.norm(rows, axis=1).min()) / 2  # so every gradient is clipped to it
    directions = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).sum(axis=0)
    found = summed_gradients(BINARY, model(), x, y, clip_norm).numpy() / STEPS_PER_CLIP
    np.testing.assert_allclose(found, directions, atol=1e-5)
    assert np.abs(found - rows.sum(axis=0) / clip_norm).max() > 0.1


def test_the_sum_goes_by_sorted_names() -> None:
    made = model(PERCEPTRON)
    names = sorted(name for name, _ in made.named_parameters())
    assert names == ["layers.0.bias", "layers.0.weight", "layers.2.bias", "layers.2.weight"]
    x, y = patients(1)
    found = summed_gradients(BINARY, made, x, y, 1e4).numpy() * 1e4 / STEPS_PER_CLIP
    logit = float(made(x).detach())
    output_bias = sum(made.get_parameter(name).numel() for name in names[:2])
    assert found[output_bias] == pytest.approx(1 / (1 + np.exp(-logit)) - float(y), abs=2e-3)


@pytest.mark.parametrize("spec", [LOGISTIC, PERCEPTRON], ids=["logistic", "mlp"])
def test_a_patients_gradient_does_not_depend_on_who_else_is_there(spec: Spec) -> None:
    """The sensitivity of the sum: leaving one out takes away that one's clipped gradient and nothing else."""
    x, y = patients(48, inputs=22)
    made = model(spec, inputs=22)
    for number in range(2, 49):
        rest = summed_gradients(BINARY, made, x[: number - 1], y[: number - 1], 1.0)
        own = summed_gradients(BINARY, made, x[number - 1 : number], y[number - 1 : number], 1.0)
        everybody = summed_gradients(BINARY, made, x[:number], y[:number], 1.0)
        assert float((everybody - rest - own).double().norm()) <= 2, f"steps of 2^-24, {number} patients"
        assert float((everybody - rest).double().norm()) <= STEPS_PER_CLIP + 2


def test_summing_leaves_the_model_as_it_was() -> None:
    made = model(PERCEPTRON)
    before = to_bytes(parameters(made))
    summed_gradients(BINARY, made, *patients(3), 1.0)
    assert to_bytes(parameters(made)) == before
    assert all(parameter.grad is None and parameter.dtype == torch.float32 for parameter in made.parameters())


def test_local_dp_leaves_one_sum_and_nothing_else() -> None:
    raw = train_local(BINARY, model(), *patients(12), ONE_STEP, LOCAL, seed=1)
    assert list(raw.tensors) == ["sum"]
    assert (raw.num_examples, raw.local_iterations, raw.optimizer_state) == (12, 1, None)


# descent


def test_a_step_of_sgd_is_the_one_from_the_textbook() -> None:
    """Three full-batch steps of logistic regression with L2, in numpy."""
    x, y = (t.double().numpy() for t in patients(20))
    start = parameters(model())
    w, b = start["linear.weight"].double().numpy()[0], float(start["linear.bias"])
    first_w, first_b = w.copy(), b
    for _ in range(3):
        error = 1 / (1 + np.exp(-(x @ w + b))) - y
        w, b = w - 0.5 * (x.T @ error / 20 + 0.1 * w), b - 0.5 * (error.mean() + 0.1 * b)
    raw = train(Training(lr=0.5, l2=0.1, local_iterations=3))
    np.testing.assert_allclose(raw.tensors["linear.weight"][0], w - first_w, atol=1e-6)
    np.testing.assert_allclose(raw.tensors["linear.bias"][0], b - first_b, atol=1e-6)
    assert np.abs(w - first_w).max() > 0.05


def test_minibatches_go_through_a_seeded_permutation_once_an_epoch() -> None:
    """Two epochs of batches of 8 over 20 patients, in numpy."""
    x, y = (t.double().numpy() for t in patients(20))
    start = parameters(model())
    w, b = start["linear.weight"].double().numpy()[0], float(start["linear.bias"])
    first = w.copy()
    rng = np.random.default_rng(7)
    for _ in range(2):
        order = rng.permutation(20)
        for rows in (order[:8], order[8:16], order[16:]):
            error = 1 / (1 + np.exp(-(x[rows] @ w + b))) - y[rows]
            w, b = w - 0.5 * x[rows].T @ error / len(rows), b - 0.5 * error.mean()
    raw = train(Training(lr=0.5, batch_size=8, local_epochs=2))
    assert raw.local_iterations == 6
    np.testing.assert_allclose(raw.tensors["linear.weight"][0], w - first, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "number", "iterations"),
    [
        ({"local_epochs": 1, "batch_size": 8}, 20, 3),
        ({"local_epochs": 4, "batch_size": 8}, 20, 12),
        ({"local_epochs": 4}, 20, 4),
        ({"local_epochs": 1, "batch_size": 8}, 5, 1),
        ({"local_epochs": 2, "batch_size": 1}, 3, 6),
        ({"local_iterations": 1}, 20, 1),
        ({"local_iterations": 7, "batch_size": 8}, 20, 7),
        ({"local_iterations": 50, "batch_size": 8}, 3, 50),
        ({"local_iterations": 5, "batch_size": 19}, 20, 5),
        ({"local_iterations": 9}, 1, 9),
    ],
)
def test_local_iterations_are_counted(fields: dict[str, Any], number: int, iterations: int) -> None:
    raw = train(Training(lr=0.01, **fields), number)
    assert (raw.local_iterations, raw.num_examples) == (iterations, number)


def test_the_update_is_the_difference_of_weights() -> None:
    made = model(PERCEPTRON)
    before = parameters(made)
    raw = train_local(BINARY, made, *patients(20), Training(lr=0.1, local_epochs=2, batch_size=8), NONE, seed=7)
    assert list(raw.tensors) == list(before)
    for name, after in parameters(made).items():
        torch.testing.assert_close(before[name] + raw.tensors[name], after)
        assert float(raw.tensors[name].abs().max()) > 0


# the optimizer's state

ADAM = {"optimizer": "adam", "lr": 0.05, "local_iterations": 3}


def test_kept_state_continues_as_if_never_interrupted() -> None:
    """Twice three full-batch steps with the state carried over are six steps in one go."""
    keep = Training(**ADAM, optimizer_state="keep")
    made, data = model(PERCEPTRON), patients(20)
    first = train_local(BINARY, made, *data, keep, NONE, seed=1)
    assert first.optimizer_state is not None
    assert {key.split(".")[1] for key in first.optimizer_state} == {"step", "exp_avg", "exp_avg_sq"}
    second = train_local(BINARY, made, *data, keep, NONE, seed=2, optimizer_state=first.optimizer_state)
    whole = train(Training(**(ADAM | {"local_iterations": 6})), spec=PERCEPTRON)
    for name, tensor in whole.tensors.items():
        torch.testing.assert_close(first.tensors[name] + second.tensors[name], tensor, rtol=1e-5, atol=1e-6)
    fresh = train_local(BINARY, made, *data, keep, NONE, seed=2)
    assert digest(fresh) != digest(second)


def test_restart_forgets_the_state() -> None:
    restart = Training(**ADAM)
    kept = train(Training(**ADAM, optimizer_state="keep"), spec=PERCEPTRON).optimizer_state
    assert train(restart, spec=PERCEPTRON).optimizer_state is None
    assert digest(train(restart, spec=PERCEPTRON, optimizer_state=kept)) == digest(train(restart, spec=PERCEPTRON))


# determinism

STOCHASTIC = Training(optimizer="adam", lr=0.02, batch_size=8, local_epochs=2, l2=0.1)


@pytest.mark.parametrize("spec", [LOGISTIC, PERCEPTRON], ids=["logistic", "mlp"])
def test_the_same_seed_gives_the_same_bytes_and_another_does_not(spec: Spec) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    first = digest(train(STOCHASTIC, spec=spec))
    torch.manual_seed(2)
    np.random.seed(2)
    assert digest(train(STOCHASTIC, spec=spec)) == first
    assert digest(train(STOCHASTIC, spec=spec, seed=8)) != first


def test_training_leaves_the_global_generators_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    train(STOCHASTIC, spec=PERCEPTRON)
    assert torch.equal(torch.rand(1), expected)


PROGRAM = """
import hashlib, torch
torch.set_num_threads(1)
from tests.learning.binary_task import BINARY
from tests.learning.test_training import LOCAL, ONE_STEP, PERCEPTRON, STOCHASTIC, digest, model, patients, train
from tasks.privacy.train_local import train_local
print(digest(train(STOCHASTIC, spec=PERCEPTRON)))
print(digest(train_local(BINARY, model(PERCEPTRON), *patients(20), ONE_STEP, LOCAL, seed=1)))
"""


def test_two_processes_give_the_same_bytes() -> None:
    """A retried task is a new process: Python's hash seed and the import order may differ."""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(PROJECT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for hash_seed in ("1", "2")
    ]
    one, other = (run.communicate(timeout=120)[0].split() for run in runs)
    assert one == other
    assert len(set(one)) == 2


@pytest.mark.parametrize("privacy", [NONE, LOCAL], ids=["none", "local_dp"])
def test_no_patients_no_training(privacy: NoPrivacy | LocalDP) -> None:
    with pytest.raises(DataError, match="no patient left to train on"):
        train_local(BINARY, model(), torch.empty(0, 4), torch.empty(0), ONE_STEP, privacy, seed=1)


# models of one's own

DROPS = Training(lr=0.1, local_epochs=2, batch_size=8)


def own(name: str, inputs: int = 4) -> nn.Module:
    """A model of `tests.own_models`, as a study builds it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHARMAFED_MODEL_PACKAGES", "tests")
        return build_model(f"tests.own_models:{name}", inputs, {}, seed=1)


def trained(name: str, training: Training = DROPS, *, seed: int = 7) -> RawUpdate:
    return train_local(BINARY, own(name), *patients(20), training, NONE, seed=seed)


@pytest.mark.parametrize("name", ["Drops", "Everything"])
def test_what_a_model_draws_comes_from_the_rounds_seed(name: str) -> None:
    torch.manual_seed(1)
    first = digest(trained(name))
    torch.manual_seed(2)
    assert digest(trained(name)) == first
    assert digest(trained(name, seed=8)) != first


def test_training_drops_also_after_a_model_was_scored() -> None:
    made = own("Drops").eval()
    assert digest(train_local(BINARY, made, *patients(20), DROPS, NONE, seed=7)) == digest(trained("Drops"))
    plain = own("Drops")
    plain.mid[1].p = 0.0
    assert digest(train_local(BINARY, plain, *patients(20), DROPS, NONE, seed=7)) != digest(trained("Drops"))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", ["Frozen", "Everything"])
def test_frozen_parameters_are_not_trained_decayed_or_sent(name: str, optimizer: str) -> None:
    made = own(name)
    before = {n: p.detach().clone() for n, p in made.named_parameters()}
    training = Training(optimizer=optimizer, lr=0.1, l2=0.5, local_iterations=3, optimizer_state="keep")
    raw = train_local(BINARY, made, *patients(20), training, NONE, seed=7)
    frozen = {"first.weight", "first.bias"}
    assert set(raw.tensors) == set(parameters(made)) == set(before) - frozen
    after = dict(made.named_parameters())
    assert {n for n in before if torch.equal(before[n], after[n])} == frozen
    again = train_local(BINARY, made, *patients(20), training, NONE, seed=7, optimizer_state=raw.optimizer_state)
    assert set(again.tensors) == set(raw.tensors)


@pytest.mark.parametrize("name", ["Frozen", "Tied", "Unused", "Norms", "StatisticsOfOthers", "WeightNorm"])
def test_private_gradients_are_those_of_what_is_trained(name: str) -> None:
    """Against plain autograd; a shared matrix is one, an unused one has zeros, a frozen one is not there."""
    x, y = patients(12)
    own_names = [n for n, p in sorted(own(name).named_parameters()) if p.requires_grad]
    made = own(name).double().train()
    rows = []
    for one, label in zip(x.double(), y.double(), strict=True):
        loss = nn.functional.binary_cross_entropy_with_logits(made(one[None])[0], label)
        gradients = torch.autograd.grad(loss, [made.get_parameter(n) for n in own_names], allow_unused=True)
        sizes = [made.get_parameter(n).numel() for n in own_names]
        parts = [torch.zeros(k) if g is None else g.flatten() for g, k in zip(gradients, sizes, strict=True)]
        rows.append(torch.cat(parts).numpy())
    found = summed_gradients(BINARY, own(name), x, y, 1e3).numpy() * 1e3 / STEPS_PER_CLIP
    assert len(found) == sum(w.numel() for w in parameters(own(name)).values())
    np.testing.assert_allclose(found, np.sum(rows, axis=0), atol=13 * 1e3 / STEPS_PER_CLIP)
    assert np.abs(found).max() > 0.01


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("name", ["Transposed", "Strided"])
def test_how_weights_lie_in_memory_changes_nothing(name: str, optimizer: str) -> None:
    """Fused optimizers read memory straight on."""
    training = Training(optimizer=optimizer, lr=0.1, local_iterations=3)
    plain = own("Net")
    set_parameters(plain, parameters(own(name)))
    expected = train_local(BINARY, plain, *patients(20), training, NONE, seed=7)
    assert digest(trained(name, training)) == digest(expected)
