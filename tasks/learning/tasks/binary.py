"""Yes or no: the model gives a logit, and learns by log-loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit
from torch import nn

from tasks.learning.arrays import Floats
from tasks.learning.metrics import OF_TASK
from tasks.learning.tasks.ranking import auc, auc_of_tables, average_precision
from tasks.learning.tasks.task import ON_GRID, Task
from tasks.study.label import BinaryLabel

#: Of a fit of two numbers; one that has not come to rest by then never does.
_NEWTON_STEPS = 50


@dataclass(frozen=True)
class Binary(Task):
    """Labels (patients,) are 0 or 1, outputs (patients,) logits.

    Sums: patients by label and bin of predicted risk, (2, bins), one cell of one count for each. On a grid of 2^-20:
    a float32 logit depends in its last bits on how many patients are computed together, and could carry another
    patient over the edge of a bin.
    """

    label: BinaryLabel

    metrics = OF_TASK["binary"]

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.binary_cross_entropy_with_logits(outputs, labels)

    def figures(self, outputs: Floats, labels: Floats) -> dict[str, float | None]:
        risk = expit(outputs)
        yes, right = labels == 1, (outputs >= self.cut) == (labels == 1)
        intercept, slope = calibration(outputs, labels) or (None, None)
        return {
            "auc": auc(outputs, labels),
            "log_loss": log_loss(outputs, labels),
            "average_precision": average_precision(outputs, labels),
            "accuracy": _mean(right),
            "balanced_accuracy": _mean(np.array([right[yes].mean(), right[~yes].mean()])) if _both(yes) else None,
            "brier": _mean((risk - labels) ** 2),
            "calibration_slope": slope,
            "calibration_intercept": intercept,
        }

    @property
    def cut(self) -> float:
        """The logit at and above which a patient is predicted positive."""
        return float(np.log(self.label.threshold / (1 - self.label.threshold)))

    def cells(self, labels: Floats) -> dict[str, int]:
        whole, rarer = len(labels), int(min((labels == 1).sum(), (labels == 0).sum()))
        of_both = {"auc", "average_precision", "balanced_accuracy", "calibration_slope", "calibration_intercept"}
        return {metric.name: rarer if metric.name in of_both else whole for metric in self.metrics}

    def made_up(self, number: int) -> torch.Tensor:
        return torch.arange(number).remainder(2).float()

    def num_sums(self, bins: int) -> int:
        return 2 * bins

    def statistics(self, outputs: torch.Tensor, labels: torch.Tensor, bins: int) -> Floats:
        risk = torch.sigmoid(torch.round(outputs * ON_GRID) / ON_GRID).numpy()
        cells = np.clip(np.nan_to_num(risk * bins, nan=0.0), 0, bins - 1).astype(np.int64)
        rows = np.zeros((len(cells), 2, bins))
        rows[np.arange(len(cells)), labels.numpy().astype(np.int64), cells] = 1.0
        return rows.reshape(len(cells), 2 * bins)

    def figures_of_sums(self, totals: Floats, bins: int) -> dict[str, Floats]:
        """Counts below zero are noise and become zero; a patient's risk is taken as the middle of its bin.

        Who is predicted positive is told only where the threshold is the edge of a bin.
        """
        counts = np.maximum(totals, 0.0).reshape(-1, 2, bins)
        middle = (np.arange(bins) + 0.5) / bins
        per_label = np.stack([-np.log1p(-middle), -np.log(middle)])
        squares = np.stack([middle**2, (1 - middle) ** 2])
        right = np.stack([middle < self.label.threshold, middle >= self.label.threshold]).astype(np.float64)
        shares = _shares((counts * right).sum(axis=2), counts.sum(axis=2))
        everybody = counts.sum(axis=(1, 2))
        found = {
            "num_examples": totals.sum(axis=1),
            "auc": auc_of_tables(counts),
            "log_loss": _shares((counts * per_label).sum(axis=(1, 2)), everybody),
            "brier": _shares((counts * squares).sum(axis=(1, 2)), everybody),
        }
        edge = self.label.threshold * bins
        if abs(edge - round(edge)) < 1e-9:
            found["accuracy"] = _shares((counts * right).sum(axis=(1, 2)), everybody)
            found["balanced_accuracy"] = shares.mean(axis=1)
        return found


def log_loss(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.floating]) -> float | None:
    """Mean negative log-likelihood in nats; None without patients."""
    if len(labels) == 0:
        return None
    return float(np.mean(np.logaddexp(0.0, logits) - labels * logits))


def calibration(logits: Floats, labels: Floats) -> tuple[float, float] | None:
    """Intercept and slope of labels on logits by maximum likelihood: 0 and 1 where risks are as they are told.

    None unless both labels occur and the fit has an end: it has none where the logits part the labels.

    Source: Cox 1958 (Biometrika 45), "Two further applications of a model for binary regression".
    """
    if not _both(labels == 1) or np.ptp(logits) == 0:
        return None
    design = np.stack([np.ones(len(logits)), logits], axis=1)
    found = np.zeros(2)
    for _ in range(_NEWTON_STEPS):
        risk = expit(design @ found)
        information = (design * (risk * (1 - risk))[:, None]).T @ design
        try:
            step = np.linalg.solve(information, design.T @ (labels - risk))
        except np.linalg.LinAlgError:
            return None
        found = found + step
        if not np.isfinite(found).all() or np.abs(found).max() > 1e3:
            return None
        if np.abs(step).max() < 1e-10:
            return float(found[0]), float(found[1])
    return None


def _both(yes: npt.NDArray[np.bool_]) -> bool:
    return bool(yes.any()) and not bool(yes.all())


def _mean(values: npt.NDArray[np.bool_] | Floats) -> float | None:
    return float(np.mean(values)) if values.size else None


def _shares(part: Floats, whole: Floats) -> Floats:
    share: Floats = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return share
