"""ROC, the area under it with its standard error, and exact binomial bounds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import beta, rankdata

from tasks.learning.arrays import Floats


def attack_auc(inside: Floats, outside: Floats) -> float:
    """How often a score of `inside` is above one of `outside`, ties by half (Mann-Whitney)."""
    inside, outside = inside.ravel(), outside.ravel()
    ranks = rankdata(np.concatenate([inside, outside]))[: len(inside)]
    return float((ranks.sum() - len(inside) * (len(inside) + 1) / 2) / (len(inside) * len(outside)))


def auc_with_error(inside: Floats, outside: Floats) -> tuple[float, float]:
    """AUC over (draws, candidates) scores of each kind, and its standard error over the draws.

    Candidates of one draw share its noise, so whole draws are left out (jackknife), never single scores.
    """
    draws = np.arange(len(inside))
    return attack_auc(inside, outside), jackknife(
        len(inside), lambda i: attack_auc(inside[draws != i], outside[draws != i])
    )


def jackknife(count: int, without: Callable[[int], float]) -> float:
    """Standard error from the `count` estimates that each leave one draw out (Efron & Stein 1981)."""
    estimates = np.array([without(i) for i in range(count)])
    return float(np.sqrt((count - 1) * np.var(estimates)))


def roc(inside: Floats, outside: Floats, points: int = 101) -> tuple[Floats, Floats]:
    """False and true positive rates at `points` even false positive rates."""
    thresholds = np.sort(outside.ravel())[::-1]
    levels = np.linspace(0, 1, points)
    cut = np.concatenate([[np.inf], thresholds])[np.rint(levels * thresholds.size).astype(int)]
    power = 1 - np.searchsorted(np.sort(inside.ravel()), cut) / inside.size
    return levels, power.astype(np.float64)


def largest_rate(hits: int, trials: int, confidence: float) -> float:
    """Upper end of the one-sided Clopper-Pearson interval: the largest rate that `hits` of `trials` allow."""
    return 1.0 if hits >= trials else float(beta.ppf(confidence, hits + 1, trials - hits))
