"""Scores of canaries, in and out, and what they say of mu and epsilon."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from tasks.learning.arrays import Floats
from tasks.privacy.audit.statistics import attack_auc, jackknife, largest_rate
from tasks.privacy.audit.verdict import Histogram, Lower

Coins = npt.NDArray[np.bool_]
_CONFIDENCE = 0.975  # of each of the two error rates: together 95%
#: Noise-free releases would give infinity, which no record holds.
_LARGEST_MU = 1e6


@dataclass(frozen=True)
class Trials:
    """Scores and coins, (transcripts, canaries)."""

    scores: Floats
    coins: Coins

    def mu(self) -> tuple[float, float]:
        """Distance of the mean scores in and out, in standard deviations, and its standard error."""
        count = np.arange(len(self.scores))
        error = jackknife(len(count), lambda i: _distance(self.scores[count != i], self.coins[count != i]))
        return _distance(self.scores, self.coins), min(error, _LARGEST_MU)

    def auc(self) -> tuple[float, float]:
        """AUC over (transcript, canary) pairs, and its standard error over transcripts."""
        count = np.arange(len(self.scores))
        error = jackknife(len(count), lambda i: _area(self.scores[count != i], self.coins[count != i]))
        return _area(self.scores, self.coins), error

    def lower(self, delta: float) -> Lower:
        """Lower bounds: the threshold from the first half of the transcripts, the error rates from the second."""
        half = len(self.scores) // 2
        scores, coins = self.scores[:half], self.coins[:half]
        cuts = np.quantile(scores, np.linspace(0.02, 0.98, 49))
        best = max(cuts, key=lambda cut: _lower(scores, coins, float(cut), delta).mu)
        return _lower(self.scores[half:], self.coins[half:], float(best), delta)

    def histogram(self, bins: int = 30) -> Histogram:
        """Counts of scores, in and out."""
        low, high = np.quantile(self.scores, [0.001, 0.999])
        edges = np.linspace(low, high + 1e-9, bins + 1)
        inside, outside = (np.histogram(self.scores[which], edges)[0] for which in (self.coins, ~self.coins))
        return Histogram(edges=tuple(edges), inside=tuple(inside.tolist()), outside=tuple(outside.tolist()))


def _distance(scores: Floats, coins: Coins) -> float:
    inside, outside = scores[coins], scores[~coins]
    spread_ = math.sqrt((inside.var(ddof=1) + outside.var(ddof=1)) / 2)
    apart = float(inside.mean() - outside.mean())
    return float(np.clip(apart / max(spread_, 1e-300), -_LARGEST_MU, _LARGEST_MU))


def _area(scores: Floats, coins: Coins) -> float:
    return attack_auc(scores[coins], scores[~coins])


def _lower(scores: Floats, coins: Coins, cut: float, delta: float) -> Lower:
    """Bounds from the largest error rates that the counts allow.

    (epsilon, delta)-DP: FPR + e^eps FNR >= 1 - delta and the other way round (Kairouz, Oh & Viswanath 2015); mu-GDP:
    mu >= Phi^-1(1 - FPR) - Phi^-1(FNR).
    """
    inside, outside = scores[coins], scores[~coins]
    false = largest_rate(int((outside > cut).sum()), outside.size, _CONFIDENCE)
    missed = largest_rate(int((inside <= cut).sum()), inside.size, _CONFIDENCE)
    normal = NormalDist()
    mu = 0.0 if max(false, missed) >= 1 else normal.inv_cdf(1 - false) - normal.inv_cdf(missed)
    odds = max((1 - delta - missed) / false, (1 - delta - false) / missed, 1.0)
    return Lower(epsilon=math.log(odds), mu=max(mu, 0.0), trials=int(coins.size))
