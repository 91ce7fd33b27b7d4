"""Validates one site's tables and model inputs, and says what failed without a word about any patient."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from tasks.data.checks.expand import expand
from tasks.data.checks.parameters import InputReference, SiteParameters
from tasks.data.checks.suite import Check, Suite
from tasks.data.checks.suites import load_suite, suite_names
from tasks.data.checks.waivers import Waiver, find_waiver
from tasks.errors import ConfigError, ValidationFailed
from tasks.foreign.bounds import MAX_EXPECTATIONS, MAX_NAME, MAX_NOTE, Name, Note, shorten
from tasks.study.sections import LEAKING_COLUMNS

if TYPE_CHECKING:
    from tasks.data.checks.engine import CheckOutcome

Inputs: TypeAlias = pd.DataFrame | Callable[[], pd.DataFrame]
BUILD_CHECK = "inputs/build"
_MEDIAN_CHECK = "expect_column_median_to_be_between"
_COLUMN_CHECK = "expect_table_columns_to_match_set"


#: Of how many patients an expectation has looked at rows: of none, or of fewer than the study's `evaluation.min_cell`.
RowsSeen: TypeAlias = Literal["none", "few"]


class CheckResult(BaseModel):
    """One expectation at one site. It has not failed if `success`, or if `waived_by` names who took it on.

    `rows` stands where it has looked at few rows or none. One that holds of no row checks nothing: it has not passed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Name
    success: bool
    waived_by: Name | None = None
    exception: Name | None = None
    note: Note | None = None
    rows: RowsSeen | None = Field(default=None, exclude_if=lambda rows: rows is None)

    @property
    def failed(self) -> bool:
        return not self.success and self.waived_by is None

    @property
    def checks_nothing(self) -> bool:
        return self.success and self.rows == "none"


class ValidationResult(BaseModel):
    """All checks of one site. Holds names, true or false, and waivers: nothing that a patient's record says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: Name
    success: bool
    checks: tuple[CheckResult, ...] = Field(max_length=MAX_EXPECTATIONS)

    @property
    def failures(self) -> list[CheckResult]:
        return [check for check in self.checks if check.failed]

    @property
    def waived(self) -> list[CheckResult]:
        return [check for check in self.checks if check.waived_by is not None]

    @property
    def checking_nothing(self) -> list[CheckResult]:
        return [check for check in self.checks if check.checks_nothing]

    def require(self) -> None:
        """Raise ValidationFailed, naming the failed expectations, unless all passed or are waived."""
        if not self.success:
            failed = "; ".join(f"{check.id} ({check.note})" if check.note else check.id for check in self.failures)
            raise ValidationFailed(
                f"site {self.site}: {len(self.failures)} of {len(self.checks)} expectations failed: {failed}. "
                "Correct the data (or, in the suite, a row condition that no row meets), or record a waiver in "
                "waivers.yaml, beside the study's suites"
            )


def validate_site(
    tables: Mapping[str, pd.DataFrame],
    inputs: Inputs,
    parameters: SiteParameters,
    waivers: Iterable[Waiver],
    suites_dir: Path,
    *,
    today: date | None = None,
) -> ValidationResult:
    """Run the suite of each table, then that of the model inputs.

    Args:
        tables: name -> rows, as `read_tables` gives them; each needs a suite.
        inputs: one row per patient and one column per input in natural units (NaN: missing), or what builds it. A
            builder is called after the tables were checked; if it breaks, `inputs/build` fails with the error's type.
        parameters: the site's SITEIDs and the study's public constants.
        waivers: those of any site; only this site's, and only those not expired on `today` (UTC), count.
        suites_dir: the folder of the suites.
        today: by default the current day, UTC.

    Raises:
        ConfigError: a suite is missing or wrong. A failed expectation raises nothing: see `ValidationResult.require`.
    """
    values = _suite_values(tables, parameters)
    results: list[CheckResult] = []
    for name, frame in tables.items():
        results += run_suite(load_suite(suites_dir, name), frame, values, (), parameters)
    results += _run_inputs(inputs, parameters, values, suites_dir)
    day = today or datetime.now(UTC).date()
    own = [waiver for waiver in waivers if waiver.site == parameters.site]
    if len(results) > MAX_EXPECTATIONS:
        raise ConfigError(f"{suites_dir}: {len(results)} expectations for one study, more than {MAX_EXPECTATIONS:,}")
    checks = tuple(_apply_waiver(result, own, day) for result in results)
    return ValidationResult(site=parameters.site, success=not any(check.failed for check in checks), checks=checks)


def at_every_site(results: Collection[ValidationResult], rows: RowsSeen) -> tuple[str, ...]:
    """The expectations that looked at no more than `rows` at every one of the sites."""
    each = [{check.id for check in result.checks if check.rows == rows} for result in results]
    return tuple(sorted(set.intersection(*each))) if each else ()


def known_expectations(suites_dir: Path, inputs: Iterable[InputReference]) -> frozenset[str]:
    """Every id that a waiver may name: those of all tables' suites, and of `inputs` for the given model inputs."""
    values = {"site_ids": [], "subjects": [], "num_subjects": 0, "input_names": []}
    ids = {BUILD_CHECK}
    for name in suite_names(suites_dir):
        suite = load_suite(suites_dir, name)
        rows = [reference.suite_values(suite.meta) for reference in inputs] if name == "inputs" else []
        ids |= {check.id for check in expand(suite, values, rows)}
    return frozenset(ids)


