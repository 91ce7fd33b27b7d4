"""The weighted average of updates: one pass over each, in memory that does not grow with the number of sites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import torch

from tasks.errors import StoreError, UpdateRejected
from tasks.privacy.mechanisms.compression import num_shared
from tasks.store.records import Plan, TensorSpec
from tasks.store.weights import Entry, Weights, from_bytes, read_header
from tasks.study.privacy import sent_fraction
from tasks.study.sections import Training

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
        return sum(_numel(spec) for spec in self.specs)


class StreamingMean:
    """Sum of weight * update, then divided by the sum of weights.

    Holds one accumulator of the model's size in float32; the caller holds one update at a time.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.total = torch.zeros(shape.num_values, dtype=torch.float32)
        self.weight = 0.0

    def add(self, update: torch.Tensor, weight: float) -> None:
        """Add a flat float32 update, (parameters,). Order matters in the last bit, so callers go by site name."""
        self.total.add_(update, alpha=weight)
        self.weight += weight

    def mean(self) -> Weights:
        """The average by parameter name. Raises ZeroDivisionError before the first `add`."""
        flat = self.total.mul_(1.0 / self.weight)
        pieces = torch.split(flat, [_numel(spec) for spec in self.shape.specs])
        return {spec.name: piece.view(spec.shape) for spec, piece in zip(self.shape.specs, pieces, strict=True)}


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


def read_update(body: bytearray | bytes, plan: Plan, shape: Shape, site: str) -> torch.Tensor:
    """An unmasked update as one flat float32 vector, (parameters,). Raises UpdateRejected."""
    if (fraction := sent_fraction(plan.privacy)) is not None:
        return sparse_update(body, shape, num_shared(fraction, shape.num_values), site)
    return flat_update(body, shape, site)


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


def norm(update: torch.Tensor) -> float:
    """The L2 norm of a flat float32 vector; relative error under 1e-5. NaN or infinity when the vector holds any.

    Many times faster than a norm in float64. Values beyond 1e19 overflow, so their norm is infinity.
    """
    whole = len(update) // _NORM_BLOCK * _NORM_BLOCK
    blocks = torch.linalg.vector_norm(update[:whole].view(-1, _NORM_BLOCK), dim=1).double()
    rest = torch.linalg.vector_norm(update[whole:]).double()
    return sqrt(float(blocks.square().sum() + rest.square()))


def weight_of(weighting: str, num_examples: int, local_iterations: int) -> float:
    """How much a site's update counts: by local iterations (the paper's), by samples, or all the same."""
    return float({"iterations": local_iterations, "samples": num_examples, "plain": 1}[weighting])


def add_to(base: Weights, delta: Weights) -> Weights:
    """base + delta, in place of delta."""
    return {name: delta[name].add_(base[name]) for name in base}


def averages(training: Training, server_round: int, total_rounds: int) -> bool:
    """Whether the model that counts after this round is a mean of iterates: in the second half of the rounds."""
    return training.average_iterates == "second_half" and 2 * server_round > total_rounds


def running_mean(previous: Weights, count: int, current: Weights) -> Weights:
    """The mean of `count` + 1 iterates, from the mean of the first `count` and the newest."""
    return {name: previous[name] + (current[name] - previous[name]) / (count + 1) for name in previous}


def _in_order(values: torch.Tensor, entries: Sequence[Entry]) -> torch.Tensor:
    """The values of these entries one after the other; those are `values` themselves when they lie like that."""
    begins = [entry.begin for entry in entries]
    if begins == sorted(begins):
        return values
    return torch.cat([values[entry.begin // 4 : entry.end // 4] for entry in entries])


def _numel(spec: TensorSpec) -> int:
    size = 1
    for length in spec.shape:
        size *= length
    return size
