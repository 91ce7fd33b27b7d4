"""A moving average of squares, as Adam has it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tasks.learning.strategies.adaptive import Adaptive
from tasks.study.strategy import FedAdamSettings


@dataclass(frozen=True)
class FedAdam(Adaptive):
    """Reddi et al. 2021, arXiv:2003.00295, algorithm 2: v <- beta_2 v + (1 - beta_2) mean^2."""

    settings: FedAdamSettings

    def square(self, before: torch.Tensor, squared: torch.Tensor) -> torch.Tensor:
        return self.settings.beta_2 * before + (1 - self.settings.beta_2) * squared
