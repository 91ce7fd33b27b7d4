"""What is wrong with the values of arguments: contradictory bounds, patterns that are none, sets of another type.

An expectation that no table can fail is wrong too: it guards nothing.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Any

from tasks.data.checks.suite import ColumnType

#: Types of columns whose cells are texts.
TEXTUAL: tuple[ColumnType, ...] = ("string", "partial_date")
_BOUNDS = ("min_value", "max_value")
_NEVER_NEGATIVE = re.compile(r"_(count|lengths|stdev|proportion)_")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
#: Arguments without which there is nothing to compare with, though the library gives some a default.
_NEEDED = re.compile(r"regex|\w+_(set|list)")
#: A pattern that is found in the empty text may still choose by one of these: a class, a place, a look around.
_CHOOSES = re.compile(r"[\[\\^$]|\(\?")
_FLAGS = re.compile(r"^\(\?[aimsx]+\)")
ValueFaults = Iterator[tuple[str, str]]


def value_faults(
    type_: str, known: Collection[str], kwargs: Mapping[str, Any], columns: Mapping[str, ColumnType]
) -> ValueFaults:
    """Argument and fault; no argument where it is about several.

    Args:
        type_: the expectation's.
        known: the arguments that it has.
        kwargs: those that it is given, with parameters filled in.
        columns: the table's columns, by type; empty where they are not known.
    """
    column_type = columns.get(kwargs["column"]) if isinstance(kwargs.get("column"), str) else None
    yield from _empty(known, kwargs)
    yield from _bounds(type_, known, kwargs, column_type)
    yield from _patterns(kwargs)
    yield from _sets(kwargs, column_type)


def _empty(known: Collection[str], kwargs: Mapping[str, Any]) -> ValueFaults:
    for name in sorted(known):
        value = kwargs.get(name)
        if value in ("", [], ()):
            yield name, "it is empty, so nothing is checked: fill it in, or take the expectation out"
        elif value is None and _NEEDED.fullmatch(name):
            yield name, "is missing, so nothing is checked: fill it in, or take the expectation out"
    if kwargs.get("mostly") == 0:
        yield "mostly", "at 0 every value passes: give the share of values that must, above 0 and up to 1"


def _bounds(
    type_: str, known: Collection[str], kwargs: Mapping[str, Any], column_type: ColumnType | None
) -> ValueFaults:
    if not set(_BOUNDS) <= set(known):
        return
    given = {name: kwargs[name] for name in _BOUNDS if kwargs.get(name) is not None}
    if not given:
        yield "", "it has neither min_value nor max_value, so nothing is checked: give one, or take the expectation out"
    if column_type == "date" and not _NEVER_NEGATIVE.search(type_):
        wrong = [name for name, value in given.items() if not _is_date(value)]
        yield from ((name, 'the column holds dates: write the bound as "yyyy-mm-dd"') for name in wrong)
        given = {} if wrong else {name: datetime.fromisoformat(value).timestamp() for name, value in given.items()}
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in given.values()):
        return  # told by the library
    lowest, highest = (given.get(name) for name in _BOUNDS)
    strict = bool(kwargs.get("strict_min") or kwargs.get("strict_max"))
    if lowest is not None and highest is not None and (lowest > highest or (strict and lowest == highest)):
        yield "min_value", "nothing lies between min_value and max_value: exchange or correct them"
    elif given and _NEVER_NEGATIVE.search(type_) and _is_open(type_, kwargs, lowest, highest):
        yield "", "every table lies within its bounds, so nothing is checked: correct them, or take the expectation out"


def _is_open(type_: str, kwargs: Mapping[str, Any], lowest: float | None, highest: float | None) -> bool:
    """Whether bounds leave everything in, of what is never negative, and at most one if it is a proportion."""
    if lowest is not None and (lowest > 0 or (lowest == 0 and kwargs.get("strict_min"))):
        return False
    if highest is None:
        return True
    return "proportion" in type_ and (highest > 1 or (highest == 1 and not kwargs.get("strict_max")))


def _is_date(value: object) -> bool:
    if not isinstance(value, str) or not _DATE.match(value):
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _patterns(kwargs: Mapping[str, Any]) -> ValueFaults:
    for name, value in kwargs.items():
        if name.startswith("regex"):
            for pattern in value if isinstance(value, list | tuple) else [value]:
                problem = _problem_of(pattern) if isinstance(pattern, str) and pattern else None
                if problem:
                    yield name, problem


def _problem_of(pattern: str) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return f"no regular expression: {error}"
    inner = _FLAGS.sub("", pattern).removeprefix("^").removesuffix("$")
    if compiled.search("") and inner and not _CHOOSES.search(inner) and re.search(inner, ""):
        return "it is found in any text, so nothing is checked: correct it, or take the expectation out"
    return None


def _sets(kwargs: Mapping[str, Any], column_type: ColumnType | None) -> ValueFaults:
    values = kwargs.get("value_set")
    if column_type is None or not isinstance(values, list | tuple):
        return
    if column_type == "date":
        yield "value_set", "no date is in a set of texts: give min_value and max_value of an expectation about ranges"
        return
    values = [value for value in values if value is not None]
    if column_type in TEXTUAL and not all(isinstance(value, str) for value in values):
        yield "value_set", f"the column holds texts ({column_type}): put every value in quotes"
    elif column_type not in TEXTUAL and any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        yield "value_set", f"the column holds numbers ({column_type}): write every value without quotes"
