"""The mean, and at each site a model that goes its own way, held near the global one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from tasks.learning.strategies.strategy import Strategy, Train
from tasks.store.weights import Weights
from tasks.study.strategy import DittoSettings


@dataclass(frozen=True)
class Ditto(Strategy):
    """Li et al. 2021, arXiv:2012.04221, algorithm 1: mu/2 ||own - global||^2 is added to the own model's loss.

    Its steps are taken after the round's, so near the new global model.
    """

    settings: DittoSettings

    def personal(self, weights: Weights, own: Weights | None, train: Train) -> Weights:
        def pull(now: Mapping[str, torch.Tensor]) -> torch.Tensor:
            squares = [(now[name] - weights[name]).square().sum() for name in weights]
            return torch.stack(squares).sum() * (self.settings.mu / 2)

        return train(weights if own is None else own, pull)
