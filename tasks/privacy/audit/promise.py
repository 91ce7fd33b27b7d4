"""What the mechanism's guarantee lets any attack reach, whatever the adversary knows.

A guarantee bounds the ROC curve of every test of "in" against "out". With f the trade-off function (Dong, Roth & Su
2022, arXiv 1905.02383), TPR <= 1 - f(FPR), and the area under that bound is the bound on the AUC:

mu-GDP      1 - f(a) = Phi(mu + Phi^-1(a)); the area is P(Z + mu > Z') = Phi(mu / sqrt 2).
pure eps    1 - f(a) = min(1, e^eps a, 1 - e^-eps (1 - a)): two lines with their corner at a = 1 - p, TPR = p, where
            p = e^eps / (1 + e^eps). Area: (1 - p) p / 2 + p (p + 1) / 2 = p.

Guessing between two records in one place (replacement) is bounded through the total variation distance: for mu-GDP
under addition and removal, a replacement is both, so 2 mu-GDP and TV <= 2 Phi(mu) - 1; for pure eps it is
tanh(eps / 2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from tasks.learning.arrays import Floats
from tasks.privacy.accounting import gdp_epsilon, membership_auc_bound
from tasks.store.records.ledger import Spend


@dataclass(frozen=True)
class Promise:
    """mu-GDP or pure epsilon-DP; exactly one of the two is given."""

    mu: float | None = None
    pure_epsilon: float | None = None

    def over(self, rounds: int) -> Promise:
        """The same guarantee, of so many releases together."""
        return Promise(
            None if self.mu is None else self.mu * math.sqrt(rounds),
            None if self.pure_epsilon is None else self.pure_epsilon * rounds,
        )

    def auc(self) -> float:
        """Largest AUC of a test of in against out."""
        if self.mu is not None:
            return membership_auc_bound(self.mu)
        return 1 / (1 + math.exp(-(self.pure_epsilon or 0.0)))

    def true_positive_rate(self, false_positive_rate: Floats) -> Floats:
        """Largest power at each level."""
        alpha = np.asarray(false_positive_rate, dtype=np.float64)
        if self.mu is not None:
            found: Floats = ndtr(self.mu + ndtri(alpha))
            return found
        grow = math.exp(min(self.pure_epsilon or 0.0, 700.0))
        steep: Floats = np.minimum(np.minimum(1.0, grow * alpha), 1 - (1 - alpha) / grow)
        return steep

    def replacement_distance(self) -> float:
        """Largest total variation distance between what two records in one place make the adversary see."""
        if self.mu is not None:
            return float(2 * ndtr(self.mu) - 1)
        return math.tanh((self.pure_epsilon or 0.0) / 2)

    def epsilon(self, delta: float) -> float:
        """The guarantee as an epsilon at `delta`."""
        return gdp_epsilon(self.mu, delta) if self.mu is not None else (self.pure_epsilon or 0.0)


def promise_of(spend: Spend) -> Promise | None:
    """One release's promise for its unit; None where nothing is promised."""
    if not spend.promises or (spend.mu is None and spend.pure_epsilon is None):
        return None
    return Promise(spend.mu) if spend.mu is not None else Promise(pure_epsilon=spend.pure_epsilon)


def for_a_patient(promise: Promise, spend: Spend) -> Promise:
    """What the promise means for one patient.

    Where the unit is a site under addition and removal, a patient who comes or goes replaces the site's update: both
    in one, so twice mu. Where neighbours replace a site (pure epsilon, sparse vector), it is the promise itself.
    """
    return Promise(2 * promise.mu) if spend.unit == "site" and promise.mu is not None else promise
