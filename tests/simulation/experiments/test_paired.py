"""Intervals, verdicts, and what a verdict means for a claim."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from tasks.simulation.experiments.paired import (
    Direction,
    PairedMean,
    claim_outcome,
    difference,
    interval_verdict,
    summarise,
    widening,
)


def interval(low: float, high: float) -> PairedMean:
    return PairedMean(n=20, mean=(low + high) / 2, standard_error=(high - low) / 4.2, low=low, high=high)


def test_the_interval_is_students() -> None:
    values = [0.61, 0.72, 0.66, 0.58, 0.75]
    found = summarise(values)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-6)
    assert found.standard_error == pytest.approx(stats.sem(values), abs=1e-6)
    assert (found.n, found.mean) == (5, pytest.approx(0.664))


@pytest.mark.parametrize("values", [[], [0.7], [0.7, math.nan], [0.7, math.inf]])
def test_no_interval_of_nothing_or_of_what_is_no_number(values: list[float]) -> None:
    with pytest.raises(ValueError, match="two or more finite values"):
        summarise(values)


def test_pairing_takes_away_what_the_seeds_share() -> None:
    """Splits differ by .07, settings by .02: unpaired intervals overlap, the paired one leaves out zero."""
    rng = np.random.default_rng(0)
    splits = rng.normal(0.7, 0.07, 20)
    a, b = splits + 0.02 + rng.normal(0, 0.005, 20), splits + rng.normal(0, 0.005, 20)
    paired = difference(list(a), list(b))
    assert 0.015 < paired.low < 0.02 < paired.high < 0.025
    one, other = summarise(list(a)), summarise(list(b))
    assert one.low < other.mean
    shuffled = difference(list(a), list(rng.permutation(b)))
    assert shuffled.low < 0 < shuffled.high


def test_pairs_must_fit() -> None:
    with pytest.raises(ValueError):
        difference([0.7, 0.7, 0.7], [0.7, 0.7])


@pytest.mark.parametrize("size", [4, 20])
def test_intervals_hold_the_mean_as_often_as_they_say(size: int) -> None:
    """4000 draws: 95% within .015, which chance misses with probability 1e-5. The normal's quantile fails it at 4."""
    rng = np.random.default_rng(1)
    draws = rng.normal(0.3, 1.0, (4000, size))
    found = [summarise(list(row)) for row in draws]
    assert np.mean([one.low <= 0.3 <= one.high for one in found]) == pytest.approx(0.95, abs=0.015)
    narrow = [abs(one.mean - 0.3) <= 1.96 * one.standard_error for one in found]
    assert (abs(np.mean(narrow) - 0.95) > 0.015) == (size == 4)


VERDICTS = {
    "within": [(-0.01, 0.01), (-0.004, 0.002), (0.001, 0.009), (-0.009, -0.001), (0.0, 0.0)],
    "better": [(0.001, 0.011), (0.02, 0.03)],
    "worse": [(-0.011, -0.001), (-0.03, -0.02)],
    "no evidence": [(-0.011, 0.01), (-0.01, 0.011), (-0.2, 0.2), (0.0, 0.011), (-0.011, 0.0)],
}


@pytest.mark.parametrize(("expected", "low", "high"), [(v, *ends) for v, many in VERDICTS.items() for ends in many])
def test_the_interval_decides(expected: str, low: float, high: float) -> None:
    assert interval_verdict(interval(low, high)) == expected


def test_the_margin_decides_what_is_equal() -> None:
    found = interval(-0.015, 0.015)
    assert interval_verdict(found) == "no evidence"
    assert interval_verdict(found, margin=0.02) == "within"


#: low and high of a difference -> what it means for "no worse", "higher" and "lower".
JUDGED = {
    (-0.01, 0.01): ("supported", "not supported", "not supported"),
    (-0.004, -0.001): ("supported", "not supported", "not supported"),
    (0.001, 0.011): ("supported", "supported", "contradicted"),
    (0.02, 0.03): ("supported", "supported", "contradicted"),
    (-0.01, 0.2): ("supported", "undecided", "undecided"),
    (-0.011, -0.001): ("not supported", "contradicted", "supported"),
    (-0.03, -0.01): ("not supported", "contradicted", "supported"),
    (-0.03, -0.011): ("contradicted", "contradicted", "supported"),
    (-0.011, 0.0): ("undecided", "undecided", "undecided"),
    (-0.2, 0.2): ("undecided", "undecided", "undecided"),
}


@pytest.mark.parametrize("ends", JUDGED, ids=str)
def test_what_an_interval_means_for_a_claim(ends: tuple[float, float]) -> None:
    directions: tuple[Direction, ...] = ("no worse", "higher", "lower")
    assert tuple(claim_outcome(interval(*ends), direction) for direction in directions) == JUDGED[ends]


def test_the_margin_decides_what_is_as_good() -> None:
    found = interval(-0.015, -0.012)
    assert (claim_outcome(found, "no worse"), claim_outcome(found, "no worse", margin=0.02)) == (
        "contradicted",
        "supported",
    )


def test_new_patients_are_harder_than_new_splits() -> None:
    """Nadeau & Bengio: variance 1/n + held out / trained on, in place of 1/n."""
    assert widening(20, 211, 43) == pytest.approx(math.sqrt((1 / 20 + 43 / 211) / (1 / 20)))
    assert widening(20, 211, 0) == 1
