"""What FedAdam, FedYogi and FedAdagrad share: a rate of its own for each parameter, at the hub."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch

from tasks.learning.strategies.strategy import At, Strategy
from tasks.store.weights import Weights
from tasks.study.strategy import AdaptiveSettings


@dataclass(frozen=True)
class Adaptive(Strategy):
    """Reddi et al. 2021, arXiv:2003.00295, algorithm 2, without bias correction; v begins at tau^2.

    m <- beta_1 m + (1 - beta_1) mean; v as each of them says; w <- w + server_lr m / (sqrt(v) + tau).
    """

    settings: AdaptiveSettings
    state_parts = ("mean", "square")

    def fresh(self, base: Weights) -> Weights:
        squares = {f"square.{name}": torch.full_like(base[name], self.settings.tau**2) for name in base}
        return {f"mean.{name}": torch.zeros_like(base[name]) for name in base} | squares

    def step(self, base: Weights, mean: Weights, state: Weights, at: At) -> tuple[Weights, Weights]:
        rate, beta, tau = self.settings.server_lr, self.settings.beta_1, self.settings.tau
        weights: Weights = {}
        kept: Weights = {}
        for name, delta in mean.items():
            m = beta * state[f"mean.{name}"] + (1 - beta) * delta
            v = self.square(state[f"square.{name}"], delta.square())
            weights[name] = base[name] + rate * m / (v.sqrt() + tau)
            kept |= {f"mean.{name}": m, f"square.{name}": v}
        return weights, dict(sorted(kept.items()))

    @abstractmethod
    def square(self, before: torch.Tensor, squared: torch.Tensor) -> torch.Tensor:
        """The next v, from the last one and the squared mean update."""
