"""The laws of the sparse vector technique against closed forms, each test also seen rejecting a broken copy.

False-alarm rate of every test: 1e-6 (`ALARM`). Lengths are in units of gamma.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import binom, binomtest, chi2, chi2_contingency, kstest, laplace

from tasks.privacy.mechanisms import svt
from tasks.privacy.mechanisms.svt import SparseVectorMechanism
from tests.privacy.mechanisms.svt_laws import (
    GAMMA,
    RELEASES,
    TAU,
    FirstByIndex,
    Floats,
    Kind,
    QueryNoiseWithoutQ,
    ReleaseNoiseOmitted,
    ReleaseNoiseWithoutQ,
    ThresholdRedrawn,
    ThresholdWithoutNoise,
    chi_square_p_value,
    make,
    over_thresholds,
    paper_scales,
    releases,
)
from tests.privacy.noise.noise_tests import ALARM

# who passes


def number_passing_p_value(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> float:
    """How many of 8 equal components pass in one pass: binomial given the threshold, which is Laplace.

    The threshold's noise is as wide as the query's, so that components that share it pass together.
    """
    monkeypatch.setattr(svt, "MAX_PASSES", 1)
    mechanism = make(kind, 1.0, (80, 5, 15))
    query, threshold, _ = paper_scales(mechanism, 8)
    counts = np.bincount([r.indices.size for r in releases(mechanism, np.full(8, 0.6))], minlength=9)
    expected = [
        over_thresholds(lambda t, k=k: binom.pmf(k, 8, laplace.sf(t - 0.6, scale=query)), threshold) for k in range(9)
    ]
    assert sum(expected) == pytest.approx(1, abs=1e-6)
    return chi_square_p_value(counts, RELEASES * np.array(expected))


def test_how_many_pass_follows_the_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    assert number_passing_p_value(SparseVectorMechanism, monkeypatch) > ALARM


@pytest.mark.parametrize("kind", [QueryNoiseWithoutQ, ThresholdRedrawn, ThresholdWithoutNoise])
def test_wrong_query_or_threshold_noise_is_rejected(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    assert number_passing_p_value(kind, monkeypatch) < ALARM


LEVELS = np.array([0.0, -0.25, 0.5, -1.0, 3.0, -1e6])


def passing_p_values(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For each component, a binomial test of how often it passes in one pass; what is over gamma counts as gamma."""
    monkeypatch.setattr(svt, "MAX_PASSES", 1)
    mechanism = make(kind, 1.0, (60, 30, 10))
    query, threshold, _ = paper_scales(mechanism, LEVELS.size)
    passed = np.zeros(LEVELS.size, dtype=int)
    for release in releases(mechanism, LEVELS):
        passed[release.indices] += 1
        assert release.shortfall == LEVELS.size - release.indices.size
    sizes = np.minimum(np.abs(LEVELS), 1.0)
    chances = [over_thresholds(lambda t, c=c: laplace.sf(t - c, scale=query), threshold) for c in sizes]
    assert np.ptp(chances) > 0.3
    return [float(binomtest(int(k), RELEASES, p).pvalue) for k, p in zip(passed, chances, strict=True)]


def test_every_component_passes_as_often_as_its_magnitude_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert min(passing_p_values(SparseVectorMechanism, monkeypatch)) > ALARM


def test_wrong_query_noise_is_rejected_component_by_component(monkeypatch: pytest.MonkeyPatch) -> None:
    assert min(passing_p_values(QueryNoiseWithoutQ, monkeypatch)) < ALARM


# what is sent


def release_p_values(kind: Kind) -> tuple[float, float]:
    """Of the released values of a component 0.3: how many lie on each bound, and the law of those within."""
    mechanism = make(kind, 1.0, (30, 10, 60))
    _, _, scale = paper_scales(mechanism, 4)
    law = laplace(0.3, scale)
    values = np.concatenate([r.values for r in releases(mechanism, np.full(4, 0.3))]).astype(np.float64) / GAMMA
    assert values.size == 4 * RELEASES
    inside = values[np.abs(values) < 1 - 1e-6]
    below, above = int((values < -1 + 1e-6).sum()), int((values > 1 - 1e-6).sum())
    low, high = law.cdf(-1), law.sf(1)
    bounds = chi_square_p_value([below, inside.size, above], np.array([low, 1 - low - high, high]) * values.size)
    return bounds, float(kstest(inside, lambda x: (law.cdf(x) - low) / (1 - low - high)).pvalue)


def test_released_values_follow_the_clipped_laplace_law() -> None:
    assert min(release_p_values(SparseVectorMechanism)) > ALARM


@pytest.mark.parametrize("kind", [ReleaseNoiseOmitted, ReleaseNoiseWithoutQ])
def test_wrong_release_noise_is_rejected(kind: Kind) -> None:
    assert max(release_p_values(kind)) < ALARM


# which are sent


def uniformity_p_value(kind: Kind) -> float:
    """10 of 40 equal components: how often each is sent. Counts of a subset vary less, by (n - q) / (n - 1)."""
    size, wanted = 40, 10
    mechanism = make(kind, wanted / size, (40, 30, 30))
    counts = np.zeros(size)
    for release in releases(mechanism, np.full(size, 0.5)):
        assert (release.indices.size, release.shortfall) == (wanted, 0)
        counts[release.indices] += 1
    expected = RELEASES * wanted / size
    statistic = ((counts - expected) ** 2 / expected).sum() * (size - 1) / (size - wanted)
    return float(chi2.sf(statistic, size - 1))


