"""Weights as safetensors bytes, in one canonical form: by name, in the order of the names.

Safetensors keeps no order of its own, so every flat view of a model (a gradient, an update) goes by sorted name.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

import tasks.store.kernels  # noqa: F401  # chosen before anything is computed
from tasks.errors import StoreError
from tasks.foreign.bounds import MAX_NAME, MAX_RANK, MAX_TENSORS, MAX_VALUES
from tasks.store import layout
from tasks.store.objects import ObjectStore
from tasks.store.records.model import ModelRef

Weights = dict[str, torch.Tensor]

#: A safetensors header may have this many bytes, and a model this many with it.
MAX_HEADER, MAX_MODEL = 1 << 20, 1 << 32
#: The types that a tensor may have, and the bytes of one value. No bool: a byte that is neither 0 nor 1 is no value.
DTYPE_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
}


class TensorEntry(NamedTuple):
    """One tensor as a safetensors header describes it: its bytes lie from `begin` to `end` after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def sha256(body: bytes | bytearray) -> str:
    """Hex digest."""
    return hashlib.sha256(body).hexdigest()


def to_bytes(weights: Weights) -> bytes:
    """Safetensors bytes; the same weights give the same bytes."""
    return save({name: tensor.detach().contiguous() for name, tensor in weights.items()})


def from_bytes(body: bytes | bytearray) -> Weights:
    """Parse safetensors bytes, after every line of their header is checked. Raises StoreError when they are none."""
    read_header(body)
    try:
        return dict(sorted(load(bytes(body)).items()))
    except (SafetensorError, ValueError) as error:
        raise StoreError(f"not safetensors: {type(error).__name__}") from None


def read_header(body: bytes | bytearray) -> tuple[dict[str, TensorEntry], int]:
    """The tensors of a safetensors body by name, and where their bytes begin. Reads the header and copies nothing else.

    Raises:
        StoreError: the header is too large or no such JSON, a tensor has a type, shape or name that none may have, or
            the tensors do not fill the rest of the body exactly, without gap or overlap.
    """
    size = int.from_bytes(body[:8], "little")
    start = 8 + size
    if not 2 <= size <= MAX_HEADER or start > len(body):
        raise StoreError(f"not safetensors: no header of 2 to {MAX_HEADER} bytes")
    found = _parsed_header(bytes(memoryview(body)[8:start]))
    metadata = found.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise StoreError("not safetensors: its metadata are no texts")
    if len(found) > MAX_TENSORS:
        raise StoreError(f"not safetensors: {len(found)} tensors, more than {MAX_TENSORS}")
    entries = {name: _entry(name, described) for name, described in found.items()}
    _require_cover(entries, len(body) - start)
    return entries, start


def _parsed_header(raw: bytes) -> dict[str, object]:
    try:
        found = json.loads(raw.decode(), object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"not safetensors: its header cannot be read ({type(error).__name__})") from None
    if not isinstance(found, dict):
        raise StoreError("not safetensors: its header is no object")
    return found


def _without_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object whose keys differ: of two equal ones, each reader might take another."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice")
    return made


def _entry(name: str, described: object) -> TensorEntry:
    """One line of a header, checked by itself."""
    if not name.isprintable() or len(name) > MAX_NAME:
        raise StoreError("not safetensors: a tensor's name is too long or cannot be printed")
    if not isinstance(described, dict) or described.keys() != {"dtype", "shape", "data_offsets"}:
        raise StoreError(f"not safetensors: tensor {name} has not just dtype, shape and data_offsets")
    dtype, shape, offsets = described["dtype"], described["shape"], described["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise StoreError(f"not safetensors: tensor {name} has a type that is not allowed")
    if not _are_lengths(shape) or len(shape) > MAX_RANK or math.prod(max(n, 1) for n in shape) > MAX_VALUES:
        raise StoreError(f"not safetensors: tensor {name} has a shape that is not allowed")
    if not _are_lengths(offsets) or len(offsets) != 2:
        raise StoreError(f"not safetensors: tensor {name} has no data_offsets")
    entry = TensorEntry(dtype, tuple(shape), *offsets)
    if entry.end - entry.begin != math.prod(shape) * DTYPE_BYTES[dtype]:
        raise StoreError(f"not safetensors: tensor {name} does not lie where its header says")
    return entry


def _are_lengths(found: object) -> bool:
    return isinstance(found, list) and all(type(n) is int and 0 <= n <= MAX_VALUES for n in found)


def _require_cover(entries: dict[str, TensorEntry], num_bytes: int) -> None:
    position = 0
    for begin, end in sorted((entry.begin, entry.end) for entry in entries.values()):
        if begin != position:
            raise StoreError("not safetensors: its tensors overlap or leave gaps")
        position = end
    if position != num_bytes:
        raise StoreError("not safetensors: its tensors overlap or leave gaps")


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training changes, by name, in the order of the names: those that travel.

    A parameter that two layers share is there once. Frozen ones (`requires_grad_(False)`) and buffers stay what the
    model's class makes of them.
    """
    return dict(sorted((name, found) for name, found in model.named_parameters() if found.requires_grad))


def fixed(model: nn.Module) -> Weights:
    """What no round changes, by name: frozen parameters and buffers."""
    frozen = {name: found.detach() for name, found in model.named_parameters() if not found.requires_grad}
    return dict(sorted((frozen | dict(model.named_buffers())).items()))


def fixed_sha256(model: nn.Module) -> str | None:
    """Digest of what no round changes, which hub and sites build each for themselves; None where there is nothing."""
    digest, found = hashlib.sha256(), fixed(model)
    for name, tensor in found.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest() if found else None


def parameters(model: nn.Module) -> Weights:
    """The model's trainable parameters by name, detached copies, in the order of the names."""
    return {name: parameter.detach().clone() for name, parameter in trainable(model).items()}


def fixed_in_float64(model: nn.Module) -> Weights:
    """Copies of what no round changes, in float64 where it is floating point, for `torch.func.functional_call`."""
    return {name: t.double() if t.is_floating_point() else t.clone() for name, t in fixed(model).items()}


def in_float64(model: nn.Module) -> tuple[Weights, Weights]:
    """The model's trainable parameters, and the rest, in float64, for `functional_call`: no deep copy."""
    return {name: weights.double() for name, weights in parameters(model).items()}, fixed_in_float64(model)


def lay_out(model: nn.Module) -> nn.Module:
    """Give every trainable parameter memory of its own, one value after the other: fused optimizers read it so."""
    for parameter in trainable(model).values():
        parameter.data = parameter.data.contiguous()
    return model


def set_parameters(model: nn.Module, weights: Weights) -> None:
    """Copy weights into the model. Raises StoreError when names or shapes differ."""
    own = trainable(model)
    if {n: p.shape for n, p in own.items()} != {n: t.shape for n, t in weights.items()}:
        raise StoreError("the stored model's tensors are not those of the study's model: was model.path changed?")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])


def fetch_model(store: ObjectStore, ref: ModelRef) -> Weights:
    """Read a model and check its digest. Raises StoreError when the bytes are not the pinned ones."""
    body = store.get(ref.key, max_bytes=MAX_MODEL)
    if sha256(body) != ref.sha256:
        raise StoreError(f"{ref.key} is not the model that was promised: its sha256 differs; {layout.remedy(ref.key)}")
    return from_bytes(body)
