"""Numbers and times in plain words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tasks.report import words


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (0.0, "0"), (1.09, "1.09"), (1.081, "1.09"), (2.9999, "3"), (3.0, "3"), (0.30000000000000004, "0.3")],
)
def test_a_spend_is_never_rounded_down(value: float | None, shown: str) -> None:
    assert words.spend(value) == shown


def test_spent_and_left_add_up() -> None:
    for cents in range(0, 301, 7):
        epsilon = cents / 100 + 0.0042
        assert float(words.spend(epsilon)) + float(words.left(epsilon, 3.1)) == pytest.approx(3.1, abs=0.011)


@pytest.mark.parametrize(
    ("num_bytes", "shown"),
    [(0, "0 B"), (999, "999 B"), (1840, "1.8 kB"), (80_000_000, "80.0 MB"), (574_000_000, "574 MB")],
)
def test_size(num_bytes: int, shown: str) -> None:
    assert words.size(num_bytes) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, "–"), (0.034, "0.03 s"), (8.61, "8.6 s"), (125.2, "2 min 5 s"), (3840, "1 h 4 min")]
)
def test_duration(seconds: float | None, shown: str) -> None:
    assert words.duration(seconds) == shown


def test_small() -> None:
    assert words.small(1e-5) == "0.00001"


def test_moment() -> None:
    assert words.moment("2026-03-01T02:00:00+01:00") == "2026-03-01 01:00 UTC"
    assert words.moment(datetime(2026, 3, 1, 1, tzinfo=UTC)) == "2026-03-01 01:00 UTC"


def test_listing() -> None:
    assert words.listing(["701"]) == "701"
    assert words.listing(["701", "703", "pool"]) == "701, 703 and pool"
