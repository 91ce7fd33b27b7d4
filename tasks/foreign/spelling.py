"""What somebody may have meant by a name that there is not."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

#: Names that a message lists.
_LISTED = 20


def nearest(name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """How to end a sentence about an unknown name: its likeliest spelling, else `otherwise`, or else what there is."""
    names = sorted(known)
    close = [other for other in names if other.casefold() == name.casefold()] or get_close_matches(name, names, 1)
    if close:
        return f"did you mean {close[0]}?"
    there = f"there are: {', '.join(names[:_LISTED])}{', ...' if len(names) > _LISTED else ''}"
    return otherwise or (there if names else "there is none")
