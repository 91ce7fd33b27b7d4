"""What a model holds beside its parameters and buffers: in attributes, and in what its own code can reach.

None of it travels and no digest covers it, so it may hold no numbers of the model, and no call may change it.
"""

from __future__ import annotations

import dis
import functools
import random
import types
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

#: Of a layer's own dictionary, what is no memory or is looked at by itself.
_ELSEWHERE = {"training", "_modules"}
_PLAIN = (type(None), bool, int, float, complex, str, bytes, np.generic, torch.Size)
_CONTAINERS = (list, tuple, set, frozenset, deque)
Leaf = tuple[object, ...]


@dataclass
class Memory:
    """What was found, by the name of the attribute or global; and which of them hold tensors or arrays."""

    leaves: dict[str, list[Leaf]] = field(default_factory=lambda: defaultdict(list))
    numbers: list[str] = field(default_factory=list)

    def unlike(self, other: Memory) -> str | None:
        """The first name that is not the same in both."""
        names = [*self.leaves, *(name for name in other.leaves if name not in self.leaves)]
        return next((name for name in names if self.leaves.get(name) != other.leaves.get(name)), None)


def memory(model: nn.Module) -> Memory:
    """What is there now: attributes of every layer, and what `forward` of the model's own package reaches.

    That is class attributes, globals, closures and defaults of its functions; not what other packages keep.
    """
    walk = _Walk(model)
    for prefix, layer in model.named_modules():
        start = f"{prefix}." if prefix else ""
        for name, value in vars(layer).items():
            if name not in _ELSEWHERE:
                walk.visit(start + name, value)
        walk.visit_class(start, type(layer))
    return walk.found


class _Walk:
    def __init__(self, model: nn.Module) -> None:
        self.found = Memory()
        self.package = type(model).__module__.partition(".")[0]
        tensors = [*model.parameters(), *model.buffers()]
        #: By id, and kept, so that no id is given twice.
        self.seen: dict[int, object] = {id(each): each for each in [*tensors, *model.modules()]}

    def visit(self, name: str, value: Any) -> None:
        """Add what `value` holds under `name`."""
        if isinstance(value, _PLAIN):
            self.found.leaves[name].append((type(value), repr(value)))
        elif id(value) not in self.seen:
            self.seen[id(value)] = value
            self._look_into(name, value)

    def _look_into(self, name: str, value: Any) -> None:
        leaves = self.found.leaves[name]
        if isinstance(value, torch.Tensor | np.ndarray):
            leaves.append(_numbers(value))
            if not (isinstance(value, torch.Tensor) and value.grad_fn is not None):  # computed from parameters
                self.found.numbers.append(name)
        elif isinstance(value, torch.Generator | np.random.Generator | np.random.RandomState | random.Random):
            leaves.append((type(value), _drawn(value)))
        else:
            leaves.append((type(value), len(value)) if isinstance(value, (Mapping, *_CONTAINERS)) else _same(value))
            for part_name, part in self._parts(name, value):
                self.visit(part_name, part)

    def _parts(self, name: str, value: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(value, Mapping):
            yield from ((name, part) for pair in value.items() for part in pair)
        elif isinstance(value, _CONTAINERS):
            yield from ((name, part) for part in value)
        elif isinstance(value, functools.partial):
            yield from ((name, part) for part in (value.func, value.args, value.keywords))
        elif isinstance(value, types.MethodType):
            yield from ((name, part) for part in (value.__func__, value.__self__))
        elif self._is_own(value) and isinstance(value, types.FunctionType):
            yield from _reach(name, value)
        elif self._is_own(value) and hasattr(value, "cache_info"):
            yield from ((name, part) for part in (tuple(value.cache_info())[1:], value.__wrapped__))
        elif isinstance(value, nn.Module | types.SimpleNamespace) or self._is_own(type(value)):
            yield from ((name, part) for key, part in getattr(value, "__dict__", {}).items() if key != "training")

    def visit_class(self, start: str, layer_class: type) -> None:
        """Attributes of the class, and the functions that `forward` calls by name."""
        held = {n: v for c in reversed(layer_class.__mro__) if self._is_own(c) for n, v in vars(c).items()}
        held = {name: getattr(value, "__func__", value) for name, value in held.items()}
        wanted, known = ["forward", "train"], set[str]()
        while wanted:
            name = wanted.pop()
            if name not in known and isinstance(held.get(name), types.FunctionType):
                known.add(name)
                self.visit(name, held[name])
                wanted += [each for code in _codes(held[name].__code__) for each in code.co_names]
        for name, value in held.items():
            if not isinstance(value, types.FunctionType) and not name.startswith("__"):
                self.visit(start + name, value)

    def _is_own(self, value: Any) -> bool:
        return str(getattr(value, "__module__", "")).partition(".")[0] == self.package


def _same(value: object) -> Leaf:
    """Equal for the same object only, which is kept so that its id stays its own."""
    return type(value), id(value), value


def _numbers(value: torch.Tensor | np.ndarray[Any, Any]) -> Leaf:
    try:
        found = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
        return found.dtype.str, found.shape, found.tobytes()
    except (RuntimeError, TypeError):  # what torch.func left behind, or a type that NumPy has not
        return _same(value)


def _drawn(value: Any) -> str:
    if isinstance(value, torch.Generator):
        return value.get_state().numpy().tobytes().hex()
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    state = value.getstate() if isinstance(value, random.Random) else value.get_state(legacy=True)[1].tolist()
    return repr(state)


def _reach(name: str, function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function can read or write: its closure and defaults, under its holder's name, and globals by theirs."""
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # nothing in it yet
            yield name, cell.cell_contents
    yield from ((name, part) for part in (function.__defaults__, function.__kwdefaults__))
    for code in _codes(function.__code__):
        for line in dis.get_instructions(code):
            if line.opname.endswith("_GLOBAL") and line.argval in function.__globals__:
                yield str(line.argval), function.__globals__[line.argval]


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)
