"""Made-up patients to try a model on, and whether what it makes of them is the same."""

from __future__ import annotations

import torch
from torch import nn

from tasks.store.weights import trainable

#: Made-up patients: the centre, both corners of what clipping leaves, and more in between. What a model does with a
#: few it need not do with hundreds.
FEW, MANY = 8, 300
#: A logit's last bits depend on who is beside the patient; what they say does not.
_CLOSE = 1e-3


def made_up_rows(limits: tuple[float, ...]) -> torch.Tensor:
    """Made-up patients within the limits, (MANY, inputs): the first is the centre of every input."""
    edge = torch.tensor(limits)
    parts = torch.rand(MANY - 3, len(limits), generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.cat([torch.zeros(1, len(limits)), edge[None], -edge[None], parts * edge])


def shift(model: nn.Module, size: float) -> None:
    """Take a step of this size from the weights, the same for each model of a class."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=size)


def is_row(patient: int, together: torch.Tensor, alone: torch.Tensor) -> bool:
    """Whether `alone` is a row of `together`, as far as one can tell: not every layer goes by rows."""
    if not together.ndim or not alone.is_floating_point():
        return True
    row = together[patient : patient + 1]
    return row.shape != alone.shape or near(row, alone)


def are_rows(kept: slice, one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether these rows are the same in both, as far as one can tell."""
    if not one.ndim or one.shape != other.shape or not one.is_floating_point():
        return True
    return near(one[kept], other[kept])


def near(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal but for what rounding makes of them."""
    one, other = one.detach(), other.detach()
    largest = float(other.abs().nan_to_num().max())
    return torch.allclose(one, other, rtol=_CLOSE, atol=_CLOSE * (1 + largest), equal_nan=True)
