"""From the opened sum of masked contributions to the step of the global model: the way back of `contribution`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from tasks.errors import QuorumMissed, UpdateRejected
from tasks.learning.evaluation import auc_of_counts
from tasks.learning.flat import Shape, unflatten
from tasks.privacy.mechanisms.distributed_dp import DistributedDPMechanism
from tasks.privacy.noise.grid import STEPS_PER_CLIP
from tasks.privacy.sanitizer import FIXED_POINT_STEP
from tasks.store.records.model import PrivateAuc
from tasks.store.records.round import Plan
from tasks.store.weights import Weights
from tasks.study.privacy import DistributedDP, GaussianUpdate, NoPrivacy

#: A figure with a larger standard error says nothing about the model, so none is shown.
LARGEST_ERROR = 0.2


@dataclass(frozen=True)
class OpenedSum:
    """What the hub learns of a masked round.

    delta: step of the global model, by parameter name. counts: held-out patients by label and bin of predicted risk,
    (2, bins) with noise, under the model that the round started from; None where the study counts none.
    """

    delta: Weights
    counts: npt.NDArray[np.float64] | None = None


def num_values(plan: Plan, shape: Shape) -> int:
    """Length of a contribution: the parameters, then the counts."""
    return shape.num_values + 2 * (plan.evaluation.score_bins or 0)


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
    counts = total[shape.num_values :]
    pieces = unflatten(torch.from_numpy(total[: shape.num_values].astype(np.float64)), base).items()
    match plan.privacy:
        case DistributedDP() as privacy:
            # Missing sites are made up for as if they were like the others; both numbers are public.
            share = len(plan.sites) / (len(weights) * privacy.public_num_examples)
            step = -plan.training.lr * share * (privacy.clip_norm / STEPS_PER_CLIP)
            delta = {n: step * g - plan.training.lr * plan.training.l2 * base[n].double() for n, g in pieces}
        case GaussianUpdate() as privacy:
            delta = {n: v * (privacy.clip_norm / STEPS_PER_CLIP / len(weights)) for n, v in pieces}
        case NoPrivacy():
            delta = {n: v * (FIXED_POINT_STEP / sum(weights)) for n, v in pieces}
        case other:
            raise UpdateRejected("all", f"mechanism {other.mechanism} has no masked sum")
    table = (counts / STEPS_PER_CLIP).reshape(2, -1) if counts.size else None
    return OpenedSum({name: piece.float() for name, piece in delta.items()}, table)


def read_mean(total: npt.NDArray[np.float64], base: Weights, weights: list[float]) -> OpenedSum:
    """A sum of weighted updates, (parameters,), as their weighted mean."""
    pieces = unflatten(torch.from_numpy(total), base)
    return OpenedSum({name: (piece / sum(weights)).float() for name, piece in pieces.items()})


def require_step(opened: OpenedSum, max_norm: float) -> None:
    """Raises QuorumMissed: the opened step is larger than the study allows, so some update in it was."""
    size = float(np.sqrt(sum(float(step.double().square().sum()) for step in opened.delta.values())))
    if not size <= max_norm:
        raise QuorumMissed(f"the sum of this round is a step of norm {size:.3g}, over {max_norm:g}: it is not applied")


def private_auc(opened: OpenedSum, plan: Plan, num_sites: int) -> PrivateAuc | None:
    """AUC over all sites' held-out patients from the noised counts; None where there are none, or only noise.

    `num_sites`: how many contributed. Each brought its share of the noise, of which a few are to spare.
    """
    if opened.counts is None or not isinstance(plan.privacy, DistributedDP):
        return None
    mechanism = DistributedDPMechanism(plan.privacy, plan.total_rounds)
    noise_sd = mechanism.share_sd(num_sites) * num_sites**0.5 / STEPS_PER_CLIP
    found = auc_of_counts(opened.counts, noise_sd)
    if found is None or found[1] > LARGEST_ERROR:
        return None
    return PrivateAuc(
        auc=round(found[0], 4),
        standard_error=round(found[1], 4),
        num_examples=round(float(opened.counts.sum()), 1),
        model_sha256=plan.evaluated_model.sha256,
    )
