"""What every task answers. The first axis of everything is the patient."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch

from tasks.learning.arrays import Floats
from tasks.learning.metrics import Metric

#: Outputs are compared with each other, or with edges of bins, on this grid: the last bits of a float32 depend on how
#: many patients are computed together, and could carry one over an edge.
ON_GRID = 2.0**20


class Task(ABC):
    """One endpoint: its loss, and how good a model is at it.

    `labels` are what `tasks.data.reading.labels` makes of the label: (patients,), or (patients, parts) where a task
    says so. `outputs` are the model's: (patients,), or (patients, num_outputs).

    metrics: what it is judged by, the study's own first; the first two are drawn in the round's report.
    """

    metrics: tuple[Metric, ...]

    @property
    def num_outputs(self) -> int | None:
        """Values that a model gives for one patient; None for a single one, without an axis of its own."""
        return None

    @abstractmethod
    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean over these patients, a scalar; of one patient alone it is that one's part in a sum over patients."""

    @abstractmethod
    def figures(self, outputs: Floats, labels: Floats) -> dict[str, float | None]:
        """Each metric of these patients, by name; None where they cannot show it."""

    @abstractmethod
    def cells(self, labels: Floats) -> dict[str, int]:
        """Each metric's smallest group of patients: it may leave a site only where that is not small."""

    @abstractmethod
    def made_up(self, number: int) -> torch.Tensor:
        """Labels of so many patients who do not exist, to try a model on."""

    def num_sums(self, bins: int) -> int:
        """Length of `statistics`; 0 where this task has none."""
        return 0

    def statistics(self, outputs: torch.Tensor, labels: torch.Tensor, bins: int) -> Floats:
        """(patients, num_sums) whose sum over patients tells how good a model is; no row is longer than 1 in L2."""
        raise NotImplementedError

    def known_of(self, total: Floats) -> Floats:
        """What noised sums, (num_sums,), are taken for: counts below zero are noise, and become zero."""
        return np.maximum(total, 0.0)

    def figures_of_sums(self, totals: Floats, bins: int) -> dict[str, Floats]:
        """From sums of statistics, (draws, num_sums), each metric that they tell, (draws,); NaN where they do not.

        And "num_examples", how many patients they are of.
        """
        return {}
