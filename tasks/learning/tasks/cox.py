"""When: the model gives the logarithm of a relative hazard, and learns by Cox's partial likelihood."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tasks.learning.arrays import Floats
from tasks.learning.metrics import OF_TASK
from tasks.learning.tasks.ranking import concordance
from tasks.learning.tasks.task import Task
from tasks.study.label import CoxLabel


@dataclass(frozen=True)
class Cox(Task):
    """Labels (patients, 2) are time and whether it is an event, outputs (patients,) the logarithm of relative hazards.

    Ties by Breslow. The risk sets are the site's own, so the federation fits a model stratified by site. A batch
    without an event teaches nothing: its loss is 0.

    Source: Cox 1972 (J R Stat Soc B 34); Breslow 1974 (Biometrics 30).
    """

    label: CoxLabel

    metrics = OF_TASK["cox"]

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Negative partial log-likelihood over the number of events."""
        times, events = labels[..., 0], labels[..., 1]
        at_risk = times.unsqueeze(-2) >= times.unsqueeze(-1)  # [i, j]: j is at risk when i's time is up
        scores = outputs.unsqueeze(-2).expand(at_risk.shape).masked_fill(~at_risk, float("-inf"))
        lost = events * (scores.logsumexp(dim=-1) - outputs)
        return lost.sum(dim=-1) / events.sum(dim=-1).clamp(min=1.0)

    def figures(self, outputs: Floats, labels: Floats) -> dict[str, float | None]:
        times, events = labels[:, 0], labels[:, 1]
        if not events.any():
            return {"concordance": concordance(outputs, times, events), "partial_loss": None}
        lost = self.loss(torch.from_numpy(outputs), torch.from_numpy(labels))
        return {"concordance": concordance(outputs, times, events), "partial_loss": float(lost)}

    def cells(self, labels: Floats) -> dict[str, int]:
        events = int(labels[:, 1].sum())
        return {metric.name: min(events, len(labels) - events) for metric in self.metrics}

    def made_up(self, number: int) -> torch.Tensor:
        return torch.stack([torch.arange(number) + 1.0, torch.arange(number).remainder(2).float()], 1)
