"""From the opened sum of masked contributions to the step of the global model: the way back of `contribution`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from tasks.errors import QuorumMissed, UpdateRejected
from tasks.learning.flat import Shape, unflatten
from tasks.learning.metrics import METRICS, Metric
from tasks.learning.tasks.sums import Estimate, estimates
from tasks.learning.tasks.task import Task
from tasks.privacy.mechanisms import mechanism_of
from tasks.privacy.noise.grid import STEPS_PER_CLIP
from tasks.privacy.sum_statistics import num_sums
from tasks.store.records.model import NoisedFigures
from tasks.store.records.round import Plan
from tasks.store.weights import Weights


@dataclass(frozen=True)
class OpenedSum:
    """What the hub learns of a masked round.

    delta: step of the global model, by parameter name. sums: of the task's statistics of held-out patients,
    (num_sums,) with noise, under the model that the round started from; None where the study asks for none.
    """

    delta: Weights
    sums: npt.NDArray[np.float64] | None = None


def num_values(plan: Plan, shape: Shape) -> int:
    """Length of a contribution: the parameters, then the sums."""
    return shape.num_values + num_sums(plan)


def interpret(total: npt.NDArray[np.int64], plan: Plan, base: Weights, weights: list[float]) -> OpenedSum:
    """Read an exact sum of contributions, (values,) grid steps, as the plan's mechanism means it.

    Args:
        weights: each contributor's weight; their number is the number of contributors.

    Raises:
        UpdateRejected: the sum is not of the length that the plan asks for.
    """
    shape = Shape.of(base)
    if total.shape != (num_values(plan, shape),):
        raise UpdateRejected("all", f"a masked sum of {total.size} values, the plan needs {num_values(plan, shape)}")
    sums = total[shape.num_values :]
    step = mechanism_of(plan).read(total[: shape.num_values].astype(np.float64), plan, base, weights)
    delta = {name: piece.float() for name, piece in unflatten(torch.from_numpy(step), base).items()}
    return OpenedSum(delta, sums / STEPS_PER_CLIP if sums.size else None)


def read_mean(total: npt.NDArray[np.float64], base: Weights, weights: list[float]) -> OpenedSum:
    """A sum of weighted updates, (parameters,), as their weighted mean."""
    pieces = unflatten(torch.from_numpy(total), base)
    return OpenedSum({name: (piece / sum(weights)).float() for name, piece in pieces.items()})


def require_step(opened: OpenedSum, max_norm: float) -> None:
    """Raises QuorumMissed: the opened step is larger than the study allows, so some update in it was."""
    size = float(np.sqrt(sum(float(step.double().square().sum()) for step in opened.delta.values())))
    if not size <= max_norm:
        raise QuorumMissed(f"the sum of this round is a step of norm {size:.3g}, over {max_norm:g}: it is not applied")


def _is_told(metric: Metric, found: Estimate) -> bool:
    """Whether it can be, and says anything: a site that lies moves a sum wherever it likes."""
    return metric.allows(found.value) and metric.is_told(found.value, found.error)


def noised_figures(opened: OpenedSum, task: Task, plan: Plan, num_sites: int) -> NoisedFigures | None:
    """Figures over all sites' held-out patients from the noised sums; None where there are none, or only noise.

    `num_sites`: how many contributed. Each brought its share of the noise, of which a few are to spare.
    """
    if opened.sums is None or not plan.privacy.needs.counts:
        return None
    noise_sd = mechanism_of(plan).opened_sd(num_sites) / STEPS_PER_CLIP
    found = estimates(task, opened.sums, plan.evaluation.score_bins or 0, noise_sd)
    number = found.pop("num_examples", Estimate(0.0, 0.0))
    told = {name: each for name, each in found.items() if _is_told(METRICS[name], each)}
    if not told:
        return None
    return NoisedFigures(
        figures={name: round(each.value, 4) for name, each in told.items()},
        errors={name: round(each.error, 4) for name, each in told.items()},
        num_examples=round(number.value, 1),
        model_sha256=plan.evaluated_model.sha256,
    )
