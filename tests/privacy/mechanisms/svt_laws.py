"""The sparse vector technique under test: generous settings, fast seeded noise, closed forms and broken copies.

Settings are so generous that the noises are of the size of gamma: with a real budget every chance is near one half, and
no test could tell a wrong law from the right one. Lengths are in units of gamma.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2, laplace

from tasks.privacy.codecs.sparse import Components
from tasks.privacy.mechanisms.svt import Scales, SparseVectorMechanism, Steps32
from tasks.privacy.noise.source import NoiseSource, SeededNoise
from tasks.study.privacy import BudgetShares, SparseVector

SEED = SeededNoise(bytes(range(32)))
GAMMA, TAU, RELEASES = 0.01, 0.7, 2500

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Kind = type[SparseVectorMechanism]


class InBulk:
    """The noise of a seeded source, drawn 2^17 values at a time and handed out in order: 20 times as fast."""

    def __init__(self, source: SeededNoise) -> None:
        self._source = source
        self._drawn: dict[float, Integers] = {}

    def laplace(self, size: int, scale: float) -> Integers:
        left = self._drawn.get(scale, np.empty(0, dtype=np.int64))
        if left.size < size:
            left = self._source.laplace(1 << 17, scale)
        self._drawn[scale] = left[size:]
        return left[:size].copy()

    def subset(self, population: int, size: int) -> Integers:
        return self._source.subset(population, size)

    def uniform(self, size: int) -> npt.NDArray[np.float32]:
        return self._source.uniform(size)

    def gaussian(self, size: int, sd: float) -> Integers:
        raise AssertionError("the sparse vector technique has no Gaussian noise")


def make(kind: Kind, fraction: float, shares: tuple[float, float, float]) -> SparseVectorMechanism:
    query, threshold, release = shares
    settings = SparseVector(
        mechanism="svt",
        epsilon=100,
        delta=0.05,
        fraction=fraction,
        gamma=GAMMA,
        tau=TAU * GAMMA,
        shares=BudgetShares(query=query, threshold=threshold, release=release),
    )
    return kind(settings, total_rounds=1)


def paper_scales(mechanism: SparseVectorMechanism, wanted: int) -> tuple[float, float, float]:
    """Of query, threshold and release noise, in units of gamma, as the paper states them (s = 2)."""
    shares = mechanism.settings.shares
    unit = mechanism.pure_epsilon / (shares.query + shares.threshold + shares.release)
    return 4 * wanted / (unit * shares.query), 2 / (unit * shares.threshold), 2 * wanted / (unit * shares.release)


def releases(mechanism: SparseVectorMechanism, update: Floats, number: int = RELEASES) -> Iterator[Components]:
    """Independent releases of one update, given in units of gamma."""
    source = InBulk(SEED.derive(type(mechanism).__name__, str(update.tolist()), str(mechanism.settings)))
    return (mechanism.privatize(GAMMA * update, 1, source) for _ in range(number))


def over_thresholds(chance: Callable[[Floats], Floats], scale: float) -> float:
    """The mean of chance(T) over the noisy threshold T = tau + Lap(scale): midpoint rule over T's quantiles."""
    quantiles = (np.arange(100_000) + 0.5) / 100_000
    return float(chance(laplace.ppf(quantiles, TAU, scale)).mean())


def chi_square_p_value(observed: npt.ArrayLike, expected: npt.ArrayLike, lost: int = 1) -> float:
    """Pearson's test; cells that expect fewer than 10 are put together with the next."""
    pairs: list[list[float]] = [[0.0, 0.0]]
    for o, e in zip(np.asarray(observed, dtype=float), np.asarray(expected, dtype=float), strict=True):
        if pairs[-1][1] >= 10:
            pairs.append([0.0, 0.0])
        pairs[-1][0] += o
        pairs[-1][1] += e
    found, wanted = np.array(pairs).T
    return float(chi2.sf(((found - wanted) ** 2 / wanted).sum(), len(pairs) - lost))


# broken copies


class QueryNoiseWithoutQ(SparseVectorMechanism):
    """Yeses are paid for as if there were one."""

    def _ask(self, magnitudes: Steps32, threshold: int, scales: Scales, noise: NoiseSource) -> npt.NDArray[np.bool_]:
        return noise.laplace(magnitudes.size, scales.query / magnitudes.size) + magnitudes >= threshold


class ThresholdRedrawn(SparseVectorMechanism):
    """Every component meets a threshold of its own."""

    def _ask(self, magnitudes: Steps32, threshold: int, scales: Scales, noise: NoiseSource) -> npt.NDArray[np.bool_]:
        thresholds = scales.tau + noise.laplace(magnitudes.size, scales.threshold)
        return noise.laplace(magnitudes.size, scales.query) + magnitudes >= thresholds


class ThresholdWithoutNoise(SparseVectorMechanism):
    """The threshold is the public one."""

    def _ask(self, magnitudes: Steps32, threshold: int, scales: Scales, noise: NoiseSource) -> npt.NDArray[np.bool_]:
        return noise.laplace(magnitudes.size, scales.query) + magnitudes >= scales.tau


class ReleaseNoiseOmitted(SparseVectorMechanism):
    """The values that pass are sent as they are (the flaw of several published variants)."""

    def _noisy(self, steps: Steps32, scales: Scales, noise: NoiseSource) -> npt.NDArray[np.int64]:
        return steps.astype(np.int64)


class ReleaseNoiseWithoutQ(SparseVectorMechanism):
    def _noisy(self, steps: Steps32, scales: Scales, noise: NoiseSource) -> npt.NDArray[np.int64]:
        return steps + noise.laplace(steps.size, scales.release / steps.size)


class FirstByIndex(SparseVectorMechanism):
    """What passes is cut off after the first q by index, not by lot."""

    def _first(self, accepted: Steps32, wanted: int, noise: NoiseSource) -> Steps32:
        return accepted[:wanted]
