"""An update of which only some components are sent."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tasks.errors import PrivacyError


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
