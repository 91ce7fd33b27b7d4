"""The mean of each parameter without its largest and smallest values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tasks.learning.strategies.median import of_sorted
from tasks.learning.strategies.strategy import Strategy
from tasks.study.strategy import TrimmedMeanSettings


@dataclass(frozen=True)
class TrimmedMean(Strategy):
    """Yin et al. 2018, arXiv:1803.01498, definition 2: so many values are left out at each end as `trim` says."""

    settings: TrimmedMeanSettings

    def combine(self, updates: Sequence[torch.Tensor]) -> torch.Tensor:
        trim = self.settings.trim
        return of_sorted(updates, lambda rows: rows[trim : len(rows) - trim].mean(dim=0))