def test_equal_components_are_sent_equally_often() -> None:
    assert uniformity_p_value(SparseVectorMechanism) > ALARM


def test_cutting_off_by_index_is_rejected() -> None:
    assert uniformity_p_value(FirstByIndex) < ALARM


UNEQUAL = np.array([0.2, 1.0, 0.6, 0.9])


def one_at_a_time(rng: np.random.Generator, scales: tuple[float, float, float], wanted: int) -> tuple[int, ...]:
    """The law as it is stated: components not yet released, asked one by one in random order, pass after pass."""
    query, threshold_scale, _ = scales
    threshold = TAU + rng.laplace(0, threshold_scale)
    sent: list[int] = []
    while True:
        for i in rng.permutation([i for i in range(UNEQUAL.size) if i not in sent]):
            if UNEQUAL[i] + rng.laplace(0, query) >= threshold:
                sent.append(int(i))
                if len(sent) == wanted:
                    return tuple(sorted(sent))


def subset_p_value(kind: Kind) -> float:
    """Which 2 of 4 unequal components are sent, against the loop: a chi-square test of two samples."""
    mechanism = make(kind, 0.5, (50, 48, 2))
    scales = paper_scales(mechanism, 2)
    rng = np.random.default_rng(7)
    subsets = list(combinations(range(UNEQUAL.size), 2))
    loop = [subsets.index(one_at_a_time(rng, scales, 2)) for _ in range(RELEASES)]
    found = [subsets.index(tuple(r.indices.tolist())) for r in releases(mechanism, UNEQUAL)]
    table = np.stack([np.bincount(sample, minlength=len(subsets)) for sample in (loop, found)])
    assert table[0].max() > 3 * table[0].min(), "the subsets are not equally likely"
    return float(chi2_contingency(table).pvalue)


def test_asking_all_at_once_has_the_law_of_asking_one_at_a_time() -> None:
    assert subset_p_value(SparseVectorMechanism) > ALARM


@pytest.mark.parametrize("kind", [FirstByIndex, QueryNoiseWithoutQ])
def test_another_law_of_selection_is_rejected(kind: Kind) -> None:
    assert subset_p_value(kind) < ALARM


def test_two_components_and_one_place() -> None:
    """Closed form: in a pass the first passes alone, or both do and it is asked first; else there is another pass."""
    mechanism = make(SparseVectorMechanism, 0.5, (40, 58, 2))
    query, threshold, _ = paper_scales(mechanism, 1)

    def first_wins(t: Floats) -> Floats:
        p1, p2 = (laplace.sf(t - c, scale=query) for c in (0.9, 0.7))
        return p1 * (1 - p2 / 2) / (1 - (1 - p1) * (1 - p2))

    def first_wins_with_replacement(t: Floats) -> Floats:
        p1, p2 = (laplace.sf(t - c, scale=query) for c in (0.9, 0.7))
        return p1 / (p1 + p2)

    wins = sum(int(r.indices[0]) == 0 for r in releases(mechanism, np.array([0.9, 0.7])))
    assert binomtest(wins, RELEASES, over_thresholds(first_wins, threshold)).pvalue > ALARM
    assert binomtest(wins, RELEASES, over_thresholds(first_wins_with_replacement, threshold)).pvalue < ALARM


# who is not sent


def shortfall_p_value(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> float:
    """Eight zeros below a threshold of many noise scales: how often nothing passes in 20 passes."""
    monkeypatch.setattr(svt, "MAX_PASSES", 20)
    mechanism = make(kind, 2 / 8, (80, 19, 1))
    query, threshold, _ = paper_scales(mechanism, 2)
    short = np.bincount([r.shortfall for r in releases(mechanism, np.zeros(8), 1500)], minlength=3)
    assert short.sum() == 1500

    # 0, 1 or 2 components pass within 20 passes: each does with chance 1 - (1 - p)^20, and the second place is the last
    def number_passing(k: int) -> float:
        return over_thresholds(lambda t: binom.pmf(k, 8, -np.expm1(20 * laplace.logcdf(t, scale=query))), threshold)

    none, one = number_passing(0), number_passing(1)
    assert none > 0.1
    return chi_square_p_value(short[::-1], 1500 * np.array([none, one, 1 - none - one]))


def test_too_few_that_pass_end_as_the_stated_shortfall(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shortfall_p_value(SparseVectorMechanism, monkeypatch) > ALARM


@pytest.mark.parametrize("kind", [QueryNoiseWithoutQ, ThresholdRedrawn])
def test_a_shortfall_of_another_size_is_rejected(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shortfall_p_value(kind, monkeypatch) < ALARM


def test_the_shortfall_of_an_update_that_nothing_passes_is_the_whole_quota() -> None:
    """1000 passes over two zeros; the chance of one that passes is below 1e-8 at this threshold."""
    mechanism = make(SparseVectorMechanism, 0.5, (89, 10, 1))
    found = [(r.indices.size, r.values.size, r.shortfall) for r in releases(mechanism, np.zeros(2), 3)]
    assert found == [(0, 0, 1)] * 3
