"""Reads JSON that a person wrote: a mistake is told by its line, and a key that stands twice in one place is a mistake.

The reader of YAML is no reader of JSON: it refuses tabs as indentation and the escapes of a character outside of the
basic plane, and takes `1e5` for a text.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tasks.errors import ConfigError
from tasks.foreign.files import MAX_TEXT_BYTES, read_ordinary

#: Lists and mappings within each other; a suite needs five.
MAX_DEPTH = 40
JsonPath = tuple[str | int, ...]
_BETWEEN = re.compile(r"[ \t\r\n,:]*")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class JsonFile:
    """One file: `content` as plain values, `lines` the 1-based line of each, by keys and indices from the root."""

    content: Any
    lines: Mapping[JsonPath, int]

    def line(self, place: JsonPath) -> int:
        """The line of `place`, or of its nearest parent that the file has."""
        while place not in self.lines:
            place = place[:-1]
        return self.lines[place]


class _Value(NamedTuple):
    """Where a value stands: `start` is the offset of its key, where it has one, else of itself."""

    place: JsonPath
    start: int
    offset: int


class _Problem(Exception):
    """What is wrong, and on which 1-based line, where that is known."""

    def __init__(self, text: str, line: int | None) -> None:
        super().__init__(text)
        self.text, self.line = text, line


def read_json(path: Path, *, max_bytes: int = MAX_TEXT_BYTES) -> JsonFile:
    """Read one JSON file in UTF-8, with or without a byte order mark.

    Raises:
        FileNotFoundError: there is none.
        ConfigError: with the line: no ordinary file, too large, too deep, no JSON, a key twice, or no finite number.
    """
    raw = read_ordinary(path, max_bytes)
    try:
        text = _decoded(raw)
        return JsonFile(_parsed(text), _lines(text))
    except _Problem as problem:
        place = f"{path}:{problem.line}" if problem.line else str(path)
        raise ConfigError(f"{place}: not readable as JSON: {problem.text}") from None


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
    raise _Problem("it is not UTF-8: save it as UTF-8", line)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _Problem(f"{error.msg}, at column {error.colno}", error.lineno) from None
    except RecursionError:
        raise _Problem(f"lists and mappings nested deeper than {MAX_DEPTH}", None) from None
    except ValueError:  # of int()
        raise _Problem("a whole number of more than 4,300 digits", None) from None


def _lines(text: str) -> dict[JsonPath, int]:
    """Place -> line, of what is known to be JSON."""
    ends = [match.end() for match in re.finditer("\n", text)]
    lines: dict[JsonPath, int] = {(): 1}
    for value in _values(text, 0, ()):
        line = bisect_right(ends, value.start) + 1
        if value.place in lines:
            raise _Problem(f"the key {str(value.place[-1])[:80]!r} stands here for the second time: keep one", line)
        if len(value.place) > MAX_DEPTH:
            raise _Problem(f"lists and mappings nested deeper than {MAX_DEPTH}", line)
        if text[value.offset] in "-0123456789NI" and not _is_finite(_DECODER.raw_decode(text, value.offset)[0]):
            raise _Problem("no finite number: leave it out where there is no bound", line)
        lines[value.place] = line
    return lines


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number that no float is as large as
        return False


def _values(text: str, at: int, place: JsonPath) -> Generator[_Value, None, int]:
    """Every value within the one at `at`, outer ones first; returns the offset behind it."""
    at = _after_blanks(text, at)
    if text[at] not in "[{":
        return _DECODER.raw_decode(text, at)[1]
    is_mapping, index = text[at] == "{", 0
    at = _after_blanks(text, at + 1)
    while text[at] not in "]}":
        start, key = at, str(index)
        if is_mapping:
            key, at = _DECODER.raw_decode(text, at)
            at = _after_blanks(text, at)
        inner = (*place, key if is_mapping else index)
        yield _Value(inner, start, at)
        at = _after_blanks(text, (yield from _values(text, at, inner)))
        index += 1
    return at + 1


def _after_blanks(text: str, at: int) -> int:
    match = _BETWEEN.match(text, at)
    return match.end() if match else at
