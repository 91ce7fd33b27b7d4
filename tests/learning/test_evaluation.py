"""Figures against scikit-learn, and what of them may leave a site."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import roc_auc_score
from torch import nn

from tasks.errors import DataError
from tasks.learning.building import build_model
from tasks.learning.evaluation import predict, suppress, validate_model
from tasks.learning.metrics import metrics_of
from tasks.learning.seeding import seeded
from tasks.learning.tasks.binary import log_loss
from tasks.learning.tasks.ranking import auc
from tasks.learning.tasks.sums import estimates
from tasks.privacy.noise.grid import STEPS_PER_CLIP
from tasks.privacy.sum_statistics import sum_statistics
from tasks.store.objects import to_json
from tasks.store.records.model import ModelRef
from tasks.store.records.report import SiteMetrics
from tasks.store.records.round import Plan
from tasks.store.weights import set_parameters
from tasks.study.privacy import PRIVACY_SECTIONS, NoPrivacy, promises
from tasks.study.sections import Evaluation, Training
from tests import own_models
from tests.learning.binary_task import BINARY

MIN_CELL = 5
AUC, LOSS = 0.7654321, 0.6543219
EVERY = tuple(metric.name for metric in metrics_of("binary"))
OF_BOTH = ("auc", "average_precision", "balanced_accuracy", "calibration_slope", "calibration_intercept")
PRIVATE = ("local_dp", "distributed_dp", "gaussian_update", "svt")


def metrics(total: int) -> SiteMetrics:
    return SiteMetrics(
        study="s",
        server_round=1,
        site="701",
        model_sha256="0" * 64,
        min_cell=MIN_CELL,
        num_examples=total,
        figures={"auc": AUC, "log_loss": LOSS, "calibration_slope": AUC},
    )


def labels(positive: int, negative: int) -> torch.Tensor:
    return torch.tensor([1.0] * positive + [0.0] * negative)


# figures


@given(
    pairs=st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=60).filter(
        lambda pairs: len({label for _, label in pairs}) == 2
    )
)
def test_auc_is_sklearns_with_ties(pairs: list[tuple[int, bool]]) -> None:
    scores, truth = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    assert auc(scores, truth) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "truth", "expected"),
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], 1.0),
        ([4, 3, 2, 1], [0, 0, 1, 1], 0.0),
        ([1, 1, 1, 1], [0, 0, 1, 1], 0.5),
        ([1, 2, 2, 3], [0, 0, 1, 1], 0.875),
    ],
)
def test_auc_by_hand(scores: list[float], truth: list[float], expected: float) -> None:
    assert auc(np.array(scores, float), np.array(truth, float)) == expected


@pytest.mark.parametrize("truth", [[], [0, 0], [1, 1, 1]])
def test_auc_needs_both_labels(truth: list[float]) -> None:
    assert auc(np.arange(len(truth), dtype=float), np.array(truth, float)) is None


@given(pairs=st.lists(st.tuples(st.floats(-20, 20), st.booleans()), min_size=1, max_size=40))
def test_log_loss_is_sklearns(pairs: list[tuple[float, bool]]) -> None:
    logits, truth = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    expected = sklearn_log_loss(truth, 1 / (1 + np.exp(-logits)), labels=[0, 1])
    assert log_loss(logits, truth) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_log_loss_at_the_edges() -> None:
    assert log_loss(np.array([]), np.array([])) is None
    assert log_loss(np.zeros(3), np.array([0.0, 1, 1])) == pytest.approx(np.log(2))
    assert log_loss(np.array([1000.0, -1000.0]), np.array([1.0, 0.0])) == 0
    assert log_loss(np.array([1000.0, -1000.0]), np.array([0.0, 1.0])) == 1000


def test_a_model_is_validated_with_the_plans_figures() -> None:
    model = build_model("tasks.models:LogisticRegression", 2, {}, seed=0)
    set_parameters(model, {"linear.weight": torch.tensor([[1.0, -1.0]]), "linear.bias": torch.tensor([0.5])})
    inputs, truth = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]), torch.tensor([1.0, 0.0, 0.0])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    plan = Plan(
        study="derm56",
        study_digest="d" * 64,
        server_round=4,
        run_id="r",
        opened_at=now,
        deadline=now,
        sites=("701",),
        min_sites=1,
        strict=True,
        base_model=ModelRef(server_round=3, key="k", sha256="a" * 64),
        evaluated_model=ModelRef(server_round=3, key="k", sha256="a" * 64),
        training=Training(lr=0.1, local_epochs=1),
        privacy=NoPrivacy(mechanism="none", i_accept_no_privacy=True),
        evaluation=Evaluation(holdout_fraction=0.2, min_cell=7),
        total_rounds=5,
    )
    found = validate_model(BINARY, model, inputs, truth, plan, "701", "e" * 64)
    assert (found.study, found.server_round, found.site, found.model_sha256) == ("derm56", 4, "701", "e" * 64)
    assert (found.min_cell, found.num_examples, found.suppressed) == (7, 3, ())
    assert found.figures["auc"] == 1.0
    assert found.figures["log_loss"] == pytest.approx(np.mean(np.log1p(np.exp([-1.5, -1.5, 0.5]))), rel=1e-6)


# what may leave


@pytest.mark.parametrize(
    ("positive", "negative", "hidden"),
    [
        (0, 0, ("num_examples", *EVERY)),
        (2, 2, ("num_examples", *EVERY)),
        (4, 0, ("num_examples", *EVERY)),
        (5, 0, OF_BOTH),
        (0, 5, OF_BOTH),
        (4, 5, OF_BOTH),
        (5, 4, OF_BOTH),
        (1, 40, OF_BOTH),
        (5, 5, ()),
        (50, 50, ()),
    ],
)
@pytest.mark.parametrize("mechanism", ["none"])
def test_small_cells_are_suppressed(positive: int, negative: int, hidden: tuple[str, ...], mechanism: str) -> None:
    total = positive + negative
    kept = suppress(metrics(total), BINARY, labels(positive, negative), promises=promises(mechanism))
    assert kept.suppressed == hidden
    assert kept.num_examples == (None if "num_examples" in hidden else total)
    expected = {"auc": 0.765, "log_loss": 0.654, "calibration_slope": 0.765}
    assert kept.figures == {name: value for name, value in expected.items() if name not in hidden}


def test_nothing_suppressed_is_anywhere_in_the_json() -> None:
    """The figures' digits, whole or rounded, stand in no field of what is uploaded."""
    full = metrics(4)
    text = to_json(suppress(full, BINARY, labels(2, 2), promises=False)).decode()
    for value in (AUC, LOSS):
        assert str(value) in to_json(full).decode()
        assert f"{value:.2f}"[1:] not in text
    fields = json.loads(text)
    assert {name for name, value in fields.items() if value is None} == {"num_examples"}
    rest = {name: value for name, value in fields.items() if value is not None}
    assert rest == {
        "study": "s",
        "server_round": 1,
        "site": "701",
        "model_sha256": "0" * 64,
        "min_cell": MIN_CELL,
        "figures": {},
        "suppressed": ["num_examples", *EVERY],
        "seconds": 0.0,
    }


