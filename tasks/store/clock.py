"""The time, in one place: deadlines are compared with it at the hub and at every site."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """The present moment, UTC."""
    return datetime.now(UTC)
