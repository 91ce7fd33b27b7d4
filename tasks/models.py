"""The models that studies name by import path. Each is called as `Model(num_inputs, **options)` and gives one logit."""

from __future__ import annotations

import importlib

import torch
from torch import nn

from tasks.errors import ConfigError
from tasks.model_policy import require_allowed


class LogisticRegression(nn.Module):
    """One linear layer; starts at zero, so every site knows the first model without being told."""

    def __init__(self, num_inputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_inputs, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(..., inputs) -> (...) logits."""
        logits: torch.Tensor = self.linear(inputs).squeeze(-1)
        return logits


class MLP(nn.Module):
    """One hidden layer of `hidden` ReLU units."""

    def __init__(self, num_inputs: int, hidden: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(num_inputs, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(..., inputs) -> (...) logits."""
        logits: torch.Tensor = self.layers(inputs).squeeze(-1)
        return logits


def build_model(path: str, num_inputs: int, options: dict[str, object], *, seed: int) -> nn.Module:
    """Import `module:Class` and build it with seeded initial weights; the global generator is left as it was.

    Raises:
        ConfigError: this site does not allow the module (see `tasks.model_policy`), the path does not lead to a class
            of `torch.nn.Module`, or the class does not take the options.
    """
    model_class = _model_class(path)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return model_class(num_inputs, **options)
    except Exception as error:  # a model of the site's own may raise anything; options of a size beyond memory do
        raise ConfigError(f"model.path {path!r} with options {options}: {type(error).__name__}: {error}") from None


def _model_class(path: str) -> type[nn.Module]:
    """What `path` names, once it is known to be a class of models: nothing else is ever called."""
    module, _, name = path.partition(":")
    require_allowed(module)
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"model.path {path!r}: {error}") from None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ConfigError(f"model.path {path!r} is no torch.nn.Module: name a class of models")
    return found