def _suite_values(tables: Mapping[str, pd.DataFrame], parameters: SiteParameters) -> dict[str, Any]:
    subjects = _subjects(tables, parameters)
    return {
        "site_ids": list(parameters.site_ids),
        "subjects": subjects,
        "num_subjects": len(subjects),
        "input_names": [reference.name for reference in parameters.inputs],
    }


def _subjects(tables: Mapping[str, pd.DataFrame], parameters: SiteParameters) -> list[str]:
    frame = tables.get(parameters.subject_table)
    if frame is None or parameters.subject not in frame.columns:
        return []
    return sorted(frame[parameters.subject].dropna().unique())


def _run_inputs(
    inputs: Inputs, parameters: SiteParameters, values: Mapping[str, Any], suites_dir: Path
) -> list[CheckResult]:
    frame, error = _build(inputs)
    if frame is None:
        return [CheckResult(id=BUILD_CHECK, success=False, exception=error)]
    suite = load_suite(suites_dir, "inputs")
    rows = [reference.suite_values(suite.meta) for reference in parameters.inputs]
    return run_suite(suite, frame.reset_index(drop=True), values, rows, parameters)


def _build(inputs: Inputs) -> tuple[pd.DataFrame | None, str | None]:
    if isinstance(inputs, pd.DataFrame):
        return inputs, None
    try:
        return inputs(), None
    except Exception as error:  # its message may quote a cell: only its type goes on
        return None, type(error).__name__


def run_suite(
    suite: Suite,
    frame: pd.DataFrame,
    values: Mapping[str, Any],
    inputs: Collection[Mapping[str, Any]],
    parameters: SiteParameters,
) -> list[CheckResult]:
    """One suite, filled in with `values` and, for what it repeats, with each of `inputs`, on the rows of its table."""
    from tasks.data.checks.engine import rows_looked_at, run_checks  # seconds of import: only where it is used

    checks = expand(suite, values, inputs)
    outcomes, looked_at = run_checks(frame, checks), rows_looked_at(frame, checks)
    return [_result(one, outcomes[one.id], frame, _rows(one, looked_at, parameters)) for one in checks]


def _result(check: Check, outcome: CheckOutcome, frame: pd.DataFrame, rows: RowsSeen | None) -> CheckResult:
    success = outcome.success or _has_no_median(check, frame)
    note = None if success else _column_note(check, frame)
    return CheckResult(id=check.id, success=success, exception=outcome.exception, note=note, rows=rows)


def _rows(check: Check, looked_at: Mapping[str, pd.DataFrame], parameters: SiteParameters) -> RowsSeen | None:
    """None too where the suite says that there may be none."""
    rows = looked_at.get(check.id)
    if rows is None or check.may_check_nothing:
        return None
    patients = rows[parameters.subject].nunique() if parameters.subject in rows else len(rows)
    return "none" if rows.empty else "few" if patients < parameters.min_cell else None


def _has_no_median(check: Check, frame: pd.DataFrame) -> bool:
    """Whether a median is asked of no values: like a range it holds of none, and another check says if some must be."""
    column = check.kwargs.get("column")
    return check.type == _MEDIAN_CHECK and column in frame.columns and bool(frame[column].isna().all())


def _column_note(check: Check, frame: pd.DataFrame) -> str | None:
    """Which columns are missing or leak. Other surplus columns are only counted: a header may hold a patient's data."""
    if check.type != _COLUMN_CHECK:
        return None
    expected, found = set(check.kwargs["column_set"]), set(frame.columns)
    surplus = found - expected
    leaking = {name for name in surplus if LEAKING_COLUMNS.match(str(name)) and re.fullmatch(r"[A-Z0-9]{4,8}", name)}
    parts = [
        ("missing", ", ".join(sorted(expected - found))),
        ("leaking", ", ".join(sorted(leaking))),
        ("other surplus columns", len(surplus - leaking)),
    ]
    return shorten("; ".join(f"{label}: {value}" for label, value in parts if value), MAX_NOTE)


def _apply_waiver(result: CheckResult, waivers: Collection[Waiver], today: date) -> CheckResult:
    if result.success:
        return result
    waiver = find_waiver(waivers, result.id)
    if waiver is None:
        return result
    if waiver.until < today:
        return result.model_copy(update={"note": f"the waiver by {waiver.who} expired on {waiver.until}"})
    note = shorten(f"waived until {waiver.until}: {waiver.why}", MAX_NOTE)
    return result.model_copy(update={"waived_by": shorten(waiver.who, MAX_NAME), "note": note})
