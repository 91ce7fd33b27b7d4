"""An update of which only some components are sent."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from tasks.errors import PrivacyError, StoreError, UpdateRejected
from tasks.learning.flat import Shape
from tasks.store.weights import from_bytes


@dataclass(frozen=True, eq=False)
class Sparse:
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


def sparse_update(body: bytes | bytearray, shape: Shape, max_values: int, site: str) -> torch.Tensor:
    """A flat float32 vector, (parameters,), from a safetensors body of sorted int32 `indices` and float32 `values`.

    Raises:
        UpdateRejected: other tensors, more than `max_values`, or indices that are not sorted, twice, or out of range.
    """
    try:
        tensors = from_bytes(body)
        indices, values = tensors["indices"], tensors["values"]
    except (StoreError, KeyError):
        raise UpdateRejected(site, "no safetensors body of indices and values") from None
    if len(tensors) != 2 or (indices.dtype, values.dtype) != (torch.int32, torch.float32):
        raise UpdateRejected(site, "indices must be int32 and values float32, and nothing else")
    if indices.ndim != 1 or indices.shape != values.shape or len(indices) > max_values:
        raise UpdateRejected(site, f"one index a value and at most {max_values} values are allowed")
    places = indices.long()  # in int32, the difference of two indices may wrap around and look like a rise
    if len(places) and (places[0] < 0 or places[-1] >= shape.num_values or (places.diff() <= 0).any()):
        raise UpdateRejected(site, f"indices must rise from 0 on and stay below {shape.num_values}")
    flat = torch.zeros(shape.num_values, dtype=torch.float32)
    flat[places] = values
    return flat
