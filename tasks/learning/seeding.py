"""Randomness in a model's own code: it comes from a seed, and leaves the process's generator as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator on the CPU, from which models draw, then put it back.

    What draws nothing computes the same as without. A model that draws elsewhere is refused: `own_models.check`.
    """
    kept = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed % (1 << 64))
    try:
        yield
    finally:
        torch.default_generator.set_state(kept)
