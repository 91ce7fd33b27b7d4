"""Squares that change by no more than the newest square, as Yogi has it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tasks.learning.strategies.adaptive import Adaptive
from tasks.study.strategy import FedYogiSettings


@dataclass(frozen=True)
class FedYogi(Adaptive):
    """Reddi et al. 2021, arXiv:2003.00295, algorithm 2: v <- v - (1 - beta_2) mean^2 sign(v - mean^2)."""

    settings: FedYogiSettings

    def square(self, before: torch.Tensor, squared: torch.Tensor) -> torch.Tensor:
        return before - (1 - self.settings.beta_2) * squared * torch.sign(before - squared)
