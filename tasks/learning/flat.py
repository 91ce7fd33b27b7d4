"""Named weights as one flat vector, and back: always in the order of the names."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod, sqrt

import torch

from tasks.store.records.round import TensorSpec
from tasks.store.weights import Weights

#: Values whose squares are summed in float32 before the sum goes on in float64.
_NORM_BLOCK = 1 << 16


@dataclass(frozen=True)
class Shape:
    """Names and shapes of a model's parameters, and where each lies in a safetensors body of float32."""

    specs: tuple[TensorSpec, ...]

    @classmethod
    def of(cls, weights: Weights) -> Shape:
        """Of a model's weights."""
        return cls(tuple(TensorSpec(name=n, shape=tuple(t.shape), dtype="F32") for n, t in weights.items()))

    @property
    def num_values(self) -> int:
        """Parameters in all."""
        return sum(prod(spec.shape) for spec in self.specs)

    def unflatten(self, flat: torch.Tensor) -> Weights:
        """A vector of these parameters, (parameters,), by name; views, not copies."""
        pieces = torch.split(flat, [prod(spec.shape) for spec in self.specs])
        return {spec.name: piece.view(spec.shape) for spec, piece in zip(self.specs, pieces, strict=True)}


def flatten(weights: Weights, *, batch_dims: int = 0) -> torch.Tensor:
    """All values in one vector, (parameters,); behind `batch_dims` axes that all tensors share, such as patients."""
    rows = [(weights[name], weights[name].shape) for name in sorted(weights)]
    return torch.cat([w.reshape(*shape[:batch_dims], prod(shape[batch_dims:])) for w, shape in rows], dim=batch_dims)


def unflatten(flat: torch.Tensor, like: Weights) -> Weights:
    """The same values, (parameters,), under the names and in the shapes of `like`; views, not copies."""
    names = sorted(like)
    pieces = torch.split(flat, [like[name].numel() for name in names])
    return {name: piece.reshape(like[name].shape) for name, piece in zip(names, pieces, strict=True)}


def norm(update: torch.Tensor) -> float:
    """The L2 norm of a flat float32 vector; relative error under 1e-5. NaN or infinity when the vector holds any.

    Many times faster than a norm in float64. Values beyond 1e19 overflow, so their norm is infinity.
    """
    whole = len(update) // _NORM_BLOCK * _NORM_BLOCK
    blocks = torch.linalg.vector_norm(update[:whole].view(-1, _NORM_BLOCK), dim=1).double()
    rest = torch.linalg.vector_norm(update[whole:]).double()
    return sqrt(float(blocks.square().sum() + rest.square()))
