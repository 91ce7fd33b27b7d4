"""Which layer of a model is at fault: found by hooks, for the sentence that refuses the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

#: Layers that models often have and rounds cannot use, and what to take instead.
_INSTEAD: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.modules.batchnorm._NormBase, "take nn.GroupNorm or nn.LayerNorm instead"),
    (nn.modules.dropout._DropoutNd, "leave it out: clipping and noise keep a model from overfitting"),
)


def layer_named(model: nn.Module, name: str) -> str:
    """A layer as a sentence has it: `layer n.1 (BatchNorm1d)`; the model itself: `its forward`."""
    return f"layer {name} ({type(model.get_submodule(name)).__name__})" if name else "its forward"


def owner(model: nn.Module, tensor: str) -> str:
    """The layer of a parameter or buffer."""
    name = tensor.rpartition(".")[0]
    return layer_named(model, name) if name else type(model).__name__


def instead(model: nn.Module, name: str, otherwise: str) -> str:
    """What to take instead of the layer of this name."""
    layer = model.get_submodule(name)
    return next((remedy for kind, remedy in _INSTEAD if isinstance(layer, kind)), otherwise)


def reshaped(found: torch.Tensor, needed: tuple[int, ...]) -> str:
    """What makes the outputs that the task needs of these, as a sentence has it."""
    if len(needed) > 1:
        return f"give {needed[1]} logits for each patient"
    if found.shape == (*needed, 1):
        return "squeeze the last dimension, `.squeeze(-1)`"
    if found.ndim == 0:
        return "squeeze the last dimension only, `.squeeze(-1)`"
    return "give one logit for each patient"


def failing_layer(model: nn.Module, compute: Callable[[], object]) -> str:
    """The name of the innermost layer in which `compute` fails once more; empty for the model's own forward."""
    inside: list[str] = []

    def enter(name: str, *_: object) -> None:
        inside.append(name)

    def leave(*_: object) -> None:
        inside.pop()

    with _hooks(model, enter, leave), suppress(Exception):
        compute()
    return inside[-1] if inside else ""


class Call(NamedTuple):
    """One layer's part in a call: its name, empty for the model, and the tensors that it was given and has made."""

    name: str
    given: torch.Tensor
    made: torch.Tensor


def calls(model: nn.Module, rows: torch.Tensor) -> list[Call]:
    """What each layer makes of these rows, in the order in which the layers end; the model itself is last."""
    found: list[Call] = []

    def leave(name: str, _layer: nn.Module, given: tuple[object, ...], made: object) -> None:
        if given and isinstance(given[0], torch.Tensor) and isinstance(made, torch.Tensor):
            found.append(Call(name, given[0].detach().clone(), made.detach().clone()))

    with _hooks(model, lambda *_: None, leave), torch.no_grad():
        model(rows)
    return found


def first_unlike(
    model: nn.Module, one: torch.Tensor, other: torch.Tensor, like: Callable[[torch.Tensor, torch.Tensor], bool]
) -> str:
    """The first layer that is given `like` inputs in two batches and makes unlike outputs; empty for the model."""
    for first, second in zip(calls(model, one), calls(model, other), strict=False):
        if not like(first.made, second.made):
            return first.name if like(first.given, second.given) else ""
    return ""


@contextmanager
def _hooks(model: nn.Module, enter: Callable[..., None], leave: Callable[..., None]) -> Iterator[None]:
    """Call `enter(name, layer, inputs)` and `leave(name, layer, inputs, output)` around every layer."""
    hooks = []
    for name, layer in model.named_modules():
        hooks += [
            layer.register_forward_pre_hook(partial(enter, name)),
            layer.register_forward_hook(partial(leave, name)),
        ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
