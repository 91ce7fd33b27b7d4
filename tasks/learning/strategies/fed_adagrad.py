"""The sum of all squares, as Adagrad has it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tasks.learning.strategies.adaptive import Adaptive
from tasks.study.strategy import FedAdagradSettings


@dataclass(frozen=True)
class FedAdagrad(Adaptive):
    """Reddi et al. 2021, arXiv:2003.00295, algorithm 2: v <- v + mean^2."""

    settings: FedAdagradSettings

    def square(self, before: torch.Tensor, squared: torch.Tensor) -> torch.Tensor:
        return before + squared
