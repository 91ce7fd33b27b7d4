"""What every codec answers.

**Why a codec costs no epsilon.** A mechanism turns a site's data into releases y_1, y_2, ..., and its epsilon covers
all of them together, whoever sees them. What a codec uploads in round t is u_t = encode(y_t + r_(t-1)), and what it
keeps is r_t = y_t + r_(t-1) - decode(u_t), with r_0 = 0. By induction u_t and r_t are functions of y_1, ..., y_t and of
coins that know nothing of the data: post-processing. So even a stolen r_t tells no more than the releases do.

That holds for a residual of releases, and of nothing else: r is added after the mechanism, never to a raw update, and
it is kept under the name of the mechanism and codec that it came from (`tasks.privacy.sanitizer`). A residual of rounds
without privacy holds raw components that were never sent; in a private study's uploads they would be uncounted. Where
the mechanism is `none`, what is kept is raw, and it stays at the site.

Nothing of this holds behind masks, where what a mechanism puts into a sum is private only in the sum: such a vector is
not encoded (`tasks.study.fits`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch

from tasks.errors import PrivacyError, StoreError, UpdateRejected
from tasks.learning.flat import Shape
from tasks.privacy.noise.grid import to_float32
from tasks.privacy.noise.source import NoiseSource
from tasks.store.records.round import TensorSpec
from tasks.store.weights import Weights, from_bytes

Vector = npt.NDArray[np.float32]
#: The types of value that an upload may have.
DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.int32: "I32",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint8: "U8",
}


@dataclass(frozen=True)
class Codec(ABC):
    """One codec with its section of a study, for models of one shape.

    varies: tensors whose length depends on the values; `specs` has the most that there may be.
    """

    shape: Shape

    varies: ClassVar[frozenset[str]] = frozenset()

    @property
    @abstractmethod
    def specs(self) -> tuple[TensorSpec, ...]:
        """The tensors of an upload, by name in the order of the names."""

    @abstractmethod
    def pack(self, flat: Vector, noise: NoiseSource) -> Weights:
        """A finite vector, (parameters,), as tensors to upload. Raises PrivacyError: it cannot be sent so."""

    @abstractmethod
    def unpack(self, tensors: Weights, site: str) -> Vector:
        """The vector, (parameters,), of tensors that have the names, types and sizes of `specs`.

        Raises:
            UpdateRejected: no vector has such an encoding.
        """

    @property
    def feeds_back(self) -> bool:
        """Whether what an upload leaves out is added to the next release."""
        return False

    def encode(self, flat: Vector, kept: torch.Tensor | None, noise: NoiseSource) -> tuple[Weights, Vector | None]:
        """A release, (parameters,), as tensors to upload, and what is kept for the next round.

        Args:
            kept: what an earlier round has kept, (parameters,).

        Raises:
            PrivacyError: what was kept is of another model, or a value does not fit what is sent.

        Source: Seide et al. 2014 (1-bit SGD); Stich, Cordonnier & Jaggi 2018 (arXiv 1809.07599).
        """
        if kept is not None and self.feeds_back:
            if kept.shape != flat.shape:
                raise PrivacyError("what error feedback kept is of another model: remove the site's residual and go on")
            with np.errstate(over="ignore"):
                flat = to_float32(flat + kept.numpy())
        tensors = self.pack(flat, noise)
        return tensors, flat - self.unpack(tensors, "own") if self.feeds_back else None

    def admits(self, told: tuple[TensorSpec, ...]) -> bool:
        """Whether an upload may have these tensors: just the plan's, and where a length varies, no more of it."""
        return len(told) == len(self.specs) and all(map(self._fits, told, self.specs))

    def read(self, body: bytes | bytearray, site: str) -> torch.Tensor:
        """An upload as one flat float32 vector, (parameters,). Raises UpdateRejected."""
        try:
            tensors = from_bytes(body)
        except StoreError as error:
            raise UpdateRejected(site, str(error)) from None
        told = tuple(
            TensorSpec.model_construct(name=name, shape=tuple(tensor.shape), dtype=DTYPES.get(tensor.dtype, ""))
            for name, tensor in sorted(tensors.items())
        )
        if not self.admits(told):
            wanted = ", ".join(f"{s.name} {s.dtype} {list(s.shape)}" for s in self.specs[:4])
            most = " at most" if self.varies else ""
            raise UpdateRejected(site, f"its tensors are not those of the plan's codec: {wanted}{most}")
        return torch.from_numpy(self.unpack(tensors, site))

    def _fits(self, told: TensorSpec, own: TensorSpec) -> bool:
        if (told.name, told.dtype) != (own.name, own.dtype):
            return False
        return told.shape == own.shape or (
            own.name in self.varies and len(told.shape) == 1 and told.shape[0] <= own.shape[0]
        )


def spec(name: str, length: int, dtype: str) -> TensorSpec:
    """Of a tensor of one axis."""
    return TensorSpec.model_validate({"name": name, "shape": (length,), "dtype": dtype})
