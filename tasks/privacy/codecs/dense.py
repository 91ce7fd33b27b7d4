"""An update of which every component is sent, as it lies in a safetensors body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tasks.errors import StoreError, UpdateRejected
from tasks.learning.flat import Shape, flatten
from tasks.privacy.codecs.codec import Codec, Vector
from tasks.privacy.noise.source import NoiseSource
from tasks.store.records.round import TensorSpec
from tasks.store.weights import TensorEntry, Weights, read_header


@dataclass(frozen=True)
class DenseCodec(Codec):
    """Every component in float32, under the names and in the shapes of the model's parameters."""

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        return self.shape.specs

    def pack(self, flat: Vector, noise: NoiseSource) -> Weights:
        return self.shape.unflatten(torch.from_numpy(flat))

    def unpack(self, tensors: Weights, site: str) -> Vector:
        flat: Vector = flatten(tensors).numpy()
        return flat

    def read(self, body: bytes | bytearray, site: str) -> torch.Tensor:
        """The same without a copy where possible."""
        return flat_update(body, self.shape, site)


def flat_update(body: bytearray | bytes, shape: Shape, site: str) -> torch.Tensor:
    """View a safetensors body as one flat float32 vector in the order of `shape`, without a copy where possible.

    Raises:
        UpdateRejected: the body is no safetensors file of exactly these tensors.
    """
    try:
        entries, start = read_header(body)
    except StoreError as error:
        raise UpdateRejected(site, str(error)) from None
    if start + 4 * shape.num_values != len(body):
        raise UpdateRejected(site, f"{len(body)} bytes are not the {shape.num_values} float32 values of the model")
    if {(n, e.shape, e.dtype) for n, e in entries.items()} != {(s.name, s.shape, s.dtype) for s in shape.specs}:
        raise UpdateRejected(site, "names, shapes or types of its tensors are not those of the model")
    values = torch.frombuffer(body, dtype=torch.float32, offset=start)
    return _in_order(values, [entries[spec.name] for spec in shape.specs])


def _in_order(values: torch.Tensor, entries: Sequence[TensorEntry]) -> torch.Tensor:
    """The values of these entries one after the other; those are `values` themselves when they lie like that."""
    begins = [entry.begin for entry in entries]
    if begins == sorted(begins):
        return values
    return torch.cat([values[entry.begin // 4 : entry.end // 4] for entry in entries])
