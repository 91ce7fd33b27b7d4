"""The seam between attacks and releases: the attacks know no mechanism, only what an observer shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from tasks.learning.arrays import Floats
from tasks.store.weights import Weights

PatientRows = npt.NDArray[np.int64]
PatientGroup = tuple[torch.Tensor, torch.Tensor]
PatientGroups = Mapping[str, PatientGroup]
#: Called with what is being done, and the share of the audit that is done.
AttackProgress = Callable[[str, float], None]


class Observer(Protocol):
    """What the adversary of the study's promise learns of one round."""

    def __call__(self, weights: Weights, groups: PatientGroups, server_round: int) -> Floats:
        """One round's flat vector, (parameters,), in the order of `tasks.store.weights.parameters`.

        Args:
            weights: the model that the round starts from.
            groups: site -> (inputs (n, d) float32, labels (n,) float32) that are trained on. A site with n = 0 takes
                part with a zero update, and with its share of the noise.
            server_round: 1, 2, 3 ...

        Returns:
            Patient-level mechanisms: the (noised) sum over all groups of clipped gradients, in gradient units. Others:
            the (sanitised) update, summed over all groups. Randomness is fresh in every call, also in equal ones.
        """
        ...


@dataclass(frozen=True)
class Observers:
    """A study's two observers: `raw` sees one site's update before the sanitiser, `released` sees what leaves."""

    raw: Observer
    released: Observer
