"""Randomness in a model's own code: it comes from a seed, and leaves the process's generators as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the generators that a model may draw from (torch's on the CPU, NumPy's, Python's), then put all three back.

    What draws nothing computes the same as without.
    """
    kept = torch.default_generator.get_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed % (1 << 64))
    np.random.seed(seed % (1 << 32))
    random.seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(kept[0])
        np.random.set_state(kept[1])
        random.setstate(kept[2])
