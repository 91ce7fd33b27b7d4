"""A suite's checks: its expectations with parameters filled in."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from tasks.data.checks.suite import INPUTS, Check, Expectation, Suite, columns_of
from tasks.errors import ConfigError


def expand(suite: Suite, values: Mapping[str, Any], inputs: Iterable[Mapping[str, Any]] = ()) -> list[Check]:
    """The suite's checks with parameters filled in.

    Args:
        suite: the suite.
        values: parameter -> value.
        inputs: for `for_each`: per input the values of `input.*`, among them `input.kinds`.

    Raises:
        ConfigError: an unknown parameter, two checks with one id, or an input that the study does not have.
    """
    rows = list(inputs)
    checks = [
        check_of(suite, each, scope) for each in suite.expectations for scope in scopes(suite, each, values, rows)
    ]
    _refuse_twins(suite, checks)
    if suite.name == INPUTS and values["input_names"]:
        _refuse_other_inputs(checks, values["input_names"])
    return checks


def scopes(
    suite: Suite, expectation: Expectation, values: Mapping[str, Any], inputs: Iterable[Mapping[str, Any]] = ()
) -> list[dict[str, Any]]:
    """What an expectation may be filled in with, once for each check that it makes."""
    every = {**values, "columns": list(suite.meta.columns), "key": list(suite.meta.key)}
    kind = expectation.meta.for_each
    return [every] if kind is None else [{**every, **row} for row in inputs if kind in row["input.kinds"]]


def check_of(suite: Suite, expectation: Expectation, values: Mapping[str, Any]) -> Check:
    kwargs = {key: _fill(suite, value, values) for key, value in expectation.kwargs.items()}
    id_ = _check_id(suite.name, expectation.type, kwargs)
    return Check(id=id_, type=expectation.type, kwargs=kwargs, may_check_nothing=expectation.meta.may_check_nothing)


def _fill(suite: Suite, value: Any, values: Mapping[str, Any]) -> Any:
    if not isinstance(value, dict):
        return value
    try:
        if "$PARAMETER" in value:
            return values[value["$PARAMETER"]]
        return value["$FORMAT"].format_map({key: _alternatives(item) for key, item in values.items()})
    except KeyError as error:
        missing = str(error.args[0])
    raise ConfigError(f"suite {suite.name}: no parameter {missing}; there are: {', '.join(sorted(values))}")


def _alternatives(value: Any) -> str:
    return "|".join(re.escape(str(item)) for item in value) if isinstance(value, list | tuple) else str(value)


def _check_id(table: str, type_: str, kwargs: Mapping[str, Any]) -> str:
    """`adsl/AGE/expect_...`, `advs/AVAL[PARAMCD==TEMP]/expect_...` or, for a whole table, `adsl/expect_...`."""
    column = kwargs.get("column")
    if column is None:
        return f"{table}/{type_}"
    rows = re.sub(r"""[\s"']""", "", kwargs.get("row_condition", ""))
    return f"{table}/{column}[{rows}]/{type_}" if rows else f"{table}/{column}/{type_}"


def _refuse_twins(suite: Suite, checks: list[Check]) -> None:
    seen: set[str] = set()
    for check in checks:
        if check.id in seen:
            raise ConfigError(f"suite {suite.name}: two expectations share the id {check.id}; merge them")
        seen.add(check.id)


def _refuse_other_inputs(checks: Iterable[Check], inputs: Collection[str]) -> None:
    for check in checks:
        for name in columns_of(check.kwargs):
            if name not in inputs:
                has = ", ".join(sorted(inputs))
                raise ConfigError(f"suite {INPUTS}: {check.type} names {name}, no input of the study; it has: {has}")
