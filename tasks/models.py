"""The models that studies name by import path. Each is called as `Model(num_inputs, **options)` and gives one logit."""

from __future__ import annotations

import importlib

import torch
from torch import nn

from tasks.errors import ConfigError


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
        ConfigError: the path does not lead to a `torch.nn.Module`, or it does not take the options.
    """
    module, _, name = path.partition(":")
    try:
        model_class = getattr(importlib.import_module(module), name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = model_class(num_inputs, **options)
    except (ImportError, AttributeError, TypeError) as error:
        raise ConfigError(f"model.path {path!r} with options {options}: {error}") from None
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model.path {path!r} is no torch.nn.Module")
    return model
