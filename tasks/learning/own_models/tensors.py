"""What a model is made of: whether its parameters can travel, and what of them a call has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from pydantic import ValidationError
from torch import nn
from torch.nn.parameter import is_lazy

from tasks.errors import ConfigError
from tasks.foreign.bounds import MAX_TENSORS, MAX_WEIGHT
from tasks.learning.own_models.layers import owner
from tasks.learning.own_models.memory import memory
from tasks.store.records.round import TensorSpec
from tasks.store.weights import Weights, trainable


def built_alike(build: Callable[[], nn.Module], what: str) -> tuple[nn.Module, nn.Module]:
    """Two models that `build` makes, once what rounds know of them is known to be the same and able to travel.

    Raises:
        ConfigError: they are not; names the parameter or buffer.
    """
    with _showing_what_is_not_initialised():
        model, again = build(), build()
    _require_tensors(model, what)
    _require_covered(model, what)
    changed = unlike(state(model), state(again))
    if changed is not None:
        raise ConfigError(
            f"{what}: {changed} of {owner(model, changed)} differs each time the model is built: draw it from "
            "torch's global generator, which the study seeds, so that hub and sites have the same"
        )
    return model, again


def state(model: nn.Module) -> Weights:
    """Copies of all parameters and buffers by name."""
    return {n: tensor.detach().clone() for n, tensor in [*model.named_parameters(), *model.named_buffers()]}


def unlike(before: Weights, after: Weights) -> str | None:
    """The first name whose tensor is not the same in both; NaN equals NaN."""
    for name in [*before, *(name for name in after if name not in before)]:
        one, other = before.get(name), after.get(name)
        if one is None or other is None or one.shape != other.shape:
            return name
        if not bool(((one == other) | ((one != one) & (other != other))).all()):
            return name
    return None


def _require_covered(model: nn.Module, what: str) -> None:
    """Tensors are parameters and buffers: what lies elsewhere, no digest compares between hub and sites."""
    for name in memory(model).numbers:
        raise ConfigError(
            f"{what}: {name} of {owner(model, name)} is or holds a tensor or array that is neither parameter nor "
            "buffer, so nothing shows whether hub and sites have the same: register it (`register_buffer`, "
            "nn.Parameter, nn.ModuleList)"
        )


@contextmanager
def _showing_what_is_not_initialised() -> Iterator[None]:
    """Memory that nobody has written to reads as NaN (`torch.utils.deterministic.fill_uninitialized_memory`)."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch._C._set_deterministic_algorithms(True, warn_only=True)  # the public one imports a compiler: seconds
    try:
        yield
    finally:
        torch._C._set_deterministic_algorithms(before[0], warn_only=before[1])


def _require_tensors(model: nn.Module, what: str) -> None:
    """Trainable parameters can travel: as float32 on the CPU, finite, each in memory of its own."""
    places: dict[int, str] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        where = f"{what}: {name} of {owner(model, name)}"
        if is_lazy(tensor):
            raise ConfigError(f"{where} has no size before the first call: give the layer its number of inputs")
        if tensor.device.type != "cpu" or tensor.layout != torch.strided:
            raise ConfigError(f"{where} lies on {tensor.device} as {tensor.layout}: build it dense and on the CPU")
        if tensor.numel() and (other := places.setdefault(tensor.untyped_storage().data_ptr(), name)) != name:
            raise ConfigError(f"{where} lies in the memory of {other}: share the nn.Parameter itself, or clone it")
    own = trainable(model)
    if not 0 < len(own) <= MAX_TENSORS:
        raise ConfigError(f"{what} has {len(own)} trainable parameters, and a round needs 1 to {MAX_TENSORS}")
    for name, parameter in own.items():
        _require_sendable(parameter, name, f"{what}: {name} of {owner(model, name)}")


def _require_sendable(parameter: nn.Parameter, name: str, where: str) -> None:
    if parameter.dtype != torch.float32:
        raise ConfigError(f"{where} is {parameter.dtype}, and weights travel as float32: call .float() on the model")
    if not bool((parameter.abs() <= MAX_WEIGHT).all()):
        raise ConfigError(f"{where} starts at NaN, infinity or beyond {MAX_WEIGHT:g}: initialise it, see torch.nn.init")
    try:
        TensorSpec(name=name, shape=tuple(parameter.shape), dtype="F32")
    except ValidationError as error:
        raise ConfigError(f"{where} cannot be sent: its {error.errors()[0]['loc'][0]} is too long or odd") from None
