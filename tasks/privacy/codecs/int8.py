"""Every component as one of 255 multiples of a scale: a quarter of the bytes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import torch

from tasks.errors import UpdateRejected
from tasks.privacy.codecs.codec import Codec, Vector, spec
from tasks.privacy.noise.source import NoiseSource
from tasks.store.records.round import TensorSpec
from tasks.store.weights import Weights
from tasks.study.codec import Int8

#: Levels on each side of zero; -128 is never sent.
LEVELS = 127
#: The largest scale whose every multiple is finite in float32.
MAX_SCALE = np.nextafter(np.float32(np.finfo(np.float32).max / LEVELS), np.float32(0))


@dataclass(frozen=True)
class Int8Codec(Codec):
    """Blocks of components, each on a scale of its own: its largest magnitude over 127.

    Each component is off by at most half the scale with `nearest`, by less than the scale with `stochastic`, which is
    right in the mean; up to the last bits of float32. A block of zeros has scale zero.

    Source: Alistarh et al. 2017 (QSGD, arXiv 1610.02132), with blocks.
    """

    settings: Int8

    @property
    def feeds_back(self) -> bool:
        return self.settings.error_feedback

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        return spec("scales", self._starts.size, "F32"), spec("values", self.shape.num_values, "I8")

    def pack(self, flat: Vector, noise: NoiseSource) -> Weights:
        largest = np.maximum.reduceat(np.abs(flat), self._starts).astype(np.float64)
        scales = np.minimum((largest / LEVELS).astype(np.float32), MAX_SCALE)
        each = self._spread(np.where(scales == 0, np.float32(np.inf), scales))
        levels = flat.astype(np.float64) / each if (scales < np.finfo(np.float32).tiny).any() else flat / each
        if self.settings.rounding == "stochastic":
            levels += noise.uniform(levels.size)
            np.floor(levels, out=levels)
        else:
            np.rint(levels, out=levels)
        np.clip(levels, -LEVELS, LEVELS, out=levels)
        return {"scales": torch.from_numpy(scales), "values": torch.from_numpy(levels.astype(np.int8))}

    def unpack(self, tensors: Weights, site: str) -> Vector:
        scales, levels = tensors["scales"].numpy(), tensors["values"].numpy()
        if not ((scales >= 0) & (scales <= MAX_SCALE)).all():  # NaN fails it too
            raise UpdateRejected(site, "a scale is negative, not finite or too large")
        if (levels < -LEVELS).any():
            raise UpdateRejected(site, f"a value is below -{LEVELS}")
        if (scales == 0).any() and levels[self._spread(scales) == 0].any():
            raise UpdateRejected(site, "a scale is zero, and a value on it is not")
        flat: Vector = levels * self._spread(scales)
        return flat

    @property
    def _starts(self) -> npt.NDArray[np.int64]:
        """Where each block begins."""
        if isinstance(self.settings.block, int):
            return np.arange(0, self.shape.num_values, self.settings.block)
        lengths = np.array([length for each in self.shape.specs if (length := prod(each.shape))], dtype=np.int64)
        return np.cumsum(lengths) - lengths

    def _spread(self, scales: Vector) -> Vector:
        """Each component's scale."""
        return np.repeat(scales, np.diff(self._starts, append=self.shape.num_values))
