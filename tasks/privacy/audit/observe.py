"""A study's observers, made of the very functions that sites and hub run: a fault in them shows in the audit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tasks.learning.arrays import Floats
from tasks.learning.building import checked_model
from tasks.learning.flat import Shape, flatten
from tasks.learning.strategies import strategy_of
from tasks.learning.strategies.strategy import penalty_of
from tasks.learning.tasks import task_of
from tasks.learning.tasks.task import Task
from tasks.learning.training import RawUpdate
from tasks.privacy.audit.observer import Observers, PatientGroup, PatientGroups
from tasks.privacy.codecs import codec_of
from tasks.privacy.mechanisms import mechanism_of
from tasks.privacy.noise.grid import STEPS_PER_CLIP
from tasks.privacy.noise.source import NoiseSource, SystemNoise
from tasks.privacy.sanitizer import contribution, sanitize
from tasks.privacy.train_local import train_local
from tasks.store.plans import plan_round
from tasks.store.records.round import Plan
from tasks.store.weights import Weights, set_parameters
from tasks.study.privacy import noise_shares
from tasks.study.sections import Study


def observers(study: Study, noise: Callable[[], NoiseSource] = SystemNoise) -> Observers:
    """What one site's raw update shows, and what leaves: the opened sum behind masks, each upload without them."""
    # Counts of held-out patients are noised like the gradient beside them; the attacks are on training patients.
    study = study.model_copy(update={"evaluation": study.evaluation.model_copy(update={"score_bins": None})})
    model, task = checked_model(study), task_of(study.label)

    def raw(weights: Weights, groups: PatientGroups, server_round: int) -> Floats:
        plan = plan_round(study, tuple(groups), weights, weights, server_round)
        return _total([_raw_vector(_train(task, model, plan, weights, group), plan) for group in groups.values()])

    def released(weights: Weights, groups: PatientGroups, server_round: int) -> Floats:
        plan = plan_round(study, tuple(groups), weights, weights, server_round)
        updates = [_train(task, model, plan, weights, group) for group in groups.values()]
        if plan.channel.exact:
            return _opened(updates, weights, plan, noise())
        return _total([_uploaded(update, weights, plan, noise()) for update in updates])

    return Observers(raw, released)


def _train(task: Task, model: nn.Module, plan: Plan, weights: Weights, group: PatientGroup) -> RawUpdate:
    """A site's raw update; a site without patients has a zero one, which `train_local` refuses to make."""
    inputs, labels = group
    if len(inputs) == 0:
        if plan.privacy.needs.per_patient:
            return RawUpdate(
                {"sum": torch.zeros(Shape.of(weights).num_values, dtype=torch.int64)}, 0, local_iterations=1
            )
        return RawUpdate({name: torch.zeros_like(tensor) for name, tensor in weights.items()}, 0, local_iterations=1)
    set_parameters(model, weights)
    seed = plan.training.seed * 1_000_003 + plan.server_round
    strategy = strategy_of(plan.strategy)
    penalty = penalty_of(strategy, weights, strategy.control(weights, strategy.fresh(weights), None))
    return train_local(task, model, inputs, labels, plan.training, plan.privacy, seed=seed, penalty=penalty)


def _raw_vector(update: RawUpdate, plan: Plan) -> Floats:
    if (clip_norm := plan.privacy.patient_clip) is not None:
        steps: Floats = update.tensors["sum"].numpy() * (clip_norm / STEPS_PER_CLIP)
        return steps
    return _flat(update.tensors)


def _opened(updates: list[RawUpdate], weights: Weights, plan: Plan, noise: NoiseSource) -> Floats:
    """The exact sum of the contributions, at the worst that the promise covers.

    As many sites as may be lost or collude bring no noise that the adversary does not know.
    """
    with_noise = len(updates) - sum(noise_shares(plan.privacy))
    parts = [
        contribution(update, weights, plan, sites=len(updates), noise=noise if k < with_noise else _Known())
        for k, update in enumerate(updates)
    ]
    total: Floats = np.sum([part.values for part in parts], axis=0) * parts[0].step
    return total


class _Known:
    """The noise of a lost or colluding site: taken off."""

    def gaussian(self, size: int, sd: float) -> npt.NDArray[np.int64]:
        return np.zeros(size, dtype=np.int64)

    laplace = gaussian

    def subset(self, population: int, size: int) -> npt.NDArray[np.int64]:
        return np.arange(size)

    def uniform(self, size: int) -> npt.NDArray[np.float32]:
        return np.full(size, 0.5, dtype=np.float32)


def _uploaded(update: RawUpdate, weights: Weights, plan: Plan, noise: NoiseSource) -> Floats:
    """One upload, as a vector; for local_dp brought back from the site's step to its gradient, which anyone can do."""
    body = sanitize(update, weights, plan, releases=1, noise=noise).body
    sent = codec_of(plan, Shape.of(weights)).read(bytearray(body), "audited")
    return mechanism_of(plan).seen(sent.double().numpy(), plan, weights)


def _flat(tensors: Weights) -> Floats:
    return flatten(tensors).double().numpy()


def _total(vectors: list[Floats]) -> Floats:
    total: Floats = np.sum(vectors, axis=0)
    return total
