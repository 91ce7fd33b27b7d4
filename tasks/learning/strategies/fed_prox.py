"""Federated averaging of sites that are held near the model they started from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from tasks.learning.strategies.strategy import Strategy
from tasks.store.weights import Weights
from tasks.study.strategy import FedProxSettings


@dataclass(frozen=True)
class FedProx(Strategy):
    """Li et al. 2020, arXiv:1812.06127, equation 2: each site adds mu/2 ||w - base||^2 to its loss.

    Its gradient is zero at the base, so one local step is that of federated averaging.
    """

    settings: FedProxSettings

    def penalty(self, weights: Mapping[str, torch.Tensor], base: Weights, control: Weights) -> torch.Tensor:
        squares = [(weights[name] - base[name]).square().sum() for name in base]
        return torch.stack(squares).sum() * (self.settings.mu / 2)
