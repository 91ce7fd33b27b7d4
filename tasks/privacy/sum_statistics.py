"""How good a model is on held-out patients, as sums that may ride on the noised sum of a round."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from tasks.errors import PrivacyError
from tasks.learning.arrays import Floats
from tasks.learning.evaluation import outputs_alone
from tasks.learning.tasks import task_of
from tasks.learning.tasks.task import Task
from tasks.privacy.noise.grid import STEPS_PER_CLIP, Steps
from tasks.store.records.round import Plan
from tasks.study.sections import Study


def num_sums(plan: Plan) -> int:
    """How many sums over held-out patients ride on a contribution."""
    if not plan.evaluation.score_bins or not plan.privacy.needs.counts:
        return 0
    return 2 * plan.evaluation.score_bins if plan.num_sums is None else plan.num_sums


def asked_sums(study: Study) -> int | None:
    """The same as a plan of this study says it; None where it asks for none."""
    bins = study.evaluation.score_bins
    return task_of(study.label).num_sums(bins) if bins else None


def sum_statistics(task: Task, model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, bins: int) -> Steps:
    """Sum of the task's statistics over these patients, (num_sums,) int64 grid steps; STEPS_PER_CLIP of them are 1.

    Guarantee: leaving one patient out changes the sum by that patient's row and nothing else, and by no more than
    STEPS_PER_CLIP in L2, whatever the model's code does with a batch, because each call of it sees one patient.
    """
    if len(inputs) == 0:
        return np.zeros(task.num_sums(bins), dtype=np.int64)
    return on_grid(task.statistics(outputs_alone(model, inputs), labels, bins))


def on_grid(rows: Floats) -> Steps:
    """Rows of statistics, (patients, num_sums), none longer than 1, cut toward zero to grid steps and summed.

    A row that is not finite counts as zero, and one that is too long is made 1 long; nobody is told.

    Raises:
        PrivacyError: a row is still too long, which no finite row brings about.
    """
    rows = np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0.0)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1.0)
    steps = np.trunc(rows * STEPS_PER_CLIP).astype(np.int64)
    if (np.square(steps, dtype=np.float64).sum(axis=1) > STEPS_PER_CLIP**2).any():
        raise PrivacyError("a patient's statistics are longer than the clip norm")
    total: Steps = steps.sum(axis=0)
    return total
