"""What an expectation has looked at: one that holds of no row at any site has not passed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.data.checks.parameters import InputReference, SiteParameters
from tasks.data.checks.runner import CheckResult, ValidationResult, at_every_site, validate_site
from tasks.errors import ConfigError, ValidationFailed
from tasks.rounds.site.validation import shown
from tasks.store.objects import to_json
from tasks.store.records.report import RoundMetrics
from tasks.study.privacy import promises

Line = dict[str, Any]
BETWEEN, MEDIAN = "expect_column_values_to_be_between", "expect_column_median_to_be_between"
NOT_NULL, COUNT = "expect_column_values_to_not_be_null", "expect_table_row_count_to_be_between"
COLUMNS = {"PID": "string", "CODE": "string", "VALUE": "number", "LATE": "number"}


def line(expectation: str, meta: dict[str, Any] | None = None, /, **kwargs: Any) -> Line:
    return {"type": expectation, "kwargs": kwargs} | ({"meta": meta} if meta else {})


def suites(folder: Path, *lines: Line, inputs: Sequence[Line] = ()) -> Path:
    always = line(NOT_NULL, column="PID")
    labs = {"name": "labs", "meta": {"description": "x", "columns": COLUMNS}, "expectations": [always, *lines]}
    header = line("expect_table_columns_to_match_set", column_set={"$PARAMETER": "input_names"})
    meta = {"description": "x", "range_scales": 8, "shift_scales": 3}
    for suite in (labs, {"name": "inputs", "meta": meta, "expectations": [header, *inputs]}):
        (folder / f"{suite['name']}.json").write_text(json.dumps(suite))
    return folder


def patients(number: int, code: str = "TEMP", late: float = np.nan) -> pd.DataFrame:
    ids = pd.Series([f"P{n}" for n in range(number)], dtype="str")
    return pd.DataFrame({"PID": ids, "CODE": pd.Series([code] * number, dtype="str"), "VALUE": 36.6, "LATE": late})


def validate(folder: Path, *parts: pd.DataFrame) -> ValidationResult:
    table = pd.concat(parts, ignore_index=True)
    age = InputReference(name="age", centre=60, scale=10)
    parameters = SiteParameters(
        site="1", site_ids=("1",), subject_table="labs", subject="PID", inputs=(age,), min_cell=5
    )
    return validate_site({"labs": table}, pd.DataFrame({"age": [60.0] * len(table)}), parameters, (), folder)


def rows(result: ValidationResult) -> dict[str, str]:
    return {check.id: check.rows for check in result.checks if check.rows is not None}


PULSE = f"labs/VALUE[CODE==PULSE]/{BETWEEN}"
ON_PULSE = line(BETWEEN, column="VALUE", min_value=1, row_condition='CODE=="PULSE"')


@pytest.mark.parametrize(("others", "expected"), [(0, "none"), (1, "few"), (4, "few"), (5, None), (6, None)])
def test_rows_are_counted_by_patients_and_only_by_class(others: int, expected: str | None, tmp_path: Path) -> None:
    pulse = patients(others, "PULSE")
    result = validate(suites(tmp_path, ON_PULSE), patients(8), pulse, pulse)
    assert rows(result) == ({} if expected is None else {PULSE: expected})
    assert result.success, "a site may honestly have no such row"
    assert [check.id for check in result.checking_nothing] == ([PULSE] if expected == "none" else [])
    assert not result.failures


def test_missing_values_are_not_looked_at_unless_they_are_what_is_asked_for(tmp_path: Path) -> None:
    lines = (line(BETWEEN, column="LATE", max_value=9), line(NOT_NULL, column="LATE", mostly=0.001))
    pairs = line("expect_column_pair_values_to_be_equal", column_A="LATE", column_B="LATE")
    result = validate(suites(tmp_path, *lines, pairs), patients(8))
    assert rows(result) == {f"labs/LATE/{BETWEEN}": "none", "labs/expect_column_pair_values_to_be_equal": "none"}
    assert [check.id for check in result.failures] == [f"labs/LATE/{NOT_NULL}"]
    assert rows(validate(tmp_path, patients(8), patients(4, late=3.0))) == {
        f"labs/LATE/{BETWEEN}": "few",
        "labs/expect_column_pair_values_to_be_equal": "few",
    }


def test_the_number_of_rows_is_no_value_in_a_row(tmp_path: Path) -> None:
    folder = suites(tmp_path, line(COUNT, min_value=1, row_condition='CODE=="PULSE"'), line(COUNT, min_value=1))
    with pytest.raises(ConfigError, match="is that of expectation 2 too"):
        validate(folder, patients(8))
    result = validate(suites(tmp_path, line(COUNT, min_value=1, row_condition='CODE=="PULSE"')), patients(8))
    assert ([check.id for check in result.failures], rows(result)) == ([f"labs/{COUNT}"], {})


def test_an_aggregate_of_no_row_fails_as_before_and_the_remedy_names_the_suite(tmp_path: Path) -> None:
    result = validate(
        suites(tmp_path, line(MEDIAN, column="VALUE", min_value=1, row_condition='CODE=="PULSE"')), patients(8)
    )
    assert rows(result) == {f"labs/VALUE[CODE==PULSE]/{MEDIAN}": "none"}
    with pytest.raises(ValidationFailed, match="or, in the suite, a row condition that no row meets"):
        result.require()
    assert at_every_site([result], "none") == (f"labs/VALUE[CODE==PULSE]/{MEDIAN}",)


def test_a_suite_may_say_that_there_are_no_such_rows_yet(tmp_path: Path) -> None:
    expected = {**ON_PULSE, "meta": {"may_check_nothing": True}}
    assert rows(validate(suites(tmp_path, expected), patients(8))) == {}


def test_a_column_that_the_site_lacks_fails_and_is_not_told_as_no_rows(tmp_path: Path) -> None:
    result = validate(suites(tmp_path, ON_PULSE), patients(8).drop(columns="VALUE"))
    assert ([check.id for check in result.failures], rows(result)) == ([PULSE], {})


def test_nothing_is_guarded_only_where_no_site_has_a_row(tmp_path: Path) -> None:
    folder = suites(tmp_path, ON_PULSE, line(BETWEEN, column="VALUE", min_value=1, row_condition='CODE=="TMEP"'))
    without, one = validate(folder, patients(8)), validate(folder, patients(8), patients(1, "PULSE"))
    misspelt = f"labs/VALUE[CODE==TMEP]/{BETWEEN}"
    assert at_every_site([without, without], "none") == (misspelt, PULSE)[::-1]
    assert at_every_site([without, one], "none") == (misspelt,)
    older = without.model_copy(update={"checks": tuple(c.model_copy(update={"rows": None}) for c in without.checks)})
    assert at_every_site([without, older], "none") == (), "an older site has not said"
    assert at_every_site([], "none") == ()


MECHANISMS = {"distributed_dp": False, "local_dp": False, "gaussian_update": False, "svt": False}
MECHANISMS |= {"none": True, "top": True, "random": True}


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_site_tells_no_more_than_that_there_are_few_and_that_only_without_privacy(
    mechanism: str, tmp_path: Path
) -> None:
    folder = suites(tmp_path, ON_PULSE, line(MEDIAN, column="VALUE", min_value=1, row_condition='CODE=="PULSE"'))
    told = [
        to_json(shown(validate(folder, patients(8), patients(number, "PULSE")), promises=promises(mechanism)))
        for number in (0, 1, 4)
    ]
    failed = f"labs/VALUE[CODE==PULSE]/{MEDIAN}".encode()
    assert [failed + b'",\n      "success": false' in each for each in told] == [True, False, False]
    assert [each.count(b'"few"') for each in told] == ([1, 2, 2] if MECHANISMS[mechanism] else [0, 0, 0])
    assert not any(b'"none"' in each for each in told)
    assert told[1] == told[2]


def test_without_privacy_one_row_more_changes_nothing_that_passes(tmp_path: Path) -> None:
    """The control of the test above: what stays at the site does differ."""
    folder = suites(tmp_path, ON_PULSE)
    kept = [validate(folder, patients(8), patients(number, "PULSE")) for number in (0, 1)]
    assert kept[0] != kept[1]
    assert shown(kept[0], promises=False) == shown(kept[1], promises=False)
    many = validate(folder, patients(8), patients(50, "PULSE"))
    assert shown(kept[0], promises=True) == shown(many, promises=True)


def test_records_of_older_sites_and_hubs_are_read() -> None:
    old = b'{"site": "1", "success": true, "checks": [{"id": "labs/x", "success": true, "waived_by": null}]}'
    (check,) = ValidationResult.model_validate_json(old).checks
    assert (check.rows, check.failed, check.checks_nothing) == (None, False, False)
    assert b"rows" not in to_json(CheckResult(id="labs/x", success=True)), "an older hub knows no such key"
    assert RoundMetrics.model_fields["idle_expectations"].default == ()


def test_an_input_that_is_none_of_the_study_s_is_the_suite_s_fault(tmp_path: Path) -> None:
    folder = suites(tmp_path, inputs=[line(BETWEEN, column="age", min_value=1)])
    assert validate(folder, patients(8)).success
    with pytest.raises(ConfigError, match=f"suite inputs: {BETWEEN} names agee, no input of the study; it has: age"):
        validate(suites(tmp_path, inputs=[line(BETWEEN, column="agee", min_value=1)]), patients(8))
