"""One site's part of a round before anything protects it, as the scheduled step and the simulation both compute it."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

from tasks.data.reading.patients import Patients
from tasks.learning.strategies import strategy_of
from tasks.learning.strategies.strategy import penalty_of
from tasks.learning.tasks.task import Task
from tasks.learning.training import RawUpdate
from tasks.privacy.sum_statistics import sum_statistics
from tasks.privacy.train_local import train_local
from tasks.store.records.round import Plan
from tasks.store.weights import Weights, set_parameters


class SiteState(NamedTuple):
    """What a site has from its earlier rounds: its optimizer's state, and what its strategy keeps; and the hub's state.

    None: nothing yet.
    """

    optimizer: Weights | None = None
    control: Weights | None = None
    hub: Weights | None = None


def local_update(
    task: Task,
    model: nn.Module,
    patients: Patients,
    plan: Plan,
    base: Weights,
    evaluated: Weights,
    state: SiteState | None = None,
) -> RawUpdate:
    """Train from `base` as the plan says; where it asks for it, sum held-out patients' statistics under `evaluated`.

    They ride on the summed gradient, no patient's longer than STEPS_PER_CLIP grid steps: a patient is either trained on
    or held out, so it moves either the gradient or the statistics, and by no more than the clip norm.

    Raises:
        DataError: there is no patient to train on.
    """
    strategy, state = strategy_of(plan.strategy), state or SiteState()
    control = strategy.control(base, strategy.fresh(base) if state.hub is None else state.hub, state.control)
    set_parameters(model, strategy.local(base, state.control))
    raw = train_local(
        task,
        model,
        patients.train_inputs,
        patients.train_labels,
        plan.training,
        plan.privacy,
        seed=plan.training.seed * 1_000_003 + plan.server_round,
        optimizer_state=state.optimizer,
        penalty=penalty_of(strategy, base, control),
    )
    if strategy.settings.keeps:
        length = raw.local_iterations * plan.training.lr
        tensors, kept = strategy.leaves(base, raw.tensors, control, state.control, length)
        raw = replace(raw, tensors=tensors, control=kept)
    if plan.evaluation.score_bins is None:
        return raw
    set_parameters(model, evaluated)
    sums = sum_statistics(task, model, patients.held_out_inputs, patients.held_out_labels, plan.evaluation.score_bins)
    total = torch.cat([raw.tensors["sum"], torch.from_numpy(sums)])
    return RawUpdate({"sum": total}, raw.num_examples, raw.local_iterations)
