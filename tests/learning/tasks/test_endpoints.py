"""Each task against what others compute: scikit-learn, statsmodels, and figures of lifelines."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
import torch
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    mean_absolute_error,
    mean_poisson_deviance,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)
from sklearn.metrics import log_loss as sklearn_log_loss
from statsmodels.duration.hazard_regression import PHReg

from tasks.learning.tasks.binary import calibration
from tasks.learning.tasks.ranking import concordance
from tasks.learning.tasks.sums import estimates
from tasks.learning.tasks.survival import integrated_brier, survival_of
from tests.learning.tasks.task_samples import UNTIL, a_task, followed, minimise

#: lifelines 0.30.3 on `followed()`: concordance_index of this risk, and KaplanMeierFitter at the ends of intervals.
RISK = np.array([0.5, -0.2])
CONCORDANCE = 0.6898249452954048
KAPLAN_MEIER = (0.6684985557129763, 0.543158170775288, 0.24710712384721897, 0.13728173547067718)
#: Its CoxPHFitter, once no two times are the same (a thousandth of a day apart).
COX = (0.6652426088105562, -0.5338771241623997)


def some(number: int, seed: int = 1) -> tuple[np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(number, 3)), rng


def test_binary_figures_are_scikit_learns() -> None:
    x, rng = some(300)
    logits = np.round(x @ [1.0, -0.7, 0.2], 1)  # with ties
    labels = (rng.random(300) < 1 / (1 + np.exp(-logits))).astype(float)
    risk = 1 / (1 + np.exp(-logits))
    found = a_task("binary", threshold=0.3).figures(logits, labels)
    expected = {
        "auc": roc_auc_score(labels, logits),
        "log_loss": sklearn_log_loss(labels, risk),
        "average_precision": average_precision_score(labels, logits),
        "accuracy": accuracy_score(labels, risk >= 0.3),
        "balanced_accuracy": balanced_accuracy_score(labels, risk >= 0.3),
        "brier": brier_score_loss(labels, risk),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    fit = sm.Logit(labels, sm.add_constant(logits)).fit(disp=0, tol=1e-12)
    assert (found["calibration_intercept"], found["calibration_slope"]) == pytest.approx(tuple(fit.params), abs=1e-7)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [([1.0, 2.0], [1.0, 1.0]), ([-2.0, -1.0, 1.0, 2.0], [0.0, 0.0, 1.0, 1.0]), ([0.5, 0.5], [0.0, 1.0])],
    ids=["one label", "parted", "one logit"],
)
def test_there_is_no_calibration_where_the_fit_has_no_end(logits: list[float], labels: list[float]) -> None:
    assert calibration(np.array(logits), np.array(labels)) is None


def test_multiclass_figures_are_scikit_learns() -> None:
    x, rng = some(300)
    logits = x + 0.3
    labels = rng.integers(0, 3, 300).astype(float)
    risk = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = a_task("multiclass").figures(logits, labels)
    one_against_rest = [roc_auc_score(labels == each, logits[:, each]) for each in range(3)]
    assert found["macro_auc"] == pytest.approx(np.mean(one_against_rest))
    assert found["log_loss"] == pytest.approx(sklearn_log_loss(labels, risk))
    assert found["accuracy"] == accuracy_score(labels, risk.argmax(axis=1))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, risk.argmax(axis=1)))
    assert found["brier"] == pytest.approx(((risk - np.eye(3)[labels.astype(int)]) ** 2).sum(axis=1).mean())


def test_multinomial_regression_is_statsmodels() -> None:
    x, rng = some(400)
    scores = x @ rng.normal(size=(3, 3)) + rng.gumbel(size=(400, 3))
    labels = scores.argmax(axis=1).astype(float)
    task, design = a_task("multiclass"), torch.from_numpy(sm.add_constant(x))

    def loss(flat: torch.Tensor) -> torch.Tensor:
        return task.loss(design @ torch.cat([torch.zeros(4, 1), flat.reshape(4, 2)], dim=1), torch.from_numpy(labels))

    fit = sm.MNLogit(labels, sm.add_constant(x)).fit(disp=0, tol=1e-12)
    np.testing.assert_allclose(minimise(loss, 8).reshape(4, 2), fit.params, atol=1e-5)


def test_a_class_that_nobody_has_is_left_out_of_means() -> None:
    """A site may never have seen it: its figures are means over the classes that its patients have."""
    logits = np.array([[2.0, 0.0, 1.0], [0.0, 1.0, 0.5], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    found = a_task("multiclass").figures(logits, np.array([0.0, 1.0, 0.0, 1.0]))
    assert (found["macro_auc"], found["accuracy"], found["balanced_accuracy"]) == (1.0, 1.0, 1.0)
    one = a_task("multiclass").figures(logits, np.zeros(4))
    assert one["macro_auc"] is None
    assert a_task("multiclass").cells(np.zeros(40))["macro_auc"] == 0, "of one class alone no AUC leaves"
    assert a_task("multiclass").cells(np.array([0.0] * 30 + [2.0] * 3))["macro_auc"] == 3


def test_regression_figures_are_scikit_learns_in_the_labels_units() -> None:
    x, rng = some(200)
    truth = np.clip(5 + 6 * x[:, 0] + rng.normal(0, 3, 200), -20, 30)
    guess = 5 + 5 * x[:, 0]
    found = a_task("regression").figures((guess - 5) / 25, (truth - 5) / 25)
    assert found["rmse"] == pytest.approx(root_mean_squared_error(truth, guess))
    assert found["mae"] == pytest.approx(mean_absolute_error(truth, guess))
    assert found["r2"] == pytest.approx(r2_score(truth, guess))
    constant = a_task("regression").figures(np.zeros(4), np.full(4, 0.2))
    assert constant["r2"] is None


def test_least_squares_are_statsmodels() -> None:
    x, rng = some(200)
    labels = np.clip(x @ [0.3, -0.2, 0.1] + rng.normal(0, 0.1, 200), -1, 1)
    task, design = a_task("regression"), torch.from_numpy(sm.add_constant(x))
    found = minimise(lambda flat: task.loss(design @ flat, torch.from_numpy(labels)), 4)
    np.testing.assert_allclose(found, sm.OLS(labels, sm.add_constant(x)).fit().params, atol=1e-6)


def test_poisson_regression_with_an_offset_is_statsmodels() -> None:
    x, rng = some(300)
    exposure = rng.uniform(0.2, 3.0, 300)
    counts = rng.poisson(exposure * np.exp(0.4 + x @ [0.3, -0.2, 0.1])).astype(float)
    task, design = a_task("count"), torch.from_numpy(sm.add_constant(x))
    labels = np.stack([counts, np.log(exposure)], axis=1)
    found = minimise(lambda flat: task.loss(design @ flat, torch.from_numpy(labels)), 4)
    fit = sm.GLM(counts, sm.add_constant(x), family=sm.families.Poisson(), exposure=exposure).fit(tol=1e-12)
    np.testing.assert_allclose(found, fit.params, atol=1e-6)
    figures = task.figures(sm.add_constant(x) @ found, labels)
    assert figures["deviance"] == pytest.approx(mean_poisson_deviance(counts, fit.fittedvalues), rel=1e-6)
    assert figures["mae"] == pytest.approx(np.abs(counts - fit.fittedvalues).mean(), rel=1e-6)


def test_a_rate_beyond_float32_is_no_nan() -> None:
    task = a_task("count")
    loss = task.loss(torch.tensor([200.0, -200.0]), torch.tensor([[3.0, 0.0], [3.0, 0.0]]))
    assert torch.isfinite(loss)
    assert all(
        np.isfinite(value) for value in task.figures(np.array([900.0]), np.array([[0.0, 0.0]])).values() if value
    )


def test_harrells_c_is_lifelines() -> None:
    x, times, events = followed()
    assert concordance(x @ RISK, times, events) == pytest.approx(CONCORDANCE, abs=1e-12)
    assert concordance(-(x @ RISK), times, events) == pytest.approx(1 - CONCORDANCE, abs=1e-12)
    assert concordance(np.zeros(80), times, events) == 0.5
    assert concordance(x @ RISK, times, np.zeros(80)) is None


def test_cox_regression_is_statsmodels_and_lifelines() -> None:
    x, times, events = followed()
    apart = times + np.arange(80) / 1000
    for when, expected in ((apart, COX), (times, None)):
        task, labels = a_task("cox"), torch.from_numpy(np.stack([when, events], axis=1))
        found = minimise(lambda flat, task=task, labels=labels: task.loss(torch.from_numpy(x) @ flat, labels), 2)
        fit = PHReg(when, x, status=events, ties="breslow").fit(disp=0)
        np.testing.assert_allclose(found, fit.params, atol=1e-6)
        figures = task.figures(x @ found, labels.numpy())
        assert figures["partial_loss"] == pytest.approx(-fit.llf / events.sum(), rel=1e-6)
        if expected is not None:
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_hazards_without_inputs_are_the_life_table_of_kaplan_and_meier() -> None:
    """Where nobody is censored within an interval, the hazards are those that Kaplan and Meier multiply."""
    _, times, events = followed()
    ends = sorted(set(times.tolist()))
    task = a_task("survival", until=ends[:60])
    labels = np.stack([np.minimum(times, ends[:60][-1]), events * (times <= ends[:60][-1])], axis=1)
    size = len(ends[:60])
    found = minimise(lambda flat: task.loss(flat.expand(80, size), torch.from_numpy(labels)), size)
    alive = survival_of(found[None])[0]
    for end, expected in zip(UNTIL, KAPLAN_MEIER, strict=True):
        place = int(np.searchsorted(ends, end, side="right")) - 1
        assert alive[place] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("time", "event", "survived", "failed"),
    [
        (0.0, 1, [0, 0, 0, 0], [1, 0, 0, 0]),
        (0.0, 0, [0, 0, 0, 0], [0, 0, 0, 0]),
        (9.0, 1, [0, 0, 0, 0], [1, 0, 0, 0]),
        (10.0, 1, [0, 0, 0, 0], [1, 0, 0, 0]),
        (10.0, 0, [1, 0, 0, 0], [0, 0, 0, 0]),
        (10.5, 1, [1, 0, 0, 0], [0, 1, 0, 0]),
        (39.0, 0, [1, 1, 0, 0], [0, 0, 0, 0]),
        (60.0, 1, [1, 1, 1, 0], [0, 0, 0, 1]),
        (60.0, 0, [1, 1, 1, 1], [0, 0, 0, 0]),
    ],
)
def test_who_is_in_which_interval(time: float, event: int, survived: list[int], failed: list[int]) -> None:
    """By the gradient at hazards of one half: +.5 for an interval that was survived, -.5 for the one that was not."""
    logits = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    loss = a_task("survival").loss(logits, torch.tensor([[time, event]], dtype=torch.float64))
    loss.backward()
    assert logits.grad is not None
    assert (2 * logits.grad[0]).tolist() == [s - f for s, f in zip(survived, failed, strict=True)]


def test_the_brier_score_under_censoring_by_hand() -> None:
    """Four patients at one end, 10: one fails at 4, one is censored at 6, two go on. Three are weighed: 1, 3/2, 3/2."""
    times, events = np.array([4.0, 6.0, 12.0, 15.0]), np.array([1.0, 0.0, 0.0, 0.0])
    alive = np.array([[0.9], [0.5], [0.8], [0.6]])
    found = integrated_brier(alive, np.array([10.0]), times, events)
    assert found == pytest.approx((0.9**2 + 1.5 * 0.2**2 + 1.5 * 0.4**2) / 4)
    everybody = integrated_brier(alive, np.array([10.0]), times + 20, events)
    assert everybody == pytest.approx(np.mean((1 - alive) ** 2)), "without censoring the plain score"


def test_a_survival_figure_of_few_events_stays() -> None:
    task = a_task("survival")
    labels = np.array([[5.0, 1.0]] * 3 + [[50.0, 0.0]] * 20)
    assert task.cells(labels) == {"concordance": 3, "integrated_brier": 3, "log_loss": 23}
    assert a_task("cox").cells(labels) == {"concordance": 3, "partial_loss": 3}


def test_noise_alone_ranks_nobody() -> None:
    """A model that says the same of everybody: over 400 noises the mean is one half, within 4 standard errors."""
    task = a_task("survival")
    total = task.statistics(torch.zeros(60, 4), task.made_up(60), 5).sum(axis=0)
    rng = np.random.default_rng(2)
    found = [estimates(task, total + rng.normal(0, 0.5, total.shape), 5, 0.5, draws=100) for _ in range(400)]
    values = np.array([each["concordance"].value for each in found])
    spread = values.std(ddof=1)
    assert abs(values.mean() - 0.5) < 4 * spread / np.sqrt(400)
    told = np.mean([each["concordance"].error for each in found])
    assert 0.8 * spread < told < 2.5 * spread, "a ratio of noised sums: the error may be told too large, not too small"
