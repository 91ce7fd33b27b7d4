"""Runs checks with Great Expectations, and lets nothing out but true, false and the type of an error.

Importing this module imports Great Expectations (seconds), so it is imported late, or once before tasks are forked.
No data context is made: each run has an execution engine of its own, so nothing is shared, stored or sent, and runs
may go on side by side.
"""

from __future__ import annotations

import builtins
import logging
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import great_expectations.exceptions as gx_exceptions
import pandas as pd
from great_expectations.execution_engine.pandas_execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import BatchExpectation, Expectation
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from great_expectations.expectations.row_conditions import Column
from great_expectations.validator.validator import Validator

from tasks.data.checks.suite import ROW_CONDITION, Check

#: Great Expectations logs metric errors with their messages, which may quote cells.
logging.getLogger("great_expectations").setLevel(logging.CRITICAL + 1)

#: Every other result format holds cells or row numbers.
_RUNTIME = {"result_format": "BOOLEAN_ONLY", "catch_exceptions": True}
_ERROR_NAME = re.compile(r"^(?:[A-Za-z_]\w*\.)*([A-Z]\w*)(?::|$)", re.MULTILINE)


class CheckOutcome(NamedTuple):
    """Whether a check holds; `exception` is the type of the error that kept it from being evaluated."""

    success: bool
    exception: str | None = None


#: How the library itself makes the configuration of an expectation: anew for each word of it that it looks up.
MADE_ANEW = vars(Expectation)["configuration"]


def _keep_configurations() -> None:
    """Keep the configuration of the expectation at hand.

    For the 191 checks of a study's nine tables it is asked for 13,476 times: a third of a site's validation.
    """
    at_hand: tuple[Any, Any] = (None, None)

    def configuration(self: Expectation) -> Any:
        nonlocal at_hand
        expectation, made = at_hand  # one read: other threads may have others at hand
        if expectation is not self:
            made = MADE_ANEW.fget(self)
            at_hand = (self, made)
        return made

    setattr(Expectation, "configuration", property(configuration))  # noqa: B010 (mypy takes it for a method)


_keep_configurations()


class _Engine(PandasExecutionEngine):
    """Picks the rows of a condition once: it is asked for by several expectations, and by each of their metrics."""

    def _apply_row_condition_filter(self, data: pd.DataFrame, row_condition: Any, domain_kwargs: Any) -> pd.DataFrame:
        picked: dict[str, tuple[pd.DataFrame, pd.DataFrame]] = self.__dict__.setdefault("picked", {})
        of, rows = picked.get(repr(row_condition), (None, data))
        if of is not data:
            rows = super()._apply_row_condition_filter(data, row_condition, domain_kwargs)
            picked[repr(row_condition)] = data, rows
        return rows


class _QuietValidator(Validator):
    def _determine_progress_bars(self) -> bool:
        return False


def run_checks(frame: pd.DataFrame, checks: Sequence[Check]) -> dict[str, CheckOutcome]:
    """Check id -> outcome, for every check: one that gives no result has failed."""
    outcomes = {check.id: CheckOutcome(success=False, exception="NoResult") for check in checks}
    configurations = []
    for check in checks:
        try:
            configurations.append(_configuration(check, frame))
        except Exception as error:  # of this check alone: the others are still evaluated
            outcomes[check.id] = CheckOutcome(success=False, exception=type(error).__name__)
    return outcomes | dict(_evaluated(frame, configurations))


def rows_looked_at(frame: pd.DataFrame, checks: Sequence[Check]) -> dict[str, pd.DataFrame]:
    """Check id -> the rows that it looks at, for each check of columns that can be evaluated.

    Those that its row condition picks, without the missing values that it passes over. A check of the table as a whole,
    of its header or its number of rows, has none.
    """
    engine = _Engine(batch_data_dict={"table": frame})
    found: dict[str, pd.DataFrame] = {}
    for check in checks:
        column = check.kwargs.get("column")
        try:
            expectation = _configuration(check, frame).to_domain_obj()
            if type(expectation).__base__ is not BatchExpectation:
                passed_over = (
                    {"ignore_row_if": expectation.ignore_row_if} if hasattr(expectation, "ignore_row_if") else {}
                )
                rows = engine.get_domain_records(expectation._get_domain_kwargs() | passed_over)
                found[check.id] = rows if column is None or "null" in check.type else rows[rows[column].notna()]
        except Exception:  # the check fails by it, and tells so
            continue
    return found


def row_condition(text: str) -> Any:
    """The library's own form of `PARAMCD=="TEMP"`, which it has deprecated as text."""
    name, operator, value = ROW_CONDITION.fullmatch(text).groups()  # type: ignore[union-attr]
    return Column(name) == value if operator == "==" else Column(name) != value


def _evaluated(
    frame: pd.DataFrame, configurations: Sequence[ExpectationConfiguration]
) -> Iterator[tuple[str, CheckOutcome]]:
    """Check id and outcome of each, or of all the error that broke the whole run."""
    results, error = _evaluate(frame, configurations)
    if error is not None:
        yield from ((each.meta["check"], CheckOutcome(success=False, exception=error)) for each in configurations)
    for result in results:
        exception = _exception_type(result.exception_info)
        success = bool(result.success) and exception is None
        yield result.expectation_config.meta["check"], CheckOutcome(success=success, exception=exception)


def _evaluate(frame: pd.DataFrame, configurations: Sequence[ExpectationConfiguration]) -> tuple[list[Any], str | None]:
    """The results, or the type of the error that broke the whole run."""
    try:
        validator = _QuietValidator(execution_engine=_Engine(batch_data_dict={"table": frame}))
        found = validator.graph_validate(configurations=list(configurations), runtime_configuration=dict(_RUNTIME))
        return found, None
    except Exception as error:
        return [], type(error).__name__


def _configuration(check: Check, frame: pd.DataFrame) -> ExpectationConfiguration:
    """Bounds on a date column are dates: JSON can only hold them as text. Raises what the library says of it."""
    kwargs = dict(check.kwargs)
    column = kwargs.get("column")
    if column in frame.columns and pd.api.types.is_datetime64_any_dtype(frame[column]):
        for bound in kwargs.keys() & {"min_value", "max_value"}:
            if isinstance(kwargs[bound], str):  # a count is a number
                kwargs[bound] = pd.Timestamp(kwargs[bound]).to_pydatetime()
    if "row_condition" in kwargs:
        kwargs["row_condition"] = row_condition(kwargs["row_condition"])
    configuration = ExpectationConfiguration(type=check.type, kwargs=kwargs, meta={"check": check.id})
    configuration.to_domain_obj()
    return configuration


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
