"""Exact accounting of Gaussian mechanisms as Gaussian differential privacy (Dong, Roth & Su 2022, arXiv 1905.02383).

One Gaussian release with noise multiplier s (sd / L2 sensitivity) is mu-GDP with mu = 1/s; T of them are
mu-GDP with mu = sqrt(T)/s, exactly; and mu-GDP is (epsilon, delta(epsilon))-DP for every epsilon, exactly.
A bare `epsilon` is the total over all releases.
"""

from __future__ import annotations

import math
from collections.abc import Callable

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
