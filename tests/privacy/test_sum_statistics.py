"""Statistics on the grid, and what the hub makes of a sum that a site has moved wherever it liked."""

from __future__ import annotations

import numpy as np
import torch

from tasks.learning.tasks import task_of
from tasks.privacy.noise.grid import STEPS_PER_CLIP
from tasks.privacy.opened import OpenedSum, noised_figures
from tasks.privacy.sum_statistics import on_grid
from tasks.store.plans import plan_round
from tasks.study.sections import Study
from tests.learning.tasks.task_samples import label_of
from tests.worked_examples import STUDY

PRIVACY = {"mechanism": "distributed_dp", "epsilon": 3, "delta": 1e-5, "clip_norm": 1, "public_num_examples": 60}


def test_a_row_that_is_too_long_is_made_one_long_and_one_that_is_no_number_counts_as_zero() -> None:
    long = on_grid(np.array([[3.0, 4.0]]))
    assert np.abs(long - np.array([0.6, 0.8]) * STEPS_PER_CLIP).max() < 1
    assert np.square(long.astype(float)).sum() <= STEPS_PER_CLIP**2
    assert on_grid(np.array([[np.nan, 0.5], [np.inf, 0.0]])).tolist() == [0, 0]
    assert on_grid(np.array([[1.0, 0.0], [np.nan, 1.0], [0.0, 1.0]])).tolist() == [STEPS_PER_CLIP, STEPS_PER_CLIP]


def test_a_figure_that_no_model_can_have_is_not_told_and_stops_no_round() -> None:
    """The sum of deviances is moved by as much as 64 bits let a site move it; the other figure stands."""
    parts = {"label": label_of("count"), "privacy": PRIVACY, "channel": "masks"}
    training = {"lr": 0.3, "weighting": "plain", "local_iterations": 1}
    evaluation = {"holdout_fraction": 0.2, "score_bins": 5}
    study = Study.model_validate(STUDY | parts | {"training": training, "evaluation": evaluation})
    plan, task = plan_round(study, tuple(study.sites), {}, {}, 1), task_of(study.label)
    sums = np.array([4000.0, 3000.0, 1000.0]) / np.sqrt(3)
    as_it_is = noised_figures(OpenedSum({"w": torch.zeros(1)}, sums), task, plan, 3)
    assert as_it_is is not None
    assert list(as_it_is.figures) == ["deviance", "mae"]
    moved = noised_figures(OpenedSum({"w": torch.zeros(1)}, sums + np.array([0.0, 0.0, 1e14])), task, plan, 3)
    assert moved is not None
    assert moved.figures == {"mae": as_it_is.figures["mae"]}
