"""Local steps corrected by how a site's gradients differ from everybody's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from tasks.learning.strategies.strategy import At, Strategy
from tasks.store.weights import Weights
from tasks.study.strategy import ScaffoldSettings

#: Before the name of a parameter, of what changed in a site's control variate. No parameter's name begins with a dot.
CHANGE = ".control."


@dataclass(frozen=True)
class Scaffold(Strategy):
    """Karimireddy et al. 2020, arXiv:1910.06378, algorithm 1 with option II.

    Each local step goes against gradient - c_i + c. After K steps of rate lr from base to y, the site's next control
    variate is c_i - c + (base - y) / (K lr); it stays at the site, and its change is sent beside the update. The hub
    adds the mean update times server_lr to the model, and the mean change, times the share of all sites that sent one,
    to c.
    """

    settings: ScaffoldSettings
    state_parts = ("control",)

    def sent(self, base: Weights) -> Weights:
        return dict(sorted((base | {f"{CHANGE}{name}": tensor for name, tensor in base.items()}).items()))

    def penalty(self, weights: Mapping[str, torch.Tensor], base: Weights, control: Weights) -> torch.Tensor:
        """Linear in the weights, so that its gradient is c - c_i everywhere."""
        return torch.stack([(control[name] * weights[name]).sum() for name in base]).sum()

    def control(self, base: Weights, state: Weights, own: Weights | None) -> Weights:
        return {name: state[f"control.{name}"] - (own[name] if own else 0) for name in base}

    def leaves(
        self, base: Weights, delta: Weights, control: Weights, own: Weights | None, length: float
    ) -> tuple[Weights, Weights]:
        kept = {name: -control[name] - change / length for name, change in delta.items()}
        changes = {f"{CHANGE}{name}": now - own[name] if own else now for name, now in kept.items()}
        return dict(sorted((delta | changes).items())), kept

    def step(self, base: Weights, mean: Weights, state: Weights, at: At) -> tuple[Weights, Weights]:
        kept = {f"control.{n}": state[f"control.{n}"] + at.share * mean[f"{CHANGE}{n}"] for n in base}
        return {name: base[name] + self.settings.server_lr * mean[name] for name in base}, kept
