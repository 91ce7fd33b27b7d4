"""The models that studies name by import path.

Each is called as `Model(num_inputs, **options)` and gives one value for a patient, (...); or as `Model(num_inputs,
num_outputs=k, **options)` and gives k of them, (..., k).
"""

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


class Linear(nn.Module):
    """One linear layer that starts at zero: least squares, Poisson, multinomial or Cox regression, as the task is."""

    def __init__(self, num_inputs: int, num_outputs: int | None = None) -> None:
        super().__init__()
        self.single = num_outputs is None
        self.linear = nn.Linear(num_inputs, num_outputs or 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(..., inputs) -> (...), or (..., num_outputs)."""
        outputs: torch.Tensor = self.linear(inputs)
        return outputs.squeeze(-1) if self.single else outputs


class ProportionalHazards(nn.Module):
    """A hazard for each interval, whose logit an input moves by the same in all of them; starts at zero."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_inputs, 1, bias=False)
        self.baseline = nn.Parameter(torch.zeros(num_outputs))
        nn.init.zeros_(self.linear.weight)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(..., inputs) -> (..., intervals) logits."""
        outputs: torch.Tensor = self.linear(inputs) + self.baseline
        return outputs


class MLP(nn.Module):
    """One hidden layer of `hidden` ReLU units."""

    def __init__(self, num_inputs: int, hidden: int = 16, num_outputs: int | None = None) -> None:
        super().__init__()
        self.single = num_outputs is None
        self.layers = nn.Sequential(nn.Linear(num_inputs, hidden), nn.ReLU(), nn.Linear(hidden, num_outputs or 1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(..., inputs) -> (...), or (..., num_outputs)."""
        outputs: torch.Tensor = self.layers(inputs)
        return outputs.squeeze(-1) if self.single else outputs
