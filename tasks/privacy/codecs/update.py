"""What a site has uploaded in the clear, as the vector that the hub averages."""

from __future__ import annotations

import torch

from tasks.learning.flat import Shape
from tasks.privacy.codecs.dense import flat_update
from tasks.privacy.codecs.sparse import num_shared, sparse_update
from tasks.store.records.round import Plan
from tasks.study.privacy import sent_fraction


def read_update(body: bytearray | bytes, plan: Plan, shape: Shape, site: str) -> torch.Tensor:
    """An unmasked update as one flat float32 vector, (parameters,). Raises UpdateRejected."""
    if (fraction := sent_fraction(plan.privacy)) is not None:
        return sparse_update(body, shape, num_shared(fraction, shape.num_values), site)
    return flat_update(body, shape, site)
