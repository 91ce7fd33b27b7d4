"""What the installed Great Expectations says of a suite's expectations, before any data is looked at.

Importing this module imports Great Expectations (seconds).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import great_expectations.expectations.core  # noqa: F401  # registers the expectations
import pandas as pd
from great_expectations.compatibility.pydantic import ValidationError
from great_expectations.expectations.expectation import BatchExpectation
from great_expectations.expectations.metadata_types import DataQualityIssues
from great_expectations.expectations.registry import get_expectation_impl, list_registered_expectation_implementations

from tasks.data.checks.engine import row_condition, run_checks
from tasks.data.checks.suite import OUTREACHING, Check, ColumnType

#: Three rows that nobody has, by the type of a column, as `tasks.data.reading.tables` would read them.
MADE_UP: Mapping[ColumnType, pd.Series] = {
    "string": pd.Series(["A", "B", "C"], dtype="str"),
    "integer": pd.Series([1.0, 2.0, 3.0]),
    "number": pd.Series([0.5, 1.5, 2.5]),
    "date": pd.to_datetime(pd.Series(["2012-01-01", "2012-01-02", "2012-01-03"])),
    "partial_date": pd.Series(["2012", "2012-01", "2012-01-02"], dtype="str"),
}
#: pydantic's word for each branch of a union that also takes the library's own parameters, which suites here do not.
_OTHER_BRANCH = "value is not a valid dict"


@cache
def known_types() -> frozenset[str]:
    """Every expectation that a suite may name."""
    found = list_registered_expectation_implementations()
    return frozenset(name for name in found if name.startswith("expect_")) - OUTREACHING


@cache
def arguments_of(type_: str) -> frozenset[str]:
    """What an expectation takes that decides where it looks or whether it holds."""
    kind = get_expectation_impl(type_)
    return frozenset({*kind.domain_keys, *kind.success_keys} & set(kind.__fields__) - set(BatchExpectation.__fields__))


def argument_faults(type_: str, kwargs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Of arguments that the expectation has: the name, and what is wrong by the library's own model of it.

    A missing one is named too. What concerns no single argument has no name, and is told only where nothing else is.
    """
    given = dict(kwargs)
    if "row_condition" in given:
        given["row_condition"] = row_condition(given["row_condition"])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = get_expectation_impl(type_)(**given)
    except ValidationError as error:
        yield from _told(error)
        return
    except Exception as error:
        yield "", f"Great Expectations does not take its arguments ({type(error).__name__})"
        return
    for name, value in kwargs.items():
        if name != "row_condition" and not _is_same(value, getattr(model, name)):
            yield name, f"a {_kind(value)} where Great Expectations reads a {_kind(getattr(model, name))}"


def trial_faults(columns: Mapping[str, ColumnType], checks: Sequence[Check]) -> Iterator[tuple[str, str]]:
    """The ids of checks that no table can pass or be asked, and why: found out on three rows that nobody has."""
    frame = pd.DataFrame({name: MADE_UP[type_] for name, type_ in columns.items()})
    whole = [check.model_copy(update={"kwargs": _without_condition(check.kwargs)}) for check in checks]
    for id_, outcome in run_checks(frame, whole).items():
        if outcome.exception is not None:
            cannot = f"Great Expectations cannot evaluate it on what meta.columns declares ({outcome.exception})"
            yield id_, f"{cannot}: correct the declared type, the values, or use another expectation"
        elif not outcome.success and _is_of_schema(next(check.type for check in checks if check.id == id_)):
            yield id_, "it fails on any table as meta.columns declares it: correct the one or the other"


def _told(error: ValidationError) -> Iterator[tuple[str, str]]:
    told: dict[str, list[str]] = {}
    for each in error.errors():
        told.setdefault("" if each["loc"] == ("__root__",) else str(each["loc"][0]), []).append(str(each["msg"]))
    of_all = told.pop("", [])
    for name, messages in told.items():
        plain = [message for message in messages if message != _OTHER_BRANCH] or messages
        yield name, "is missing" if plain == ["field required"] else plain[0]
    if not told:
        yield from (("", message) for message in of_all)


def _is_same(written: Any, read: Any) -> bool:
    """Whether the library's model took a value for what stands there: it takes "0.9" for .9, true for 1, 2.5 for 2."""
    if isinstance(written, str):
        return not isinstance(read, bool | int | float)
    if isinstance(written, list | tuple):
        return isinstance(read, list | tuple | set) and all(_as_list(one) in _as_list(written) for one in read)
    return bool(isinstance(written, bool) == isinstance(read, bool) and written == read)


def _as_list(value: Any) -> Any:
    """With every tuple as a list: pairs are written in brackets."""
    return [_as_list(each) for each in value] if isinstance(value, list | tuple) else value


def _kind(value: Any) -> str:
    kinds = {bool: "true or false", int: "whole number", float: "number", str: "text", list: "list", tuple: "list"}
    return kinds.get(type(value), type(value).__name__)


def _without_condition(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name != "row_condition"}


@cache
def _is_of_schema(type_: str) -> bool:
    """Whether an expectation asks only for columns and their types."""
    about = get_expectation_impl(type_).schema()["properties"]["metadata"]["properties"]
    return DataQualityIssues.SCHEMA.value in about.get("data_quality_issues", {}).get("const", [])
