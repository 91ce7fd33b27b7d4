"""Against scipy, and against the figures that the paper's counts give."""

from __future__ import annotations

import math
import random
from statistics import NormalDist

import pytest
from scipy import stats

from tasks.exam.scoring import statistics


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(124, 285, 0.3788, 0.4931), (228, 285, 0.7497, 0.8423), (250, 345, 0.6752, 0.7691)],
)
def test_wilson_gives_the_intervals_of_the_papers_counts(successes: int, trials: int, low: float, high: float) -> None:
    interval = statistics.wilson(successes, trials)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


def test_wilson_agrees_with_scipy_everywhere() -> None:
    checked = 0
    for trials in (1, 2, 7, 30, 345):
        for successes in range(0, trials + 1, max(1, trials // 7)):
            for confidence in (0.8, 0.95, 0.99):
                ours = statistics.wilson(successes, trials, confidence=confidence)
                theirs = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
                assert ours == pytest.approx((theirs.low, theirs.high), abs=1e-12)
                checked += 1
    assert checked == 87


def test_wilson_of_nothing_says_nothing() -> None:
    assert statistics.wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="4 of 3"):
        statistics.wilson(4, 3)


def test_exact_mcnemar_is_scipys_binomial_test() -> None:
    for lost in range(0, 40, 3):
        for gained in range(0, 40, 3):
            expected = stats.binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
            assert statistics.exact_mcnemar(lost, gained) == pytest.approx(expected, rel=1e-9)
    assert statistics.exact_mcnemar(345, 0) == pytest.approx(2.0**-344, rel=1e-12)


def test_the_chi_square_of_the_paper() -> None:
    with_yates = statistics.chi_square(124, 285, 228, 285, yates=True)
    without = statistics.chi_square(124, 285, 228, 285, yates=False)
    assert with_yates is not None
    assert without is not None
    assert (round(with_yates.statistic, 4), f"{with_yates.p:.3e}") == (78.8043, "6.858e-19")
    assert (round(without.statistic, 4), f"{without.p:.3e}") == (80.3420, "3.149e-19")


@pytest.mark.parametrize("yates", [True, False])
def test_chi_square_agrees_with_scipy(yates: bool) -> None:
    dice = random.Random(7)
    for _ in range(200):
        trials_a, trials_b = dice.randint(2, 400), dice.randint(2, 400)
        a, b = dice.randint(1, trials_a), dice.randint(0, trials_b - 1)
        ours = statistics.chi_square(a, trials_a, b, trials_b, yates=yates)
        theirs = stats.chi2_contingency([[a, trials_a - a], [b, trials_b - b]], correction=yates)
        assert ours is not None
        assert ours == pytest.approx((theirs.statistic, theirs.pvalue), rel=1e-9, abs=1e-12)


def test_chi_square_of_equal_outcomes_has_no_meaning() -> None:
    assert statistics.chi_square(5, 5, 7, 7, yates=True) is None
    assert statistics.chi_square(0, 0, 3, 7, yates=False) is None


def test_holm_gives_the_textbook_values_in_the_order_given() -> None:
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm"); statsmodels 0.15 multipletests(..., method="holm") agrees.
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert statistics.holm([0.6, 0.7]) == (1.0, 1.0)
    assert statistics.holm([]) == ()


def test_holm_rejects_what_the_step_down_procedure_rejects() -> None:
    dice, rejected = random.Random(3), 0
    for _ in range(300):
        p_values = [dice.random() ** 4 for _ in range(dice.randint(1, 12))]
        expected = set()
        for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
            if p_values[index] > 0.05 / (len(p_values) - rank):
                break
            expected.add(index)
        adjusted = statistics.holm(p_values)
        assert {index for index, p in enumerate(adjusted) if p <= 0.05} == expected
        rejected += len(expected)
    assert rejected > 100


def test_holm_keeps_its_error_rate_where_unadjusted_tests_do_not() -> None:
    """2000 families of 20 true nulls. Passing by chance: under 1e-6 either way (sd 0.5 points; bounds 5 sd off)."""
    dice = random.Random(11)
    families = [[dice.random() for _ in range(20)] for _ in range(2000)]
    false_alarms = sum(min(statistics.holm(family)) < 0.05 for family in families) / len(families)
    unadjusted = sum(min(family) < 0.05 for family in families) / len(families)
    assert false_alarms < 0.05 + 5 * math.sqrt(0.05 * 0.95 / 2000)
    assert unadjusted > 0.5


def test_epoch_spread() -> None:
    spread = statistics.epoch_spread([0.70, 0.72, 0.74])
    assert spread.mean == pytest.approx(0.72)
    assert spread.variance == pytest.approx(0.0004)
    assert spread.sd == pytest.approx(0.02)
    assert statistics.epoch_spread([0.5]) == (0.5, None)
    assert statistics.epoch_spread([0.5]).sd is None
    with pytest.raises(ValueError, match="at least one epoch"):
        statistics.epoch_spread([])


def test_the_minimum_detectable_change_of_the_papers_exam() -> None:
    found = statistics.minimum_detectable(345)
    assert found is not None
    assert (found.items, round(100 * found.share, 1)) == (14, 4.1)


@pytest.mark.parametrize("discordant", [6, 7, 20, 34, 35, 120])
def test_the_smallest_significant_net_change_is_the_smallest(discordant: int) -> None:
    net = statistics.significant_net(discordant, 0.05)
    assert net is not None
    assert stats.binomtest((discordant - net) // 2, discordant).pvalue < 0.05
    assert stats.binomtest((discordant - net + 2) // 2, discordant).pvalue >= 0.05


def test_five_pairs_cannot_be_significant() -> None:
    assert statistics.significant_net(5, 0.05) is None
    assert statistics.significant_net(0, 0.05) is None
    assert statistics.minimum_detectable(50) is None


def test_chance_of_a_net_change_by_simulation() -> None:
    """20000 draws of 34 coins; false alarm of the test under 1e-5 (4.4 sd). A smaller net must differ."""
    dice = random.Random(5)
    draws = [abs(2 * dice.getrandbits(34).bit_count() - 34) for _ in range(20_000)]
    share = sum(net >= 14 for net in draws) / len(draws)
    sd = math.sqrt(share * (1 - share) / len(draws))
    limit = -NormalDist().inv_cdf(0.5e-5) * sd
    assert abs(statistics.net_at_least(34, 14) - share) < limit
    assert abs(statistics.net_at_least(34, 12) - share) > limit
    assert (statistics.net_at_least(5, 0), statistics.net_at_least(5, 6)) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("part", "whole", "digits", "text"),
    [
        (124, 285, 1, "43.5"),
        (124, 345, 1, "35.9"),
        (250, 345, 1, "72.5"),
        (250, 344, 1, "72.7"),
        (1, 8, 1, "12.5"),
        (1, 8, 0, "13"),
        (5, 8, 0, "63"),
        (1, 80, 1, "1.3"),
        (3, 80, 1, "3.8"),
        (0, 9, 1, "0.0"),
        (9, 9, 1, "100.0"),
        (1, 200, 2, "0.50"),
        (3, 0, 1, "-"),
    ],
)
def test_percent_rounds_half_up(part: int, whole: int, digits: int, text: str) -> None:
    assert statistics.percent_of(part, whole, digits=digits) == text
