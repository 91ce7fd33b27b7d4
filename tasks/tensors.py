"""Weights as safetensors bytes, in one canonical form: by name, in the order of the names.

Safetensors keeps no order of its own, so every flat view of a model (a gradient, an update) goes by sorted name.
"""

from __future__ import annotations

import hashlib

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from tasks.errors import StoreError
from tasks.records import ModelRef
from tasks.storage import ObjectStore

Weights = dict[str, torch.Tensor]


def sha256(body: bytes | bytearray) -> str:
    """Hex digest."""
    return hashlib.sha256(body).hexdigest()


def to_bytes(weights: Weights) -> bytes:
    """Safetensors bytes; the same weights give the same bytes."""
    return save({name: tensor.detach().contiguous() for name, tensor in weights.items()})


def from_bytes(body: bytes) -> Weights:
    """Parse safetensors bytes. Raises StoreError when they are none."""
    try:
        return dict(sorted(load(body).items()))
    except (SafetensorError, ValueError) as error:
        raise StoreError(f"not safetensors: {type(error).__name__}") from None


def parameters(model: nn.Module) -> Weights:
    """The model's trainable parameters by name, detached copies, in the order of the names."""
    return {name: parameter.detach().clone() for name, parameter in sorted(model.named_parameters())}


def in_float64(model: nn.Module) -> tuple[Weights, Weights]:
    """The model's parameters and buffers in float64, for `torch.func.functional_call`: no deep copy."""
    buffers = {name: b.double() if b.is_floating_point() else b.clone() for name, b in model.named_buffers()}
    return {name: weights.double() for name, weights in parameters(model).items()}, buffers


def set_parameters(model: nn.Module, weights: Weights) -> None:
    """Copy weights into the model. Raises StoreError when names or shapes differ."""
    own = dict(model.named_parameters())
    if {n: p.shape for n, p in own.items()} != {n: t.shape for n, t in weights.items()}:
        raise StoreError("the stored model's tensors are not those of the study's model: was model.path changed?")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])


def fetch_model(store: ObjectStore, ref: ModelRef) -> Weights:
    """Read a model and check its digest. Raises StoreError when the bytes are not the pinned ones."""
    body = store.get(ref.key)
    if sha256(body) != ref.sha256:
        raise StoreError(f"{ref.key} is not the model that was promised: its sha256 differs")
    return from_bytes(body)
