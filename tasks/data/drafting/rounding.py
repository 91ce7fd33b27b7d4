"""Round figures: what stands in a study file or a suite leaves the site, so it must be no patient's own value."""

from __future__ import annotations

import math


def power_of_ten(value: float) -> int:
    """The place of the first digit: 2 for 345, -1 for 0.3."""
    return math.floor(math.log10(value))


def to_place(value: float, place: int) -> float:
    """`value` rounded to 10^place."""
    return _multiple(round(value / 10.0**place), place)


def one_digit(value: float) -> float:
    """A positive value rounded to its first digit: 12.6 becomes 10, 0.093 becomes 0.09."""
    return to_place(value, power_of_ten(value))


def two_digits(value: float) -> float:
    """A value of at least zero rounded to two digits: 0.1234 becomes 0.12."""
    return to_place(value, power_of_ten(value) - 1) if value > 0 else 0.0


def round_bounds(lowest: float, highest: float) -> tuple[float, float]:
    """Bounds that lie a tenth of the span or more outside of the values, on multiples of the span's first place.

    Zero stays where no value is below it: that is what the quantity allows, not what a patient had.
    """
    span = highest - lowest or abs(highest) or 1.0
    place, margin = power_of_ten(span), span / 10
    low = 0.0 if 0 <= lowest < span else _multiple(math.floor((lowest - margin) / 10.0**place), place)
    return low, _multiple(math.ceil((highest + margin) / 10.0**place), place)


def decades(first: int, last: int) -> tuple[int, int]:
    """First and last year of whole decades, five years or more outside: 2023 to 2024 becomes 2010 to 2029."""
    return (first - 5) // 10 * 10, (last + 5) // 10 * 10 + 9


def plain(value: float) -> int | float:
    """Whole numbers as integers, so that files say 5 and not 5.0."""
    return int(value) if float(value).is_integer() else float(value)


def _multiple(count: int, place: int) -> float:
    """count * 10^place without binary noise such as 0.30000000000000004."""
    return round(count * 10.0**place, max(0, -place))
