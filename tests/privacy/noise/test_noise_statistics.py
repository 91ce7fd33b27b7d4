"""The laws of the noise. Every check is also seen rejecting broken noise.

Seeded samples give the same p-values in every run: ALARM (1e-6 a check) is the chance that an unlucky seed would have
made a good sampler fail from the start. OpenDP's samplers cannot be seeded: there it is 1e-9 a check in every run.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binomtest, chi2, chisquare, kstest, laplace, norm

from tasks.privacy.noise import keystream
from tasks.privacy.noise.keystream import BLOCK
from tasks.privacy.noise.source import SMALL, SeededNoise, SystemNoise
from tests.privacy.noise.noise_tests import ALARM, Sample, correlation_p_value, scale_p_value, shape_p_value

Check = Callable[[Sample, float], float]
Flags = npt.NDArray[np.bool_]
UNSEEDED_ALARM = 1e-9
SCALE = 6.22 * 2**24
N = 250_000
MANY = 2_000_000


def rng() -> np.random.Generator:
    """For broken noise."""
    return np.random.default_rng(7)


def source(*context: str) -> SeededNoise:
    return SeededNoise(b"statistics of the noise".ljust(32)).derive(*context)


# checks


def laplace_scale_p_value(sample: Sample, scale: float) -> float:
    """Two-sided test of the mean absolute value: twice its sum over the scale is chi-square with 2 n degrees.

    At n = 250 000 a scale of 0.98 or 1.02 moves it by 10 of its standard deviations, and ALARM is at 4.9.
    """
    statistic, degrees = 2 * float(np.abs(sample / scale).sum()), 2 * sample.size
    return float(2 * min(chi2.cdf(statistic, degrees), chi2.sf(statistic, degrees)))


def laplace_shape_p_value(sample: Sample, scale: float) -> float:
    """Kolmogorov-Smirnov test against Laplace(scale)."""
    return float(kstest(sample / scale, "laplace").pvalue)


def _tail_p_value(sample: Sample, scale: float, tails: list[tuple[float, float]]) -> float:
    """The smallest of exact two-sided binomial tests of how many values lie beyond each bound, times their number."""
    size = np.abs(sample) / scale
    counts = [(int((size > bound).sum()), probability) for bound, probability in tails]
    return len(tails) * min(float(binomtest(count, sample.size, p).pvalue) for count, p in counts)


def tail_p_value(sample: Sample, sd: float) -> float:
    return _tail_p_value(sample, sd, [(bound, 2 * norm.sf(bound)) for bound in (3.0, 4.0, 5.0)])


def laplace_tail_p_value(sample: Sample, scale: float) -> float:
    return _tail_p_value(sample, scale, [(bound, 2 * laplace.sf(bound)) for bound in (5.0, 10.0, 14.0)])


def independence_p_value(one: Sample, other: Sample) -> float:
    """Correlation of the values and of their sizes."""
    return 2 * min(correlation_p_value(one, other), correlation_p_value(np.abs(one), np.abs(other)))


def lag_p_value(sample: Sample) -> float:
    """Independence of values one apart, half a block apart (the two of a Box-Muller pair) and whole blocks apart."""
    lags = [1, 2, BLOCK // 2, BLOCK, 2 * BLOCK]
    return len(lags) * min(independence_p_value(sample[:-lag], sample[lag:]) for lag in lags)


def border_p_value(sample: Sample, width: int = 2000) -> float:
    """Independence of the last values of a block and the first of the next, over all borders."""
    borders = range(BLOCK, sample.size, BLOCK)
    before, after = (np.concatenate([sample[b + shift : b + shift + width] for b in borders]) for shift in (-width, 0))
    return 2 * min(independence_p_value(before, after), independence_p_value(before[::-1], after))


def indicator_p_value(chosen: Flags, size: int, together: int) -> float:
    """Chi-square test of how often `together` items are in a subset of `size`, for all groups of so many items.

    chosen: (draws, population). The counts of a good sampler have mean and covariance that follow from the numbers
    of items that two groups share; the covariance has one zero eigenvalue, as every draw holds equally many groups.
    """
    groups = list(itertools.combinations(range(chosen.shape[1]), together))
    hit = np.stack([chosen[:, group].all(axis=1) for group in groups], axis=1)
    probability = _inclusion(chosen.shape[1], size)
    joint = np.array([[probability[len({*a, *b})] for b in groups] for a in groups])
    covariance = joint - probability[together] ** 2
    deviation = hit.mean(axis=0) - probability[together]
    statistic = len(chosen) * deviation @ np.linalg.pinv(covariance, hermitian=True, rcond=1e-9) @ deviation
    impossible = any((hit.sum(axis=1) != hit.sum(axis=1)[0]).tolist())
    return 0.0 if impossible else float(chi2.sf(statistic, np.linalg.matrix_rank(covariance, tol=1e-9)))


def _inclusion(population: int, size: int) -> list[float]:
    """Probability that m given items are all in a subset, by m."""
    factors = [(size - i) / (population - i) for i in range(size)]
    return [float(np.prod(factors[:m])) if m <= size else 0.0 for m in range(population + 1)]


def spread_p_value(subset: Sample, population: int, bins: int = 100) -> float:
    """Chi-square test that equal stretches of the population are equally represented (hypergeometric counts)."""
    counts = np.histogram(subset, bins=bins, range=(0, population))[0]
    expected = subset.size / bins
    statistic = ((counts - expected) ** 2).sum() / expected * (population - 1) / (population - subset.size)
    return float(2 * min(chi2.sf(statistic, bins - 1), chi2.cdf(statistic, bins - 1)))


# broken noise, which the checks must reject

BROKEN: dict[str, tuple[Callable[[np.random.Generator], Sample], Check]] = {
    "gaussian, sd 2% too small": (lambda rng: rng.normal(0, 0.98, N), scale_p_value),
    "gaussian, sd 2% too large": (lambda rng: rng.normal(0, 1.02, N), scale_p_value),
    "gaussian, in truth uniform": (lambda rng: rng.uniform(-1, 1, N) * np.sqrt(3), shape_p_value),
    "gaussian, in truth laplace": (lambda rng: rng.laplace(0, np.sqrt(0.5), N), shape_p_value),
    "gaussian, shifted": (lambda rng: rng.normal(0.02, 1, N), shape_p_value),
    "gaussian, cut at 3.9 sd": (lambda rng: np.clip(rng.normal(0, 1, MANY), -3.9, 3.9), tail_p_value),
    "gaussian, a heavier tail": (
        lambda rng: rng.normal(0, 1, MANY) * rng.choice([1, 3], MANY, p=[0.9997, 3e-4]),
        tail_p_value,
    ),
    "laplace, scale 2% too small": (lambda rng: rng.laplace(0, 0.98, N), laplace_scale_p_value),
    "laplace, scale 2% too large": (lambda rng: rng.laplace(0, 1.02, N), laplace_scale_p_value),
    "laplace, in truth normal": (lambda rng: rng.normal(0, np.sqrt(2), N), laplace_shape_p_value),
    "laplace, always positive": (lambda rng: rng.exponential(1, N), laplace_shape_p_value),
    "laplace, cut at 9.7 scales": (lambda rng: np.clip(rng.laplace(0, 1, MANY), -9.7, 9.7), laplace_tail_p_value),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_noise_is_rejected(name: str) -> None:
    make, check = BROKEN[name]
    assert check(np.rint(make(rng()) * SCALE), SCALE) < ALARM


# the vectorised samplers


def test_gaussian_noise_is_normal_with_the_right_scale() -> None:
    """Four checks, false alarm 1e-6 each; the same threshold rejects a scale that is 2% off, either way."""
    sample = source("gaussian").gaussian(MANY, SCALE)
    assert scale_p_value(sample[:N], SCALE) > ALARM
    assert shape_p_value(sample[:N], SCALE) > ALARM
    assert shape_p_value(sample[-N:], SCALE) > ALARM
    assert tail_p_value(sample, SCALE) > ALARM
    assert scale_p_value(sample[:N], 0.98 * SCALE) < ALARM
    assert scale_p_value(sample[:N], 1.02 * SCALE) < ALARM


def test_laplace_noise_is_laplace_with_the_right_scale() -> None:
    """Four checks, false alarm 1e-6 each; the same threshold rejects a scale that is 2% off, either way."""
    sample = source("laplace").laplace(MANY, SCALE)
    assert laplace_scale_p_value(sample[:N], SCALE) > ALARM
    assert laplace_shape_p_value(sample[:N], SCALE) > ALARM
    assert laplace_shape_p_value(sample[-N:], SCALE) > ALARM
    assert laplace_tail_p_value(sample, SCALE) > ALARM
    assert laplace_scale_p_value(sample[:N], 0.98 * SCALE) < ALARM
    assert laplace_scale_p_value(sample[:N], 1.02 * SCALE) < ALARM


@pytest.mark.parametrize("sd", [1.0, 3.7, 2.0**40])
def test_any_gaussian_scale_in_bounds_is_met(sd: float) -> None:
    """False alarm 1e-6. Rounding to whole steps adds the variance of a uniform."""
    assert scale_p_value(source("sd").gaussian(N, sd), float(np.sqrt(sd**2 + 1 / 12))) > ALARM


@pytest.mark.parametrize("scale", [1.0, 3.7])
@pytest.mark.parametrize("law", ["gaussian", "laplace"])
def test_every_integer_has_the_probability_of_its_rounding_interval(law: str, scale: float) -> None:
    """Chi-square over single integers at scales where rounding shows, false alarm 1e-6; rejects a scale 2% off."""
    sample = getattr(source(law, "coarse"), law)(N, scale)
    cdf = {"gaussian": norm.cdf, "laplace": laplace.cdf}[law]

    def p_value(claimed: float) -> float:
        edges = np.arange(-round(2.5 * scale), round(2.5 * scale) + 1) + 0.5
        expected = N * np.diff(cdf(np.concatenate([[-np.inf], edges, [np.inf]]) / claimed))
        return float(chisquare(np.bincount(np.searchsorted(edges, sample), minlength=expected.size), expected).pvalue)

    assert p_value(scale) > ALARM
    assert max(p_value(0.98 * scale), p_value(1.02 * scale)) < ALARM


# independence


@pytest.mark.parametrize("law", ["gaussian", "laplace"])
def test_values_are_independent_within_and_across_blocks(law: str) -> None:
    """Two checks, false alarm 1e-6 each; a sampler that uses a block twice is rejected by the first."""
    sample = getattr(source(law, "blocks"), law)(8 * BLOCK, SCALE)
    assert lag_p_value(sample) > ALARM
    assert border_p_value(sample) > ALARM
    assert lag_p_value(np.tile(sample[: 2 * BLOCK], 4)) < ALARM


@pytest.mark.parametrize("law", ["gaussian", "laplace"])
def test_a_block_that_begins_as_the_last_one_ended_is_rejected(law: str) -> None:
    """Overlapping keystreams would look like this: both ways round, and with the sign lost."""
    sample = getattr(source(law, "borders"), law)(4 * BLOCK, SCALE)
    for overlap in (slice(BLOCK - 2000, BLOCK), slice(BLOCK - 1, BLOCK - 2001, -1)):
        repeated = sample.copy().reshape(4, BLOCK)
        repeated[1:, :2000] = -repeated[:-1, overlap]
        assert border_p_value(repeated.ravel()) < ALARM


@pytest.mark.parametrize("law", ["gaussian", "laplace"])
def test_calls_and_derived_sources_are_independent(law: str) -> None:
    """Pairs of 12 draws of one seed, false alarm 1e-6 for all of them; noise that shares a tenth is rejected."""
    one = source(law, "calls")
    sources = [one, one, one, one, *(one.derive(str(i)) for i in range(8))]
    draws = [getattr(each, law)(20_000, SCALE) for each in sources]
    pairs = list(itertools.combinations(draws, 2))
    assert len(pairs) == 66
    assert min(independence_p_value(a, b) for a, b in pairs) > ALARM / 66
    assert independence_p_value(draws[0], 9 * draws[1] + draws[0]) < ALARM / 66


# OpenDP's samplers


def exact_sample(law: str) -> Sample:
    """80 small vectors, 81 920 values, of the law that the release path draws."""
    draw = getattr(SystemNoise(), law)
    return np.concatenate([draw(SMALL, SCALE) for _ in range(80)])


def test_small_gaussian_vectors_have_the_right_law() -> None:
    """Five checks, unseeded, false alarm 1e-9 each. 5% off moves the scale by 20 of its standard deviations."""
    sample = exact_sample("gaussian")
    assert scale_p_value(sample, SCALE) > UNSEEDED_ALARM
    assert shape_p_value(sample, SCALE) > UNSEEDED_ALARM
    assert tail_p_value(sample, SCALE) > UNSEEDED_ALARM
    assert independence_p_value(sample[:-1], sample[1:]) > UNSEEDED_ALARM
    assert independence_p_value(sample[:-SMALL], sample[SMALL:]) > UNSEEDED_ALARM
    assert max(scale_p_value(sample, 0.95 * SCALE), scale_p_value(sample, 1.05 * SCALE)) < UNSEEDED_ALARM
    assert laplace_shape_p_value(sample, SCALE / np.sqrt(2)) < UNSEEDED_ALARM


def test_small_laplace_vectors_have_the_right_law() -> None:
    """Five checks, unseeded, false alarm 1e-9 each. 5% off moves the scale by 14 of its standard deviations."""
    sample = exact_sample("laplace")
    assert laplace_scale_p_value(sample, SCALE) > UNSEEDED_ALARM
    assert laplace_shape_p_value(sample, SCALE) > UNSEEDED_ALARM
    assert laplace_tail_p_value(sample, SCALE) > UNSEEDED_ALARM
    assert independence_p_value(sample[:-1], sample[1:]) > UNSEEDED_ALARM
    assert independence_p_value(sample[:-SMALL], sample[SMALL:]) > UNSEEDED_ALARM
    wrong = [laplace_scale_p_value(sample, factor * SCALE) for factor in (0.95, 1.05)]
    assert max(wrong) < UNSEEDED_ALARM
    assert shape_p_value(sample, SCALE * np.sqrt(2)) < UNSEEDED_ALARM


# subsets


def flags(subsets: list[Sample], population: int) -> Flags:
    chosen = np.zeros((len(subsets), population), dtype=np.bool_)
    for row, subset in zip(chosen, subsets, strict=True):
        row[subset] = True
    return chosen


def test_items_and_pairs_of_items_are_chosen_equally_often() -> None:
    """Two checks, false alarm 1e-6 each. Runs of neighbours include all items alike, but not pairs."""
    one = source("subset")
    chosen = flags([one.subset(12, 5) for _ in range(2000)], 12)
    assert indicator_p_value(chosen, 5, together=1) > ALARM
    assert indicator_p_value(chosen, 5, together=2) > ALARM
    first = flags([np.arange(5)] * 2000, 12)
    assert indicator_p_value(first, 5, together=1) < ALARM
    runs = flags([(np.arange(5) + start) % 12 for start in rng().integers(12, size=2000)], 12)
    assert indicator_p_value(runs, 5, together=1) > ALARM
    assert indicator_p_value(runs, 5, together=2) < ALARM


@pytest.mark.parametrize("bits", [16, 1])
def test_every_subset_is_equally_likely_also_when_keys_tie(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chi-square over all 20 subsets of 3 out of 6, false alarm 1e-6; with 1-bit keys nearly every draw has ties."""
    original = keystream.keystream
    masked = np.frombuffer(np.array([(1 << bits) - 1], "<u2").tobytes(), np.uint8)
    monkeypatch.setattr(keystream, "keystream", lambda *args: original(*args) & np.resize(masked, args[2].size))
    one = source("ties", str(bits))
    subsets = [tuple(one.subset(6, 3)) for _ in range(2000)]
    counts = [subsets.count(each) for each in itertools.combinations(range(6), 3)]
    assert sum(counts) == 2000
    assert chisquare(counts).pvalue > ALARM
    first_of_the_ties = [
        tuple(np.sort(np.argsort(keys, kind="stable")[:3])) for keys in rng().integers(2, size=(2000, 6))
    ]
    assert chisquare([first_of_the_ties.count(each) for each in itertools.combinations(range(6), 3)]).pvalue < ALARM


def test_a_large_subset_is_spread_evenly_over_the_population() -> None:
    """Three draws over several blocks of keys, false alarm 1e-6 each; too even a spread is rejected as well."""
    one, population = source("spread"), 3 * BLOCK + 5
    for size in (1000, BLOCK, population - 5000):
        assert spread_p_value(one.subset(population, size), population) > ALARM
    assert spread_p_value(np.arange(BLOCK), population) < ALARM
    assert spread_p_value(np.arange(0, population, 3), population) < ALARM
