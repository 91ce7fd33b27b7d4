"""The statistics of an exam: proportions, paired and unpaired tests, and what a comparison can and cannot see.

Only the standard library: counts are summed as whole numbers, so the exact tests are exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist, fmean, variance
from typing import NamedTuple

#: Share of items whose verdict differs between two runs of one model, for the planning figure in reports.
TYPICAL_DISCORDANCE = 0.10


class Interval(NamedTuple):
    """A confidence interval of a proportion."""

    low: float
    high: float


class ChiSquare(NamedTuple):
    """Pearson's statistic of a 2 x 2 table with one degree of freedom, and its p-value."""

    statistic: float
    p: float


class Spread(NamedTuple):
    """Mean and sample variance (n - 1) of one accuracy per epoch; no variance of a single epoch."""

    mean: float
    variance: float | None

    @property
    def sd(self) -> float | None:
        """Standard deviation between epochs."""
        return None if self.variance is None else math.sqrt(self.variance)


class Detectable(NamedTuple):
    """The smallest net change, in items and as a share of all, that an exact McNemar test calls significant."""

    items: int
    share: float


def wilson(successes: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """Score interval of a proportion (Wilson 1927). No trials: the whole of 0 to 1.

    Raises:
        ValueError: not 0 <= successes <= trials.
    """
    _check_counts(successes, trials)
    if trials == 0:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, spread = successes / trials, z * z / trials
    centre = share + spread / 2
    half = z * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    return Interval(max(0.0, (centre - half) / (1 + spread)), min(1.0, (centre + half) / (1 + spread)))


@lru_cache(maxsize=4096)
def exact_mcnemar(lost: int, gained: int) -> float:
    """Two-sided exact p-value of paired yes/no outcomes (McNemar 1947, with the binomial law).

    `lost` pairs went from right to wrong, `gained` from wrong to right; without a real change each way is as likely.
    """
    if lost < 0 or gained < 0:
        raise ValueError(f"pairs cannot be negative: lost {lost}, gained {gained}")
    return min(1.0, 2 * _binomial_tail(min(lost, gained), lost + gained))


def chi_square(successes_a: int, trials_a: int, successes_b: int, trials_b: int, *, yates: bool) -> ChiSquare | None:
    """Pearson's test of two independent proportions; `yates` subtracts the continuity correction.

    None where it has no meaning: an empty side, or all outcomes alike.
    """
    _check_counts(successes_a, trials_a)
    _check_counts(successes_b, trials_b)
    total, right = trials_a + trials_b, successes_a + successes_b
    margins = trials_a * trials_b * right * (total - right)
    if margins == 0:
        return None
    distance: float = abs(successes_a * (trials_b - successes_b) - successes_b * (trials_a - successes_a))
    if yates:
        distance = max(0, 2 * distance - total) / 2
    statistic = total * distance * distance / margins
    return ChiSquare(statistic, math.erfc(math.sqrt(statistic / 2)))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Step-down adjusted p-values in the order given (Holm 1979); valid whatever the tests have in common."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return tuple(adjusted)


def epoch_spread(accuracies: Sequence[float]) -> Spread:
    """Mean and variance over epochs. Raises ValueError without any epoch."""
    if not accuracies:
        raise ValueError("a spread needs at least one epoch")
    return Spread(fmean(accuracies), variance(accuracies) if len(accuracies) > 1 else None)


@lru_cache(maxsize=4096)
def significant_net(discordant: int, alpha: float) -> int | None:
    """The smallest net change of so many discordant pairs with exact p < alpha; None when even all of them have not."""
    for net in range(discordant % 2, discordant + 1, 2):
        if exact_mcnemar((discordant - net) // 2, (discordant + net) // 2) < alpha:
            return net
    return None


def minimum_detectable(
    items: int, *, discordance: float = TYPICAL_DISCORDANCE, alpha: float = 0.05
) -> Detectable | None:
    """What a comparison can see when that share of the items changes verdict, rounded down to whole pairs.

    None when no change is significant. On 345 items at 10%: 34 pairs, 14 items, 4.1 points.
    """
    net = significant_net(math.floor(items * discordance + 1e-9), alpha)
    return None if net is None else Detectable(net, net / items)


def net_at_least(discordant: int, net: int) -> float:
    """How often chance alone makes a net change of `net` or more, either way, of so many discordant pairs."""
    if net <= 0:
        return 1.0
    if net > discordant:
        return 0.0
    return min(1.0, 2 * _binomial_tail((discordant - net) // 2, discordant))


def percent_of(part: int, whole: int, *, digits: int = 1) -> str:
    """`part / whole` in percent, rounded half up on whole numbers: 217 of 345 is "62.9". "-" of nothing."""
    if whole == 0:
        return "-"
    scaled = (2 * 100 * 10**digits * part + whole) // (2 * whole)
    return f"{scaled // 10**digits}.{scaled % 10**digits:0{digits}d}" if digits else str(scaled)


def low_to_high(low: object, high: object) -> str:
    """One figure, or from one to another."""
    return str(low) if low == high else f"{low} to {high}"


def _binomial_tail(at_most: int, trials: int) -> float:
    """P(X <= at_most) of a fair coin. The division of whole numbers is rounded once."""
    term, total = 1, 0
    for successes in range(at_most + 1):
        total += term
        term = term * (trials - successes) // (successes + 1)
    return total / (1 << trials)


def _check_counts(successes: int, trials: int) -> None:
    if not 0 <= successes <= trials:
        raise ValueError(f"need 0 <= successes <= trials, not {successes} of {trials}")
