"""Exact accounting of many releases, of Gaussian mechanisms and of pure ones.

Gaussian: one release with noise multiplier s (sd / L2 sensitivity) is mu-GDP with mu = 1/s; T of them are mu-GDP with
mu = sqrt(T)/s, exactly; and mu-GDP is (epsilon, delta(epsilon))-DP for every epsilon, exactly (Gaussian differential
privacy: Dong, Roth & Su 2022, arXiv 1905.02383).

Pure: T releases of e-DP each, chosen adaptively, leak at most what T randomised responses of e leak, and that is a
binomial sum (Kairouz, Oh & Viswanath 2015, arXiv 1311.0776, theorem 3.3). So the total here is the optimal one: it is
never above basic composition (T e) nor above advanced composition (Dwork, Rothblum & Vadhan 2010).

A bare `epsilon` is the total over all releases.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from tasks.errors import PrivacyError

_MAX_EPSILON = 1e4


def gdp_delta(mu: float, epsilon: float) -> float:
    """The smallest delta at which mu-GDP is (epsilon, delta)-DP (Corollary 2.13 of Dong et al.)."""
    if mu == 0:
        return 0.0
    first = _log_phi(-epsilon / mu + mu / 2)
    second = epsilon + _log_phi(-epsilon / mu - mu / 2)
    return max(0.0, math.exp(first) - math.exp(min(second, first)))


def gdp_epsilon(mu: float, delta: float) -> float:
    """The smallest epsilon at which mu-GDP is (epsilon, delta)-DP, rounded up to 1e-9 relative.

    Raises:
        ValueError: mu is negative or not finite, or delta is not in (0, 1).
    """
    _check_delta(delta)
    if not (math.isfinite(mu) and mu >= 0):
        raise ValueError(f"mu must be finite and at least 0, not {mu}")
    return _smallest(lambda epsilon: gdp_delta(mu, epsilon) <= delta, 0.0, _MAX_EPSILON)


def compose(noise_multiplier: float, releases: int) -> float:
    """mu of `releases` Gaussian releases with one noise multiplier."""
    if releases < 0 or not noise_multiplier > 0:
        raise ValueError(f"need releases >= 0 and noise_multiplier > 0, not {releases} and {noise_multiplier}")
    return math.sqrt(releases) / noise_multiplier


@lru_cache
def noise_multiplier_for(epsilon: float, delta: float, releases: int) -> float:
    """The smallest noise multiplier whose total over `releases` is within (epsilon, delta).

    The recomputed epsilon never exceeds the target: the search ends on the private side.

    Raises:
        ValueError: epsilon or releases is not positive, or delta is not in (0, 1).
    """
    _check_delta(delta)
    if not (math.isfinite(epsilon) and epsilon > 0 and releases > 0):
        raise ValueError(f"need a finite epsilon > 0 and releases > 0, not {epsilon} and {releases}")
    multiplier = _smallest(lambda s: gdp_delta(compose(s, releases), epsilon) <= delta, 1e-3, 1e6)
    while gdp_epsilon(compose(multiplier, releases), delta) > epsilon:
        multiplier *= 1 + 1e-9
    return multiplier


def membership_auc_bound(mu: float) -> float:
    """The largest AUC that a membership test can reach against mu-GDP: Phi(mu / sqrt 2).

    The area under the trade-off curve of N(0, 1) against N(mu, 1); a test below it in every point has no larger area.
    """
    return math.erfc(-mu / 2) / 2


def noise_share(sd: float, sites: int, dropouts: int, colluding: int) -> float:
    """sd of the noise that each of `sites` adds, so that a sum keeps `sd` of noise that nobody else knows.

    `dropouts` lost sites take their noise along, and `colluding` ones tell theirs.

    Raises:
        PrivacyError: no site is left whose noise would protect the sum.
    """
    honest = sites - dropouts - colluding
    if honest < 1 or dropouts < 0 or colluding < 0:
        raise PrivacyError(
            f"{sites} sites cannot share noise that stands {dropouts} lost and {colluding} colluding ones: "
            f"it takes at least {dropouts + colluding + 1} sites"
        )
    return sd / math.sqrt(honest)


def pure_delta(epsilon_each: float, releases: int, epsilon: float) -> float:
    """The smallest delta at which `releases` of `epsilon_each`-DP are (epsilon, delta)-DP in the worst case.

    sum over l of C(T, l) max(0, e^((T-l) e) - e^epsilon e^(l e)) / (1 + e^e)^T, with e = epsilon_each, T = releases:
    l of T randomised responses went the other way, and the privacy loss is (T - 2l) e.
    """
    flipped = np.arange(releases + 1, dtype=np.float64)
    ratios = np.log((releases - flipped[:-1]) / (flipped[:-1] + 1))
    log_choose = np.concatenate([[0.0], np.cumsum(ratios)])
    log_mass = log_choose - releases * math.log1p(math.exp(-epsilon_each)) - flipped * epsilon_each
    excess = -np.expm1(np.minimum(0.0, epsilon - (releases - 2 * flipped) * epsilon_each))
    return float((np.exp(log_mass) * excess).sum())


def pure_epsilon_total(epsilon_each: float, releases: int, delta: float) -> float:
    """The smallest epsilon at which `releases` of `epsilon_each`-DP are (epsilon, delta)-DP, up to 1e-9 from above.

    Raises:
        ValueError: epsilon_each is not finite and at least 0, releases is negative, or delta is not in (0, 1).
    """
    _check_delta(delta)
    if not (math.isfinite(epsilon_each) and epsilon_each >= 0 and releases >= 0):
        raise ValueError(f"need a finite epsilon_each >= 0 and releases >= 0, not {epsilon_each} and {releases}")
    basic = releases * epsilon_each
    return _smallest(lambda epsilon: epsilon >= basic or _pays(epsilon_each, releases, epsilon, delta), 0.0, basic)


@lru_cache
def pure_epsilon_for(epsilon: float, delta: float, releases: int) -> float:
    """The largest epsilon of each of `releases` pure releases whose total is within (epsilon, delta).

    The recomputed total never exceeds the target.

    Raises:
        ValueError: epsilon or releases is not positive, or delta is not in (0, 1).
    """
    _check_delta(delta)
    if not (math.isfinite(epsilon) and epsilon > 0 and releases > 0):
        raise ValueError(f"need a finite epsilon > 0 and releases > 0, not {epsilon} and {releases}")
    # Searched as the divisor of epsilon: T (basic composition) always pays, and a smaller one does for many releases.
    divisor = _smallest(lambda d: _pays(epsilon / d, releases, epsilon, delta), 1e-6, float(releases))
    while pure_epsilon_total(epsilon / divisor, releases, delta) > epsilon:
        divisor *= 1 + 1e-9
    return epsilon / divisor


def _pays(epsilon_each: float, releases: int, epsilon: float, delta: float) -> bool:
    """With a margin for the rounding of the sum, so that it errs on the private side."""
    return pure_delta(epsilon_each, releases, epsilon) * (1 + 1e-8) <= delta


def _smallest(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The smallest x in [low, high] at which a monotone condition holds, to 1e-9 relative, from above."""
    if holds(low):
        return low
    if not holds(high):
        raise ValueError(f"no value up to {high} is enough")
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _log_phi(x: float) -> float:
    """log of the standard normal distribution function, without underflow in the far tail."""
    if x > -37:
        return math.log(math.erfc(-x / math.sqrt(2)) / 2)
    square = x * x
    return -square / 2 - math.log(-x * math.sqrt(2 * math.pi)) + math.log1p(-1 / square + 3 / square**2)


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie between 0 and 1, not {delta}")


def guess_accuracy(epsilon: float, delta: float) -> float:
    """How often the best possible attacker is right about one patient's membership, at even odds.

    For a Gaussian mechanism that is exactly mu-GDP the best test of "in" against "out" is right with probability
    Phi(mu / 2) (Dong et al. 2022, section 2); mu is the one that gives (epsilon, delta).
    """
    if epsilon <= 0:
        return 0.5
    mu = 1 / noise_multiplier_for(epsilon, delta, 1)
    return 0.5 * math.erfc(-mu / (2 * math.sqrt(2)))


def guess_accuracy_of_pair(epsilon: float, delta: float) -> float:
    """The same for a mechanism of which only (epsilon, delta) is known: (e^epsilon + delta) / (1 + e^epsilon).

    The best test is right no more often, at even odds, because its true-positive rate is at most
    e^epsilon times its false-positive rate plus delta, and the other way round (Kairouz, Oh & Viswanath 2015).
    """
    odds = math.exp(epsilon)
    return min(1.0, (odds + delta) / (1 + odds))
