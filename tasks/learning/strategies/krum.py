"""The updates that are nearest to their neighbours: what f sites send that is far from the others' is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tasks.learning.strategies.strategy import Strategy
from tasks.study.strategy import KrumSettings


@dataclass(frozen=True)
class Krum(Strategy):
    """Blanchard et al. 2017, "Machine learning with adversaries", section 4: a whole update counts, or does not.

    An update's score is the sum of squared distances to its n - f - 2 nearest others; the m lowest are averaged, the
    first by site name where two are the same.
    """

    settings: KrumSettings

    def combine(self, updates: Sequence[torch.Tensor]) -> torch.Tensor:
        nearest = squared_distances(updates).sort(dim=1).values[:, 1 : len(updates) - self.settings.byzantine - 1]
        chosen = nearest.sum(dim=1).argsort(stable=True)[: self.settings.keep]
        return torch.stack([updates[place] for place in sorted(chosen.tolist())]).mean(dim=0)


def squared_distances(updates: Sequence[torch.Tensor]) -> torch.Tensor:
    """(sites, sites) float64; each pair by itself, since a product of matrices loses what is small beside the norms."""
    found = torch.zeros(len(updates), len(updates), dtype=torch.float64)
    for i, one in enumerate(updates):
        for j, other in enumerate(updates[:i]):
            found[i, j] = found[j, i] = (one - other).square().sum(dtype=torch.float64)
    return found
