"""The loss that is trained on: of a batch in the local loop, of one patient where each one's part is bounded."""

from __future__ import annotations

import torch
from torch import nn


def mean_log_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood in nats over the patients of logits and 0/1 labels of one shape: a scalar."""
    return nn.functional.binary_cross_entropy_with_logits(logits, labels)
