"""The median of each parameter: fewer than half of the sites may send anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from tasks.learning.strategies.strategy import Strategy
from tasks.study.strategy import MedianSettings

#: Parameters whose values are sorted at once: sorting needs twice their memory again.
_BLOCK = 1 << 18


@dataclass(frozen=True)
class Median(Strategy):
    """Yin et al. 2018, arXiv:1803.01498, definition 1; of an even number, the mean of the two in the middle."""

    settings: MedianSettings

    def combine(self, updates: Sequence[torch.Tensor]) -> torch.Tensor:
        low, high = (len(updates) - 1) // 2, len(updates) // 2
        return of_sorted(updates, lambda rows: (rows[low] + rows[high]) / 2)


def of_sorted(updates: Sequence[torch.Tensor], pick: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """`pick` of each parameter's sorted values: from (sites, some parameters) to (some parameters,)."""
    blocks = zip(*(torch.split(update, _BLOCK) for update in updates), strict=True)
    return torch.cat([pick(torch.stack(block).sort(dim=0).values) for block in blocks])