def test_figures_are_rounded_to_three_digits() -> None:
    text = to_json(suppress(metrics(20), BINARY, labels(10, 10), promises=False)).decode()
    assert '"auc": 0.765,' in text
    assert '"log_loss": 0.654,' in text
    assert str(AUC)[:6] not in text


def test_a_figure_that_there_is_none_of_stays_none() -> None:
    full = metrics(20).model_copy(update={"figures": {}})
    kept = suppress(full, BINARY, labels(10, 10), promises=False)
    assert (kept.figures, kept.num_examples, kept.suppressed) == ({}, 20, ())


@pytest.mark.parametrize("mechanism", PRIVATE)
def test_under_a_privacy_mechanism_no_figure_about_patients_leaves(mechanism: str) -> None:
    """However many patients there are: AUC and log-loss are outside every budget."""
    kept = suppress(metrics(5000), BINARY, labels(2500, 2500), promises=promises(mechanism))
    assert (kept.figures, kept.num_examples) == ({}, 5000)
    assert kept.suppressed == EVERY
    text = to_json(kept).decode()
    for value in (AUC, LOSS):
        assert f"{value:.2f}"[1:] not in text
    few = suppress(metrics(4), BINARY, labels(2, 2), promises=promises(mechanism))
    assert (few.num_examples, few.suppressed) == (None, ("num_examples", *EVERY))


def test_every_mechanism_is_with_privacy_or_without() -> None:
    assert len(PRIVATE) == 4
    assert {name for name in PRIVACY_SECTIONS if promises(name)} == set(PRIVATE)
    assert {name for name in PRIVACY_SECTIONS if not promises(name)} == {"none"}
    assert not promises("laplace of another version")


# counts by label and bin of predicted risk


