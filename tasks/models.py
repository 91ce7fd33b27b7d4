"""The models that studies name by import path. Each is called as `Model(num_inputs, **options)` and gives one logit."""

from __future__ import annotations

import torch
from torch import nn


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
