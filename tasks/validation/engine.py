"""Runs checks with Great Expectations, and lets nothing out but true, false and the type of an error.

Importing this module imports Great Expectations (seconds), so it is imported late, or once before tasks are forked.
No data context is made: each run has an execution engine of its own, so nothing is shared, stored or sent, and runs
may go on side by side.
"""

from __future__ import annotations

import builtins
import logging
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

os.environ["GX_ANALYTICS_ENABLED"] = "False"

import great_expectations.exceptions as gx_exceptions
import pandas as pd
from great_expectations.execution_engine.pandas_execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from great_expectations.expectations.row_conditions import Column
from great_expectations.validator.validator import Validator

from tasks.validation.suites import ROW_CONDITION, Check

#: Great Expectations logs metric errors with their messages, which may quote cells.
logging.getLogger("great_expectations").setLevel(logging.CRITICAL + 1)

#: Every other result format holds cells or row numbers.
_RUNTIME = {"result_format": "BOOLEAN_ONLY", "catch_exceptions": True}
_ERROR_NAME = re.compile(r"^(?:[A-Za-z_]\w*\.)*([A-Z]\w*)(?::|$)", re.MULTILINE)


class Outcome(NamedTuple):
    """Whether a check holds; `exception` is the type of the error that kept it from being evaluated."""

    success: bool
    exception: str | None = None


class _QuietValidator(Validator):
    def _determine_progress_bars(self) -> bool:
        return False


def run_checks(frame: pd.DataFrame, checks: Sequence[Check]) -> dict[str, Outcome]:
    """Check id -> outcome, for every check: one that gives no result has failed."""
    outcomes = {check.id: Outcome(success=False, exception="NoResult") for check in checks}
    results, error = _evaluate(frame, checks)
    if error is not None:
        return {check.id: Outcome(success=False, exception=error) for check in checks}
    for result in results:
        exception = _exception_type(result.exception_info)
        success = bool(result.success) and exception is None
        outcomes[result.expectation_config.meta["check"]] = Outcome(success=success, exception=exception)
    return outcomes


def _evaluate(frame: pd.DataFrame, checks: Iterable[Check]) -> tuple[list[Any], str | None]:
    """The results, or the type of the error that broke the whole run."""
    try:
        configurations = [_configuration(check, frame) for check in checks]
        validator = _QuietValidator(execution_engine=PandasExecutionEngine(batch_data_dict={"table": frame}))
        return validator.graph_validate(configurations=configurations, runtime_configuration=dict(_RUNTIME)), None
    except Exception as error:
        return [], type(error).__name__


def _configuration(check: Check, frame: pd.DataFrame) -> ExpectationConfiguration:
    """Bounds on a date column are dates: JSON can only hold them as text."""
    kwargs = dict(check.kwargs)
    column = kwargs.get("column")
    if column in frame.columns and pd.api.types.is_datetime64_any_dtype(frame[column]):
        for bound in kwargs.keys() & {"min_value", "max_value"}:
            kwargs[bound] = pd.Timestamp(kwargs[bound]).to_pydatetime()
    if "row_condition" in kwargs:
        kwargs["row_condition"] = _row_condition(kwargs["row_condition"])
    return ExpectationConfiguration(type=check.type, kwargs=kwargs, meta={"check": check.id})


def _row_condition(text: str) -> Any:
    """The library's own form of `PARAMCD=="TEMP"`, which it has deprecated as text."""
    name, operator, value = ROW_CONDITION.fullmatch(text).groups()  # type: ignore[union-attr]
    return Column(name) == value if operator == "==" else Column(name) != value


def _exception_type(info: Any) -> str | None:
    """The name of an error type that is known by name, never any text of the error."""
    entries = [info] if "raised_exception" in (info or {}) else list((info or {}).values())
    raised = [entry for entry in entries if entry.get("raised_exception")]
    if not raised:
        return None
    names = _ERROR_NAME.findall(str(raised[0].get("exception_traceback")))
    known = [name for name in names if _is_error(name)]
    return known[-1] if known else "Exception"


def _is_error(name: str) -> bool:
    found = getattr(builtins, name, None) or getattr(gx_exceptions, name, None)
    return isinstance(found, type) and issubclass(found, BaseException)
