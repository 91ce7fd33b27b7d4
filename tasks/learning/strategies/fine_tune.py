"""The mean, and at each site the new model trained on, on its own patients."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.learning.strategies.strategy import Strategy, Train
from tasks.store.weights import Weights
from tasks.study.strategy import FineTuneSettings


@dataclass(frozen=True)
class FineTune(Strategy):
    """Wang et al. 2019, arXiv:1910.10252: the global model, then some local trainings; begun anew in each round."""

    settings: FineTuneSettings

    def personal(self, weights: Weights, own: Weights | None, train: Train) -> Weights:
        for _ in range(self.settings.times):
            weights = train(weights, None)
        return weights
