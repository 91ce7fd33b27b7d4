"""What holds for every task: sums over patients, bounded rows, figures of nobody, and what leaves a site."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from tasks.learning.metrics import METRICS, OF_TASK, metrics_of
from tasks.learning.tasks.sums import estimates
from tasks.privacy.noise.grid import STEPS_PER_CLIP
from tasks.privacy.sum_statistics import on_grid
from tasks.study.label import LABEL_SECTIONS
from tests.learning.tasks.task_samples import LABELS, a_task, outputs_of

EVERY = sorted(LABELS)
ADDS = [name for name in EVERY if LABEL_SECTIONS[name].per_patient]


def test_every_task_is_here_and_has_metrics_with_names_of_their_own() -> None:
    assert set(EVERY) == set(LABEL_SECTIONS) == set(OF_TASK)
    assert set(METRICS) == {metric.name for own in OF_TASK.values() for metric in own}
    assert {name for name in EVERY if name not in ADDS} == {"cox"}
    assert all(get_args(s.model_fields["task"].annotation) == (name,) for name, s in LABEL_SECTIONS.items())
    assert metrics_of("of a later version") == ()


@pytest.mark.parametrize("name", EVERY)
def test_figures_are_the_tasks_metrics_within_their_bounds(name: str) -> None:
    task = a_task(name)
    outputs, labels = outputs_of(task, 60).numpy(), task.made_up(60).double().numpy()
    found = task.figures(outputs, labels)
    assert list(found) == [metric.name for metric in task.metrics] == list(task.cells(labels))
    assert all(value is not None and METRICS[n].allows(value) for n, value in found.items())


@pytest.mark.parametrize("name", EVERY)
def test_nobody_has_no_figure_and_empty_cells(name: str) -> None:
    task = a_task(name)
    outputs, labels = outputs_of(task, 0).numpy(), task.made_up(0).double().numpy()
    assert set(task.figures(outputs, labels).values()) == {None}
    assert set(task.cells(labels).values()) == {0}


@pytest.mark.parametrize("name", ADDS)
def test_the_loss_is_a_mean_over_patients(name: str) -> None:
    """So that each one's gradient can be bounded: the loss of many is the mean of the losses of each."""
    task = a_task(name)
    outputs, labels = outputs_of(task, 9), task.made_up(9).double()
    alone = [float(task.loss(outputs[i : i + 1], labels[i : i + 1])) for i in range(9)]
    assert float(task.loss(outputs, labels)) == pytest.approx(np.mean(alone), rel=1e-12)
    assert len(set(np.round(alone, 9))) > 3


def test_the_partial_likelihood_is_no_sum_over_patients() -> None:
    task = a_task("cox")
    outputs, labels = outputs_of(task, 9), task.made_up(9).double()
    alone = [float(task.loss(outputs[i : i + 1], labels[i : i + 1])) for i in range(9)]
    assert float(task.loss(outputs, labels)) > np.mean(alone) == 0


@pytest.mark.parametrize("name", ADDS)
def test_no_patients_statistics_are_longer_than_one(name: str) -> None:
    """Whatever the model says: also where it says nothing that is a number."""
    task = a_task(name)
    wild = outputs_of(task, 40) * torch.logspace(-3, 200, 40, dtype=torch.float64).reshape(
        -1, *[1] * (task.num_outputs is not None)
    )
    wild[3], wild[4], wild[5] = torch.nan, torch.inf, -torch.inf
    rows = task.statistics(wild, task.made_up(40), 6)
    assert rows.shape == (40, task.num_sums(6))
    assert np.isfinite(rows).all()
    assert (np.linalg.norm(rows, axis=1) <= 1 + 1e-12).all()
    each = np.stack([on_grid(row[None]) for row in rows])
    assert (np.square(each.astype(float)).sum(axis=1) <= STEPS_PER_CLIP**2).all()
    np.testing.assert_array_equal(on_grid(rows), each.sum(axis=0))


@pytest.mark.parametrize("name", ADDS)
def test_figures_of_sums_come_near_those_of_the_patients(name: str) -> None:
    """Without noise, over 4,000 patients: within what bins, or the middle of a bin, take away."""
    task = a_task(name)
    outputs, labels = outputs_of(task, 4000) / 5, task.made_up(4000)
    total = task.statistics(outputs, labels, 50).sum(axis=0)
    found = estimates(task, total, 50, 0.0, draws=2)
    exact = task.figures(outputs.numpy(), labels.double().numpy())
    assert found.pop("num_examples").value == pytest.approx(4000)
    assert task.metrics[0].name in found or name == "multiclass"
    for figure, estimate in found.items():
        near = 0.1 if name == "regression" else 0.03  # there the largest errors are cut
        assert estimate.value == pytest.approx(exact[figure], rel=near), figure
        assert estimate.error == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", ADDS)
def test_errors_told_are_the_spread_over_fresh_noise(name: str) -> None:
    """Over 150 noised sums; the spread's own relative error is 6 %, so a third off has a chance below 1e-6."""
    task = a_task(name)
    total = task.statistics(outputs_of(task, 3000) / 2, task.made_up(3000), 5).sum(axis=0)
    rng, sd = np.random.default_rng(3), 8.0
    found = [estimates(task, total + rng.normal(0, sd, total.shape), 5, sd, draws=200) for _ in range(150)]
    for figure in found[0]:
        if figure == "num_examples":
            continue
        values = [each[figure].value for each in found if figure in each]
        told = np.mean([each[figure].error for each in found if figure in each])
        assert len(values) == 150
        assert told == pytest.approx(np.std(values, ddof=1), rel=0.34), figure


@pytest.mark.parametrize("name", EVERY)
def test_made_up_patients_do_not_depend_on_how_many_there_are(name: str) -> None:
    task = a_task(name)
    assert torch.equal(task.made_up(12)[:5], task.made_up(5))
    assert torch.isfinite(task.made_up(12)).all()
