"""Means over seeds, paired differences with Student's t interval, and the verdict that the interval allows.

A seed is a split of the patients, the order of batches and the noise: two settings of one seed share the split, so
their difference is free of most of what makes one AUC differ from the next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field
from scipy.special import stdtrit

from tasks.store.records.record import Record

#: A difference of AUC that is too small to matter: two settings are called equal when the whole interval of their
#: difference lies within plus or minus this, and one does as well as the other when it is not worse by more.
MARGIN = 0.01
CONFIDENCE = 0.95

#: Of a difference "arm minus reference": within the margin; zero left out, above or below; or none of these.
IntervalVerdict = Literal["within", "better", "worse", "no evidence"]
#: What a claim says of "arm minus reference": that the arm does as well, better, or worse.
Direction = Literal["no worse", "higher", "lower"]
#: What becomes of a claim.
ClaimOutcome = Literal["supported", "not supported", "contradicted", "undecided"]


class PairedMean(Record):
    """Mean over `n` seeds, its standard error, and the interval that holds the mean with 95% confidence."""

    n: int = Field(ge=2)
    mean: float
    standard_error: float = Field(ge=0)
    low: float
    high: float


def summarise(values: Sequence[float]) -> PairedMean:
    """Mean and Student's t interval of one figure per seed.

    Raises:
        ValueError: fewer than two values, or one that is not finite.
    """
    if len(values) < 2 or not all(math.isfinite(value) for value in values):
        raise ValueError(f"an interval needs two or more finite values, not {len(values)} of which some may not be")
    mean = float(np.mean(values))
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(stdtrit(len(values) - 1, 0.5 + CONFIDENCE / 2)) * error
    rounded = (round(number, 6) for number in (mean, error, mean - half, mean + half))
    return PairedMean(n=len(values), **dict(zip(("mean", "standard_error", "low", "high"), rounded, strict=True)))


def difference(arm: Sequence[float], reference: Sequence[float]) -> PairedMean:
    """`arm` minus `reference`, seed by seed; both in the order of the same seeds.

    Raises:
        ValueError: not as many of one as of the other, fewer than two, or one that is not finite.
    """
    return summarise([a - b for a, b in zip(arm, reference, strict=True)])


def interval_verdict(found: PairedMean, margin: float = MARGIN) -> IntervalVerdict:
    """What the interval allows to say. A difference that is measurable and within the margin is "within"."""
    if -margin <= found.low and found.high <= margin:
        return "within"
    if found.low > 0:
        return "better"
    return "worse" if found.high < 0 else "no evidence"


def claim_outcome(found: PairedMean, direction: Direction, margin: float = MARGIN) -> ClaimOutcome:
    """What an interval means for a claim that the arm is no worse than the reference, or higher, or lower.

    "No worse" is one-sided (non-inferiority, EMEA/CPMP/EWP/2158/99): a better arm does as well, too.
    The claim is supported when all of the interval lies at or above minus the margin, and contradicted when all of it
    lies below. An arm that is shown to be worse, perhaps by less than the margin, does not support it.

    For the other two, a difference within the margin is none, and an interval of which `verdict` finds no evidence
    decides nothing.
    """
    if direction == "no worse":
        return _no_worse(found, margin)
    shown = interval_verdict(found, margin)
    if shown == "no evidence":
        return "undecided"
    if shown == "within":
        return "not supported"
    return "supported" if (shown == "better") == (direction == "higher") else "contradicted"


def _no_worse(found: PairedMean, margin: float) -> ClaimOutcome:
    if found.low >= -margin:
        return "supported"
    if found.high < -margin:
        return "contradicted"
    return "not supported" if found.high < 0 else "undecided"


def widening(n: int, num_train: int, num_held_out: int) -> float:
    """By how much the interval must widen to speak of new patients, and not of new splits of the same ones.

    Splits overlap, so their figures are not independent: the variance of the mean is not s^2 / n but
    s^2 (1 / n + held out / trained on) (Nadeau & Bengio 2003, Machine Learning 52, doi:10.1023/A:1024068626366).
    """
    return math.sqrt(1 + n * num_held_out / num_train)
