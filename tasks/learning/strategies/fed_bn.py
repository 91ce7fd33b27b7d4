"""The mean of all layers but some, which each site has for itself: above all those that normalise."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.errors import ConfigError
from tasks.learning.averaging import add_to
from tasks.learning.strategies.strategy import At, Strategy
from tasks.store.weights import Weights
from tasks.study.strategy import FedBNSettings


@dataclass(frozen=True)
class FedBN(Strategy):
    """Li et al. 2021, arXiv:2102.07623, algorithm 1; any layers may stay, as in arXiv:1912.00818 (Arivazhagan et al.).

    In the global model these layers stay as they were made.
    """

    settings: FedBNSettings

    def sent(self, base: Weights) -> Weights:
        """Raises ConfigError: the study names layers that there are not, or leaves none to send."""
        found = {layer: [name for name in base if _within(name, layer)] for layer in self.settings.layers}
        if unknown := [layer for layer, names in found.items() if not names]:
            raise ConfigError(
                f"strategy.layers: the model has no parameters in {unknown[0]}; it has: {', '.join(base)}"
            )
        rest = {name: tensor for name, tensor in base.items() if not self._stays(name)}
        if not rest:
            raise ConfigError("strategy.layers: they are the whole model, and nothing is left to send")
        return rest

    def local(self, weights: Weights, own: Weights | None) -> Weights:
        wanted = {name: tensor.shape for name, tensor in weights.items() if self._stays(name)}
        fits = own is not None and {name: tensor.shape for name, tensor in own.items()} == wanted
        return weights | own if own is not None and fits else weights

    def leaves(
        self, base: Weights, delta: Weights, control: Weights, own: Weights | None, length: float
    ) -> tuple[Weights, Weights]:
        start = self.local(base, own)
        kept = {name: start[name] + change for name, change in delta.items() if self._stays(name)}
        return {name: change for name, change in delta.items() if not self._stays(name)}, kept

    def step(self, base: Weights, mean: Weights, state: Weights, at: At) -> tuple[Weights, Weights]:
        return base | add_to({name: base[name] for name in mean}, mean), {}

    def _stays(self, name: str) -> bool:
        return any(_within(name, layer) for layer in self.settings.layers)


def _within(name: str, layer: str) -> bool:
    return name == layer or name.startswith(f"{layer}.")
