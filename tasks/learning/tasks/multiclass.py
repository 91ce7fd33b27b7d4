"""One of several classes: the model gives a logit for each, and learns by log-loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import log_softmax
from torch import nn

from tasks.learning.arrays import Floats
from tasks.learning.metrics import BALANCED_ACCURACY, MACRO_AUC, OF_TASK
from tasks.learning.tasks.ranking import auc
from tasks.learning.tasks.task import ON_GRID, Task
from tasks.study.label import MulticlassLabel


@dataclass(frozen=True)
class Multiclass(Task):
    """Labels (patients,) are places in `label.classes`, outputs (patients, classes) logits.

    Sums: patients by class and by predicted class, one cell of one count for each; the same grid as of `Binary`.
    Macro figures are means over the classes that these patients have.
    """

    label: MulticlassLabel

    metrics = OF_TASK["multiclass"]

    @property
    def num_outputs(self) -> int:
        return len(self.label.classes)

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs, labels.long())

    def figures(self, outputs: Floats, labels: Floats) -> dict[str, float | None]:
        if len(labels) == 0:
            return {metric.name: None for metric in self.metrics}
        own = labels.astype(np.int64)
        logs = log_softmax(outputs, axis=1)
        truth = np.eye(self.num_outputs)[own]
        present = np.unique(own)
        right = outputs.argmax(axis=1) == own
        aucs = [auc(outputs[:, each], truth[:, each]) for each in present]
        return {
            "macro_auc": _mean([found for found in aucs if found is not None]),
            "log_loss": float(-logs[np.arange(len(own)), own].mean()),
            "accuracy": float(right.mean()),
            "balanced_accuracy": _mean([float(right[own == each].mean()) for each in present]),
            "brier": float(((np.exp(logs) - truth) ** 2).sum(axis=1).mean()),
        }

    def cells(self, labels: Floats) -> dict[str, int]:
        counts = np.bincount(labels.astype(np.int64), minlength=self.num_outputs)
        whole, rarest = len(labels), int(counts[counts > 0].min(initial=len(labels)))
        if len(np.flatnonzero(counts)) < 2:
            rarest = 0
        return {m.name: rarest if m in (MACRO_AUC, BALANCED_ACCURACY) else whole for m in self.metrics}

    def made_up(self, number: int) -> torch.Tensor:
        return torch.arange(number).remainder(self.num_outputs).float()

    def num_sums(self, bins: int) -> int:
        return self.num_outputs**2

    def statistics(self, outputs: torch.Tensor, labels: torch.Tensor, bins: int) -> Floats:
        rows = np.zeros((len(labels), self.num_outputs, self.num_outputs))
        on_grid = torch.round(torch.nan_to_num(outputs) * ON_GRID)
        chosen = on_grid.argmax(dim=1).numpy() if len(labels) else np.zeros(0, dtype=np.int64)
        rows[np.arange(len(labels)), labels.numpy().astype(np.int64), chosen] = 1.0
        return rows.reshape(len(labels), -1)

    def figures_of_sums(self, totals: Floats, bins: int) -> dict[str, Floats]:
        """Counts below zero are noise and become zero."""
        table = np.maximum(totals, 0.0).reshape(-1, self.num_outputs, self.num_outputs)
        right, of_class = np.diagonal(table, axis1=1, axis2=2), table.sum(axis=2)
        whole = of_class.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return {
                "num_examples": totals.sum(axis=1),
                "accuracy": right.sum(axis=1) / whole,
                "balanced_accuracy": np.nanmean(right / of_class, axis=1),
            }


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
