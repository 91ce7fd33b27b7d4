"""Numbers, times and privacy in plain words. Nothing here rounds a privacy spend down."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime

NONE = "–"
_UNITS = ("B", "kB", "MB", "GB", "TB")


def number(value: float | None, digits: int = 3) -> str:
    """A figure with a fixed number of decimals; a dash for none."""
    return NONE if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f}\u00a0%"


def count(value: int, noun: str) -> str:
    """`1 site`, `13 sites`, `1 700 patients`."""
    return f"{value:,}".replace(",", "\u202f") + f" {noun}" + ("" if value == 1 else "s")


def spend(value: float | None) -> str:
    """An epsilon, rounded up to two decimals: the page never shows less than what was spent."""
    return NONE if value is None else f"{math.ceil(round(value * 100, 6)) / 100:.2f}".rstrip("0").rstrip(".")


def left(epsilon: float | None, budget: float | None) -> str:
    """What remains of the budget, rounded so that `spend` and `left` add up."""
    if epsilon is None or budget is None:
        return NONE
    return f"{max(0.0, budget - float(spend(epsilon))):.2f}".rstrip("0").rstrip(".")


def small(value: float | None) -> str:
    """A delta: `1e-05` as `0.00001`."""
    return NONE if value is None else f"{value:.10f}".rstrip("0").rstrip(".")


def size(num_bytes: int | None) -> str:
    """Bytes in decimal units."""
    if num_bytes is None:
        return NONE
    power = 0 if num_bytes < 1000 else min(int(math.log10(num_bytes) // 3), len(_UNITS) - 1)
    value = num_bytes / 1000**power
    return f"{value:.0f} {_UNITS[power]}" if power == 0 or value >= 100 else f"{value:.1f} {_UNITS[power]}"


def duration(seconds: float | None) -> str:
    """`0.03 s`, `8.6 s`, `2 min 5 s`, `1 h 4 min`."""
    if seconds is None:
        return NONE
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def moment(when: datetime | str) -> str:
    """A time, or its ISO form, in UTC; a time without a zone is taken for UTC."""
    when = datetime.fromisoformat(when) if isinstance(when, str) else when
    aware = when if when.tzinfo else when.replace(tzinfo=UTC)
    return aware.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def listing(names: Iterable[str]) -> str:
    """`701, 703 and pool`."""
    *most, last = list(names) or [NONE]
    return f"{', '.join(most)} and {last}" if most else last


def step(name: str) -> str:
    """A step's name for people: `privatize_and_upload` is `privatize and upload`."""
    return name.replace("_", " ")
