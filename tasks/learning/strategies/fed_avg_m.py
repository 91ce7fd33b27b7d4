"""Federated averaging with momentum at the hub."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.learning.strategies.strategy import At, Strategy
from tasks.store.weights import Weights
from tasks.study.strategy import FedAvgMSettings


@dataclass(frozen=True)
class FedAvgM(Strategy):
    """Hsu, Qi & Brown 2019, arXiv:1909.06335, section 4.3: v <- beta v + mean; w <- w + server_lr v."""

    settings: FedAvgMSettings
    state_parts = ("momentum",)

    def step(self, base: Weights, mean: Weights, state: Weights, at: At) -> tuple[Weights, Weights]:
        beta, rate = self.settings.momentum, self.settings.server_lr
        kept = {f"momentum.{name}": beta * state[f"momentum.{name}"] + mean[name] for name in base}
        return {name: base[name] + rate * kept[f"momentum.{name}"] for name in base}, kept