class Risk(nn.Module):
    """Predicts what it is given, as a logit."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.logit(inputs[:, 0].double())


def count_scores(model: nn.Module, inputs: torch.Tensor, truth: torch.Tensor, bins: int) -> np.ndarray:
    """Patients by label and bin, (2, bins)."""
    steps = sum_statistics(BINARY, model, inputs, truth, bins)
    assert (steps % STEPS_PER_CLIP == 0).all()
    return (steps // STEPS_PER_CLIP).reshape(2, bins)


def auc_of_counts(counts: np.ndarray, noise_sd: float, draws: int = 2000) -> tuple[float, float] | None:
    found = estimates(BINARY, counts.flatten(), counts.shape[1], noise_sd, draws=draws)
    return tuple(found["auc"]) if "auc" in found else None


def counted(risks: list[float], truth: list[float], bins: int) -> list[list[int]]:
    return count_scores(Risk(), torch.tensor(risks).double()[:, None], torch.tensor(truth), bins).tolist()


def test_counts_by_hand() -> None:
    """Five bins of .2: the first two patients of label 0 in bin 0, and so on; a risk of 1 is in the last bin."""
    risks = [0.05, 0.19, 0.45, 0.45, 0.81, 1.0, 0.0]
    truth = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    assert counted(risks, truth, 5) == [[2, 0, 1, 0, 0], [1, 0, 1, 0, 2]]
    assert counted(risks, truth, 2) == [[3, 0], [2, 2]]
    assert counted([], [], 3) == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("logit", [math.nan, math.inf, -math.inf, 1e30])
def test_a_patient_is_one_count_whatever_the_model_says(logit: float) -> None:
    """The sensitivity of the counts: also under a broken model, no patient is counted twice or lost."""

    class Broken(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return torch.full((len(inputs),), logit)

    counts = count_scores(Broken(), torch.zeros(3, 1), torch.tensor([0.0, 1.0, 1.0]), 4)
    assert (counts.dtype, counts.shape) == (np.int64, (2, 4))
    assert counts.sum(axis=1).tolist() == [1, 2]
    assert ((counts != 0).sum(axis=1) == 1).all(), "all in one bin"


@given(
    patients=st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=50),
    bins=st.integers(2, 12),
)
def test_leaving_one_patient_out_changes_one_cell_by_one(patients: list[tuple[float, bool]], bins: int) -> None:
    risks, truth = [risk for risk, _ in patients], [float(label) for _, label in patients]
    counts = np.array(counted(risks, truth, bins))
    assert counts.sum() == len(patients)
    assert counts[1].sum() == sum(truth)
    if patients:
        changed = counts - np.array(counted(risks[1:], truth[1:], bins))
        assert sorted(changed.flatten().tolist()) == [0] * (2 * bins - 1) + [1]


# AUC from counts


@pytest.mark.parametrize(
    ("negative", "positive", "expected"),
    [
        ([4, 0], [0, 3], 1.0),
        ([0, 4], [3, 0], 0.0),
        ([5, 5], [5, 5], 0.5),
        ([0, 7, 0], [0, 2, 0], 0.5),
        ([1, 1, 0], [0, 1, 1], 0.875),  # 4 pairs: won 1, tied 1 of the first positive; won 2 of the second
        ([2, 1, 0, 1], [0, 1, 2, 1], 12 / 16),  # won 2 + 2 * 3 + 3, tied 1 + 0 + 1, halved, of 16 pairs
    ],
)
def test_auc_of_counts_by_hand(negative: list[int], positive: list[int], expected: float) -> None:
    found = auc_of_counts(np.array([negative, positive], dtype=float), 0.0)
    assert found == (pytest.approx(expected, abs=1e-12), 0.0)


@given(
    pairs=st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=80).filter(
        lambda pairs: len({label for _, label in pairs}) == 2
    ),
    bins=st.integers(2, 20),
)
def test_auc_of_counts_is_the_auc_of_binned_scores(pairs: list[tuple[float, bool]], bins: int) -> None:
    risks, truth = [risk for risk, _ in pairs], [float(label) for _, label in pairs]
    counts = np.array(counted(risks, truth, bins), dtype=float)
    cells = np.array([np.flatnonzero(np.array(counted([risk], [1.0], bins))[1])[0] for risk in risks])
    found = auc_of_counts(counts, 0.0, draws=2)
    assert found is not None
    assert found[0] == pytest.approx(auc(cells.astype(float), np.array(truth)), abs=1e-12)


@pytest.mark.parametrize("counts", [[[0, 0], [3, 4]], [[5, 1], [0, 0]], [[0, 0], [0, 0]], [[3, 1], [-0.5, -7.2]]])
def test_there_is_no_auc_where_a_label_has_no_patient(counts: list[list[float]]) -> None:
    assert auc_of_counts(np.array(counts, dtype=float), 1.0) is None


def test_counts_below_zero_are_no_patients() -> None:
    noisy = np.array([[6.0, -3.0, 2.0], [-1.0, 1.0, 4.0]])
    cut = np.maximum(noisy, 0.0)
    assert auc_of_counts(noisy, 2.0) == auc_of_counts(cut, 2.0)


@pytest.mark.parametrize("noise_sd", [2.0, 6.0])
def test_the_standard_error_is_the_spread_over_fresh_noise(noise_sd: float) -> None:
    """The mean of the errors told, over 300 noised tables, against the spread of the 300 estimates.

    The spread's own relative standard error is 4%, so 20% off would come about once in 10^6 choices of the seed. The
    error of half or of twice the noise is outside.
    """
    truth = np.array([[60.0, 45.0, 30.0, 15.0, 10.0], [10.0, 20.0, 30.0, 40.0, 50.0]])
    rng = np.random.default_rng(5)
    tables = [truth + rng.normal(0.0, noise_sd, truth.shape) for _ in range(300)]
    found = [auc_of_counts(table, noise_sd, draws=300) for table in tables]
    estimates = np.array([pair[0] for pair in found if pair is not None])
    assert len(estimates) == 300
    spread = estimates.std(ddof=1)
    assert np.mean([pair[1] for pair in found if pair]) == pytest.approx(spread, rel=0.2)
    for wrong in (noise_sd / 2, 2 * noise_sd):
        told = [pair[1] for table in tables[:50] if (pair := auc_of_counts(table, wrong, draws=300))]
        assert np.mean(told) != pytest.approx(spread, rel=0.2), "the test can tell another noise"
    assert abs(estimates.mean() - auc_of_counts(truth, 0.0)[0]) < 0.02  # type: ignore[index]


def test_the_same_counts_have_the_same_figures() -> None:
    counts = np.array([[6.5, 3.0], [1.0, 4.25]])
    assert auc_of_counts(counts, 1.0) == auc_of_counts(counts.copy(), 1.0)


# models of one's own


@pytest.mark.parametrize("name", ["Drops", "Everything", "StatisticsOfOthers"])
def test_patients_are_scored_in_eval_mode_each_alone(name: str) -> None:
    model, x = getattr(own_models, name)(4), torch.randn(30, 4, generator=torch.Generator().manual_seed(3))
    whole = predict(model.train(), x)
    np.testing.assert_array_equal(predict(model.train(), x), whole)
    np.testing.assert_allclose(np.concatenate([predict(model, one[None]) for one in x]), whole, atol=1e-6)
    truth = (x[:, 0] > 0).float()
    counts = count_scores(model.train(), x, truth, 8)
    assert counts.tolist() == count_scores(model.train(), x, truth, 8).tolist()
    assert counts.sum() == 30


def test_one_patient_moves_its_own_count_even_in_a_model_that_mixes_a_batch() -> None:
    """What no look has seen of a model does not widen the sensitivity that the noise is for."""
    generator = torch.Generator().manual_seed(1)
    with seeded(0):
        model = own_models.CentredAmongMany(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    x, truth = torch.randn(20, 5, generator=generator), torch.arange(20).remainder(2).float()
    other = x.clone()
    other[0] = 40.0
    moved = predict(model, x) - predict(model, other)
    assert (np.abs(moved[1:]) > 0.001).all(), "together they move each other"
    rest = count_scores(model, x[1:], truth[1:], 12)
    for rows in (x, other):
        changed = count_scores(model, rows, truth, 12) - rest
        assert sorted(changed.flatten().tolist()) == [0] * 23 + [1]


def test_nobody_held_out_is_no_question_to_the_model() -> None:
    model = own_models.NobodyBreaksIt(4)
    with pytest.raises(RuntimeError, match="cannot reshape"):
        model(torch.zeros(0, 4))
    assert predict(model, torch.zeros(0, 4)).shape == (0,)
    assert count_scores(model, torch.zeros(0, 4), torch.zeros(0), 3).tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_a_logit_that_is_no_number_is_no_rank(weight: float) -> None:
    model = build_model("tasks.models:LogisticRegression", 2, {}, seed=0)
    set_parameters(model, {"linear.weight": torch.tensor([[weight, 0.0]]), "linear.bias": torch.zeros(1)})
    with pytest.raises(DataError, match="outputs of held-out patients are not all finite"):
        predict(model, torch.ones(3, 2))
