"""Noise on an integer grid: where a mechanism's randomness comes from.

A mechanism takes a `NoiseSource`, so that what it adds can be seen and repeated in a test and cannot be in production.
`SystemNoise` keeps no key. A noise key that lives as long as the site could be stolen years later and would strip the
noise from every past release; a key that is drawn for one vector and dropped with it cannot. The price is that a
release cannot be drawn again, so it has to be stored before it is sent.
"""

from __future__ import annotations

import itertools
import os
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from tasks.errors import PrivacyError
from tasks.privacy.noise import keystream
from tasks.privacy.noise.keystream import KEY_BYTES, keyed_gaussian, keyed_laplace, keyed_subset, keyed_uniform

#: Above it, float64 would skip grid steps.
MAX_SCALE = 2**45
#: Up to so many values, 10 to 30 us each, `SystemNoise` takes OpenDP's exact samplers.
SMALL = 1024


def gaps(law: Literal["gaussian", "laplace"], size: int, scale: float) -> float:
    """How many of the `size` values of one call are expected where neighbours are more than a grid step apart.

    `scale` is the scale or sd in grid steps. What leaves is thus, but for an event of at most this probability, what
    exact noise would have made of it; derived in `tasks.privacy.noise.keystream`.
    """
    if size <= SMALL:
        return 0.0
    tail = scale * 2.0**-271
    if law == "laplace":
        return size * tail
    return (size + 1) // 2 * (tail + max(0.0, scale * scale * 2.0**-107 - 2.0**-32))


class NoiseSource(Protocol):
    """Draws independent noise with every call.

    All methods raise PrivacyError for a size or a scale that they cannot honour; nothing is drawn then.
    """

    def gaussian(self, size: int, sd: float) -> npt.NDArray[np.int64]:
        """(size,) integers from N(0, sd^2), rounded or discrete; sd in grid steps, 1 <= sd < 2^45."""

    def laplace(self, size: int, scale: float) -> npt.NDArray[np.int64]:
        """(size,) integers from Laplace(scale), rounded or discrete; scale in grid steps, 1 <= scale < 2^45."""

    def subset(self, population: int, size: int) -> npt.NDArray[np.int64]:
        """(size,) distinct integers of range(population), ascending; every such subset is equally likely."""

    def uniform(self, size: int) -> npt.NDArray[np.float32]:
        """(size,) numbers of [0, 1), multiples of 2^-24: coins to round by, and no noise to hide anything behind."""


class SystemNoise:
    """Noise for releases: fresh entropy of the operating system for every call, and nothing kept.

    Up to SMALL values: OpenDP's discrete Gaussian and discrete Laplace, exact in rational arithmetic (Canonne, Kamath
    and Steinke 2020). More: `tasks.privacy.noise.keystream`, which says how far it is from exact.
    """

    def gaussian(self, size: int, sd: float) -> npt.NDArray[np.int64]:
        _check(size, sd, "sd")
        return _exact("gaussian", size, sd) if size <= SMALL else keyed_gaussian(os.urandom(KEY_BYTES), size, sd)

    def laplace(self, size: int, scale: float) -> npt.NDArray[np.int64]:
        _check(size, scale, "scale")
        return _exact("laplace", size, scale) if size <= SMALL else keyed_laplace(os.urandom(KEY_BYTES), size, scale)

    def subset(self, population: int, size: int) -> npt.NDArray[np.int64]:
        _check_subset(population, size)
        return keyed_subset(os.urandom(KEY_BYTES), population, size)

    def uniform(self, size: int) -> npt.NDArray[np.float32]:
        return keyed_uniform(os.urandom(KEY_BYTES), size)


class SeededNoise:
    """Noise that can be repeated, for tests and simulation only: whoever has the seed can subtract it.

    The n-th call of two objects with one seed gives the same noise; successive calls are independent.

    Raises:
        PrivacyError: the seed is shorter than 32 bytes.
    """

    def __init__(self, seed: bytes) -> None:
        if len(seed) < KEY_BYTES:
            raise PrivacyError(f"the noise seed has {len(seed)} bytes; it must have at least {KEY_BYTES}")
        self._seed = seed
        self._calls = itertools.count()

    def derive(self, *context: str) -> SeededNoise:
        """An independent source bound to every part of `context`; the same context gives the same source."""
        return SeededNoise(keystream.derive_key(self._seed, "derive", *context))

    def gaussian(self, size: int, sd: float) -> npt.NDArray[np.int64]:
        _check(size, sd, "sd")
        return keyed_gaussian(self._next_key(), size, sd)

    def laplace(self, size: int, scale: float) -> npt.NDArray[np.int64]:
        _check(size, scale, "scale")
        return keyed_laplace(self._next_key(), size, scale)

    def subset(self, population: int, size: int) -> npt.NDArray[np.int64]:
        _check_subset(population, size)
        return keyed_subset(self._next_key(), population, size)

    def uniform(self, size: int) -> npt.NDArray[np.float32]:
        return keyed_uniform(self._next_key(), size)

    def _next_key(self) -> bytes:
        return keystream.derive_key(self._seed, "call", str(next(self._calls)))


def _check(size: int, scale: float, name: str) -> None:
    if size < 0:
        raise PrivacyError(f"{size} values of noise cannot be drawn; the size must be at least 0")
    if not 1 <= scale < MAX_SCALE:  # NaN fails it too
        raise PrivacyError(f"noise of {name} {scale} grid steps cannot be drawn; it must lie in [1, 2^45)")


def _check_subset(population: int, size: int) -> None:
    if not 0 <= size <= population:
        raise PrivacyError(
            f"a subset of {size} out of {population} cannot be drawn; its size must lie in [0, {population}]"
        )


def _exact(law: str, size: int, scale: float) -> npt.NDArray[np.int64]:
    """OpenDP's noise, which it only gives as a measurement: that of a vector of zeros."""
    from opendp import domains, measurements, metrics, mod  # 60 ms that a site without small vectors does not pay

    mod.enable_features("contrib")
    zeros = domains.vector_domain(domains.atom_domain(T="i64"))
    measurement: Any
    if law == "gaussian":
        measurement = measurements.make_gaussian(zeros, metrics.l2_distance(T="f64"), scale=float(scale))
    else:
        measurement = measurements.make_laplace(zeros, metrics.l1_distance(T="f64"), scale=float(scale))
    return np.array(measurement([0] * size), dtype=np.int64)
