"""How many in a time: the model gives the logarithm of a rate, and learns by Poisson's likelihood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import xlogy

from tasks.learning.arrays import Floats
from tasks.learning.metrics import OF_TASK
from tasks.learning.tasks.task import Task
from tasks.study.label import CountLabel

#: Largest logarithm of an expected count: exp of more than that does not fit float32.
_MOST_LOG = 60.0


@dataclass(frozen=True)
class Counts(Task):
    """Labels (patients, 2) are counts and the logarithm of exposure, outputs (patients,) the logarithm of the rate.

    Sums: 1, |error| cut at `label.most`, deviance cut at ten times that, each divided by where it is cut, and all three
    by the square root of 3.
    """

    label: CountLabel

    metrics = OF_TASK["count"]

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Negative log-likelihood without the part that no model changes."""
        log_mean = (outputs + labels[..., 1]).clamp(max=_MOST_LOG)
        return (log_mean.exp() - labels[..., 0] * log_mean).mean()

    def figures(self, outputs: Floats, labels: Floats) -> dict[str, float | None]:
        if len(labels) == 0:
            return {metric.name: None for metric in self.metrics}
        deviance, error = _misses(outputs, labels)
        return {"deviance": float(deviance.mean()), "mae": float(error.mean())}

    def cells(self, labels: Floats) -> dict[str, int]:
        return {metric.name: len(labels) for metric in self.metrics}

    def made_up(self, number: int) -> torch.Tensor:
        return torch.stack([torch.arange(number).remainder(min(self.label.most, 3) + 1), torch.zeros(number)], 1)

    def num_sums(self, bins: int) -> int:
        return 3

    def statistics(self, outputs: torch.Tensor, labels: torch.Tensor, bins: int) -> Floats:
        deviance, error = _misses(np.nan_to_num(outputs.double().numpy()), labels.double().numpy())
        most = self.label.most
        columns = [np.ones(len(error)), np.minimum(error / most, 1), np.minimum(deviance / (10 * most), 1)]
        rows: Floats = np.stack(columns, axis=1) / np.sqrt(3)
        return rows

    def figures_of_sums(self, totals: Floats, bins: int) -> dict[str, Floats]:
        number, error, deviance = totals.T * np.sqrt(3)
        most = self.label.most
        several = np.where(number > 0.5, number, np.nan)
        return {
            "num_examples": number,
            "deviance": 10 * most * np.maximum(deviance, 0) / several,
            "mae": most * np.maximum(error, 0) / several,
        }


def _misses(outputs: Floats, labels: Floats) -> tuple[Floats, Floats]:
    """Deviance and absolute error of each patient's expected count."""
    found = labels[:, 0]
    expected = np.exp(np.minimum(outputs + labels[:, 1], _MOST_LOG))
    deviance = 2 * (xlogy(found, found / np.maximum(expected, 1e-300)) - (found - expected))
    return np.maximum(deviance, 0.0), np.abs(found - expected)
