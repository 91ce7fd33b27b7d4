"""When, in discrete time: the model gives the logit of the hazard in each interval, and learns by their likelihood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tasks.learning.arrays import Floats
from tasks.learning.metrics import LOG_LOSS, OF_TASK
from tasks.learning.tasks.ranking import concordance
from tasks.learning.tasks.task import ON_GRID, Task
from tasks.study.label import SurvivalLabel


@dataclass(frozen=True)
class Survival(Task):
    """Labels (patients, 2) are time up to the cut-off and whether it is an event, outputs (patients, intervals) logits.

    A patient is in the likelihood of each interval that it was followed through, and of the one in which its event
    was: a sum over patients, which patient-level privacy can bound. Who is censored within an interval is in those
    before it.

    Sums: patients by interval left, event or not, and bin of predicted risk by the cut-off, one cell of one count each.

    Source: Brown 1975 (Biometrics 31), "On the use of indicator variables for studying the time-dependence of
    parameters in a response-time model"; Graf et al. 1999 (Stat Med 18) for the Brier score under censoring.
    """

    label: SurvivalLabel

    metrics = OF_TASK["survival"]

    @property
    def num_outputs(self) -> int:
        return len(self.label.until)

    @property
    def ends(self) -> Floats:
        """Of the intervals, in float32 as the labels are: what is on an edge is on it whatever it is computed in."""
        return np.array(self.label.until, dtype=np.float32).astype(np.float64)

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Negative log-likelihood a patient, over all of its intervals."""
        times, events = labels[..., :1], labels[..., 1:]
        ends = torch.from_numpy(self.ends).to(outputs.dtype)
        starts = torch.cat([torch.zeros(1, dtype=outputs.dtype) - 1, ends[:-1]])
        survived = (ends < times) | ((ends <= times) & (events == 0))
        failed = (events == 1) & (starts < times) & (times <= ends)
        lost = survived * nn.functional.softplus(outputs) + failed * nn.functional.softplus(-outputs)
        return lost.sum(dim=-1).mean()

    def figures(self, outputs: Floats, labels: Floats) -> dict[str, float | None]:
        if len(labels) == 0:
            return {metric.name: None for metric in self.metrics}
        times, events = labels[:, 0], labels[:, 1]
        alive = survival_of(outputs)
        return {
            "concordance": concordance(1 - alive[:, -1], times, events),
            "integrated_brier": integrated_brier(alive, self.ends, times, events),
            "log_loss": float(self.loss(torch.from_numpy(outputs), torch.from_numpy(labels))),
        }

    def cells(self, labels: Floats) -> dict[str, int]:
        events, whole = int(labels[:, 1].sum()), len(labels)
        return {metric.name: whole if metric is LOG_LOSS else min(events, whole - events) for metric in self.metrics}

    def made_up(self, number: int) -> torch.Tensor:
        ends = torch.tensor(self.label.until)
        return torch.stack([ends[torch.arange(number).remainder(len(ends))], torch.arange(number).remainder(2)], 1)

    def num_sums(self, bins: int) -> int:
        return self.num_outputs * 2 * bins

    def statistics(self, outputs: torch.Tensor, labels: torch.Tensor, bins: int) -> Floats:
        found = labels.double().numpy()
        on_grid = np.round(np.clip(np.nan_to_num(outputs.double().numpy()), -1e6, 1e6) * ON_GRID) / ON_GRID
        risk = 1 - survival_of(on_grid)[:, -1] if len(found) else np.zeros(0)
        cells = np.clip(risk * bins, 0, bins - 1).astype(np.int64)
        left = np.minimum(np.searchsorted(self.ends, found[:, 0], side="left"), self.num_outputs - 1)
        rows = np.zeros((len(found), self.num_outputs, 2, bins))
        rows[np.arange(len(found)), left, found[:, 1].astype(np.int64), cells] = 1.0
        return rows.reshape(len(found), -1)

    def known_of(self, total: Floats) -> Floats:
        return total

    def figures_of_sums(self, totals: Floats, bins: int) -> dict[str, Floats]:
        """Concordance between intervals; two patients who leave in one interval are compared if one has an event.

        Pairs are products of counts of different cells, so noise falls out of their mean: counts below zero stay so.
        Made zero, they would leave patients in empty bins, who lose against all that stand in a full one.
        """
        counts = totals.reshape(-1, self.num_outputs, 2, bins)
        known, won = np.zeros(len(counts)), np.zeros(len(counts))
        for interval in range(self.num_outputs):
            failed = counts[:, interval, 1]
            others = counts[:, interval, 0] + counts[:, interval + 1 :].sum(axis=(1, 2))
            below = np.cumsum(others, axis=1) - others
            known += failed.sum(axis=1) * others.sum(axis=1)
            won += (failed * (below + others / 2)).sum(axis=1)
        found = np.divide(won, known, out=np.full(len(known), np.nan), where=known > 0)
        return {"num_examples": totals.sum(axis=1), "concordance": found}


def survival_of(outputs: Floats) -> Floats:
    """The chance to come through each interval, (patients, intervals), from the logits of their hazards."""
    alive: Floats = np.exp(-np.cumsum(np.logaddexp(0.0, outputs), axis=1))
    return alive


def integrated_brier(alive: Floats, ends: Floats, times: Floats, events: Floats) -> float | None:
    """Mean over the ends of intervals of the Brier score under censoring, each patient weighted by the inverse of the
    chance not to be censored, by Kaplan and Meier on these patients; None where nobody is left to weigh.
    """
    scores = [_brier(alive[:, place], end, times, events) for place, end in enumerate(ends)]
    known = [score for score in scores if score is not None]
    return float(np.mean(known)) if known else None


def _brier(alive: Floats, end: float, times: Floats, events: Floats) -> float | None:
    failed, through = (times <= end) & (events == 1), (times > end) | ((times == end) & (events == 0))
    weights = np.zeros(len(times))
    weights[failed] = _uncensored(times, events, times[failed], before=True)
    weights[through] = _uncensored(times, events, np.full(int(through.sum()), end), before=True)
    usable = weights > 0
    if not usable.any():
        return None
    squares = np.where(failed, alive**2, (1 - alive) ** 2)
    return float((squares[usable] / weights[usable]).sum() / len(times))


def _uncensored(times: Floats, events: Floats, at: Floats, *, before: bool) -> Floats:
    """Kaplan and Meier's chance not to be censored up to each time in `at`, short of that time itself if `before`."""
    moments = np.unique(times[events == 0])
    at_risk = [((times > m) | ((times == m) & (events == 0))).sum() for m in moments]  # events come first
    factors = np.array([1 - ((times == m) & (events == 0)).sum() / n for m, n in zip(moments, at_risk, strict=True)])
    chances = np.append(1.0, np.cumprod(factors))
    found: Floats = chances[np.searchsorted(moments, at, side="left" if before else "right")]
    return found
