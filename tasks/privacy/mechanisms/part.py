"""A site's raw part of a round, in the form that its mechanism takes; what is not of that form stays at the site."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from tasks.errors import PrivacyError
from tasks.learning.averaging import weight_of
from tasks.learning.flat import Shape, flatten
from tasks.learning.training import RawUpdate
from tasks.privacy.sum_statistics import num_sums
from tasks.store.records.round import Plan
from tasks.store.weights import Weights


@dataclass(frozen=True, eq=False)
class Part:
    """What training left behind, and the weights that the round started from."""

    raw: RawUpdate
    base: Weights
    plan: Plan

    @property
    def update(self) -> npt.NDArray[np.float32]:
        """The weight difference as one vector, (parameters,), in the order of the names. Raises PrivacyError."""
        flat: npt.NDArray[np.float32] = flatten(as_released(self.raw.tensors, self.base)).numpy()
        return flat

    @property
    def summed(self) -> torch.Tensor:
        """The summed gradients and the sums that ride on them, int64 grid steps. Raises PrivacyError."""
        tensors, size = self.raw.tensors, Shape.of(self.base).num_values + num_sums(self.plan)
        if set(tensors) != {"sum"} or tensors["sum"].numel() != size:
            raise PrivacyError(f"the plan needs one summed gradient of {size} values: the update stays at the site")
        return tensors["sum"]

    @property
    def weight(self) -> float:
        """How much the update counts in a weighted sum."""
        return weight_of(self.plan.training.weighting, self.raw.num_examples, self.raw.local_iterations)


def as_released(tensors: Weights, base: Weights) -> Weights:
    """The same in float32, by name. Raises PrivacyError: they are not the model's parameters, or do not fit."""
    if {name: t.shape for name, t in tensors.items()} != {name: t.shape for name, t in base.items()}:
        raise PrivacyError("the update's tensors are not the model's parameters: the update stays at the site")
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise PrivacyError(f"tensor {name} is {tensor.dtype}, not floating point: the update stays at the site")
    released = {name: tensor.to(torch.float32).contiguous() for name, tensor in tensors.items()}
    for name, tensor in released.items():
        if not torch.isfinite(tensor).all():
            raise PrivacyError(f"tensor {name} does not fit float32: the update stays at the site")
    return released
