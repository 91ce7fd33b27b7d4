"""A number between public bounds: the model gives it on a scale of -1 to 1, and learns by squared error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tasks.learning.arrays import Floats
from tasks.learning.metrics import OF_TASK
from tasks.learning.tasks.task import Task
from tasks.study.label import RegressionLabel


@dataclass(frozen=True)
class Regression(Task):
    """Labels (patients,) and outputs (patients,) run from -1 at `label.low` to 1 at `label.high`; figures are in the
    label's own units.

    Sums: 1, |error| and error squared, an error of more than half of the range counting as that, and all three divided
    by the square root of 3.
    """

    label: RegressionLabel

    metrics = OF_TASK["regression"]

    @property
    def half(self) -> float:
        """Half of the range, in the label's units."""
        return (self.label.high - self.label.low) / 2

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return 0.5 * (outputs - labels).square().mean()

    def figures(self, outputs: Floats, labels: Floats) -> dict[str, float | None]:
        if len(labels) == 0:
            return {metric.name: None for metric in self.metrics}
        error = outputs - labels
        spread = float(((labels - labels.mean()) ** 2).sum())
        return {
            "rmse": float(np.sqrt((error**2).mean()) * self.half),
            "r2": 1 - float((error**2).sum()) / spread if spread > 0 else None,
            "mae": float(np.abs(error).mean() * self.half),
        }

    def cells(self, labels: Floats) -> dict[str, int]:
        return {metric.name: len(labels) for metric in self.metrics}

    def made_up(self, number: int) -> torch.Tensor:
        return torch.arange(number).remainder(5) / 2 - 1

    def num_sums(self, bins: int) -> int:
        return 3

    def statistics(self, outputs: torch.Tensor, labels: torch.Tensor, bins: int) -> Floats:
        error = np.minimum(np.abs(np.nan_to_num(outputs.double().numpy()) - labels.double().numpy()), 1.0)
        rows: Floats = np.stack([np.ones(len(error)), error, error**2], axis=1) / np.sqrt(3)
        return rows

    def figures_of_sums(self, totals: Floats, bins: int) -> dict[str, Floats]:
        """Sums below zero are noise and become zero; R² would need two sums more, and each costs the others."""
        number, absolute, squared = np.maximum(totals, 0.0).T * np.sqrt(3)
        several = np.where(number > 0.5, number, np.nan)
        return {
            "num_examples": totals[:, 0] * np.sqrt(3),
            "rmse": self.half * np.sqrt(squared / several),
            "mae": self.half * absolute / several,
        }
