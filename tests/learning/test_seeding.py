"""Randomness of a model's own code: from the seed inside, and untouched outside."""

from __future__ import annotations

import pytest
import torch

from tasks.learning.seeding import seeded


@pytest.mark.parametrize("seed", [0, 7, (1 << 64) - 1, ((1 << 64) - 1) * 1_000_003 + 10_000])
def test_the_seed_decides_what_is_drawn(seed: int) -> None:
    """The largest is that of the last round of the largest `training.seed`."""
    with seeded(seed):
        first = torch.rand(3)
    with seeded(seed):
        assert torch.equal(torch.rand(3), first)
    with seeded(seed + 1):
        assert not torch.equal(torch.rand(3), first)


def draws_and_fails() -> None:
    with seeded(5):
        torch.rand(3)
        raise KeyError


def test_what_is_drawn_outside_is_as_if_nothing_had_been_inside() -> None:
    torch.manual_seed(3)
    expected = torch.rand(6)
    torch.manual_seed(3)
    before = torch.rand(3)
    with pytest.raises(KeyError):
        draws_and_fails()
    assert torch.equal(torch.cat([before, torch.rand(3)]), expected)
