"""An update of which only some components are sent: those that are not zero."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch

from tasks.errors import PrivacyError, UpdateRejected
from tasks.privacy.codecs.codec import Codec, Vector, spec
from tasks.privacy.codecs.indices import max_bytes, pack_indices, unpack_indices
from tasks.privacy.noise.source import NoiseSource
from tasks.store.records.round import TensorSpec
from tasks.store.weights import Weights
from tasks.study.codec import Random, Top


@dataclass(frozen=True, eq=False)
class Components:
    """Components of a vector; the others count as zero.

    Attributes:
        indices: (components,) strictly ascending.
        values: (components,) finite, in the order of `indices`.
        size: of the whole vector.
        shortfall: components that should have been sent and were not (`tasks.privacy.mechanisms.svt`).

    Raises:
        PrivacyError: it is not so.
    """

    indices: npt.NDArray[np.int32] = field(repr=False)
    values: npt.NDArray[np.float32] = field(repr=False)
    size: int
    shortfall: int = 0

    def __post_init__(self) -> None:
        indices, values = self.indices, self.values
        typed = indices.dtype == np.int32 and values.dtype == np.float32
        if not typed or indices.shape != values.shape or values.ndim != 1:
            raise PrivacyError(
                "sparse components need int32 indices and float32 values of one length, "
                f"not {indices.dtype} {indices.shape} and {values.dtype} {values.shape}"
            )
        if indices.size and not (indices[0] >= 0 and indices[-1] < self.size and (indices[1:] > indices[:-1]).all()):
            raise PrivacyError(f"sparse indices must ascend within 0 to {self.size - 1}, each of them once")
        if not np.isfinite(values).all():
            raise PrivacyError("a sparse value is not finite in float32: the update is refused")

    def dense(self) -> npt.NDArray[np.float32]:
        """(size,) with zeros where nothing was sent."""
        whole = np.zeros(self.size, dtype=np.float32)
        whole[self.indices] = self.values
        return whole


def num_shared(fraction: float, size: int) -> int:
    """How many of `size` components are sent: the nearest to the fraction, and at least one.

    Raises:
        PrivacyError: the fraction is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise PrivacyError(f"a fraction of {fraction} cannot be sent; it must be above 0 and at most 1")
    return max(1, round(fraction * size))


@dataclass(frozen=True)
class SomeComponents(Codec):
    """What codecs have in common that send some components: their indices as bits, and their values in float32."""

    varies: ClassVar[frozenset[str]] = frozenset({"indices"})

    @property
    def most(self) -> int:
        """How many are sent at most."""
        return self.shape.num_values

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        return spec("indices", max_bytes(self.shape.num_values), "U8"), spec("values", self.most, "F32")

    def unpack(self, tensors: Weights, site: str) -> Vector:
        values, flat = tensors["values"].numpy(), np.zeros(self.shape.num_values, dtype=np.float32)
        try:
            flat[unpack_indices(tensors["indices"].numpy(), values.size, flat.size)] = values
        except ValueError as error:
            raise UpdateRejected(site, str(error)) from None
        return flat


@dataclass(frozen=True)
class ChosenComponents(SomeComponents):
    """Those that send as many as the study's fraction, with error feedback where it asks for it."""

    settings: Top | Random

    @property
    def feeds_back(self) -> bool:
        return self.settings.error_feedback

    @property
    def most(self) -> int:
        return num_shared(self.settings.fraction, self.shape.num_values)


@dataclass(frozen=True)
class SparseCodec(SomeComponents):
    """Every component that is not zero: nothing is lost. `most`: of what its mechanism releases."""

    largest: int

    varies: ClassVar[frozenset[str]] = frozenset({"indices", "values"})

    @property
    def most(self) -> int:
        return self.largest

    def pack(self, flat: Vector, noise: NoiseSource) -> Weights:
        return as_tensors(flat, np.flatnonzero(flat))


def as_tensors(flat: Vector, indices: npt.NDArray[np.integer]) -> Weights:
    """These components of a vector, (parameters,), ready to upload."""
    return {"indices": torch.from_numpy(pack_indices(indices)), "values": torch.from_numpy(flat[indices])}
