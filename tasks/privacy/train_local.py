"""From a global model and a site's patients to what the site wants to share, in the form that its mechanism needs."""

from __future__ import annotations

import torch
from torch import nn

from tasks.errors import DataError
from tasks.learning.seeding import seeded
from tasks.learning.tasks.task import Task
from tasks.learning.training import Penalty, RawUpdate, descend, gradient_rows
from tasks.privacy.noise.grid import clip_to_grid
from tasks.store.weights import in_float64
from tasks.study.privacy import Privacy
from tasks.study.sections import Training


def train_local(
    task: Task,
    model: nn.Module,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    training: Training,
    privacy: Privacy,
    *,
    seed: int,
    optimizer_state: dict[str, torch.Tensor] | None = None,
    penalty: Penalty | None = None,
) -> RawUpdate:
    """Train on (patients, inputs) and the task's labels from the weights in `model`, as the study says.

    `seed` decides the order of the patients and what the model itself draws, such as dropout. `penalty` is added to
    the loss of each local step; a clipped gradient is of the task's loss alone.

    Raises:
        DataError: there is no patient to train on.
    """
    if len(inputs) == 0:
        raise DataError("there is no patient left to train on after the hold-out split")
    with seeded(seed):
        model.train()
        if privacy.patient_clip is not None:
            total = summed_gradients(task, model, inputs, labels, privacy.patient_clip)
            return RawUpdate({"sum": total}, len(inputs), local_iterations=1)
        return descend(task, model, inputs, labels, training, seed, optimizer_state, penalty)


def summed_gradients(
    task: Task, model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, clip_norm: float
) -> torch.Tensor:
    """Sum of the clipped per-patient gradients of the task's loss, (parameters,) int64 grid steps, by sorted name.

    In float64: a float32 gradient depends in its last bits on how many patients are beside it in the batch, and on the
    grid that would show.
    """
    weights, _ = in_float64(model)
    rows = gradient_rows(task, model, weights, inputs.double(), labels.double())
    return torch.from_numpy(clip_to_grid(rows.numpy(), clip_norm))
