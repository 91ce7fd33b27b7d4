"""Suites are read strictly, filled in completely, and cover every table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.data.checks.expand import expand
from tasks.data.checks.parameters import InputReference, input_references
from tasks.data.checks.runner import known_expectations
from tasks.data.checks.suite import OUTREACHING
from tasks.data.checks.suites import all_columns, load_suite, suite_names, table_columns
from tasks.errors import ConfigError
from tasks.study.file import load_study
from tasks.study.sections import LEAKING_COLUMNS, Study

TABLES = ["adadas", "adlbc", "adlbh", "adnpix", "adsl", "adtte", "advs", "cm", "mh"]
BETWEEN = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "AGE", "min_value": 50}}


def write_suite(folder: Path, *expectations: dict[str, Any], **changes: Any) -> Path:
    meta = {"description": "x", "columns": {"AGE": "integer"}, "key": ["AGE"]}
    suite = {"name": "adsl", "meta": meta, "expectations": list(expectations or (BETWEEN,)), **changes}
    (folder / "adsl.json").write_text(json.dumps(suite))
    return folder


def test_each_table_has_a_suite_and_each_key_is_a_column(suites_dir: Path) -> None:
    assert suite_names(suites_dir) == sorted([*TABLES, "inputs"])
    columns = all_columns(suites_dir)
    assert sorted(columns) == TABLES
    for table in TABLES:
        meta = load_suite(suites_dir, table).meta
        assert meta.key
        assert set(meta.key) <= columns[table]
        assert list(table_columns(suites_dir, table)) == list(meta.columns)


def test_only_label_columns_tell_of_the_outcome(suites_dir: Path) -> None:
    leaking = {name for names in all_columns(suites_dir).values() for name in names if LEAKING_COLUMNS.match(name)}
    assert leaking == {"COMP24FL", "CNSR", "EVNTDESC"}


def test_the_default_study_reads_only_declared_columns(suites_dir: Path) -> None:
    path = suites_dir.parent / "studies/xanomeline_derm56.yaml"
    assert load_study(path, columns=all_columns(suites_dir)).study == "xanomeline_derm56"


def test_every_expectation_is_known_to_the_library(suites_dir: Path) -> None:
    from great_expectations.expectations.registry import list_registered_expectation_implementations

    known = set(list_registered_expectation_implementations())
    used = {e.type for name in suite_names(suites_dir) for e in load_suite(suites_dir, name).expectations}
    assert len(used) >= 10
    assert used <= known


def test_ids_are_readable_and_stable(suites_dir: Path, study: Study) -> None:
    ids = known_expectations(suites_dir, input_references(study))
    assert {
        "adsl/AGE/expect_column_values_to_be_between",
        "adsl/expect_table_columns_to_match_set",
        "advs/AVAL[PARAMCD==TEMP]/expect_column_median_to_be_between",
        "inputs/haemoglobin/expect_column_values_to_not_be_null",
        "inputs/build",
    } <= ids


def test_lists_become_alternatives_in_a_format(suites_dir: Path) -> None:
    values = {"site_ids": ["702", "7.6"], "subjects": []}
    checks = {check.id: check for check in expand(load_suite(suites_dir, "adsl"), values)}
    regex = checks["adsl/USUBJID/expect_column_values_to_match_regex"].kwargs["regex"]
    assert regex == r"^01-(?:702|7\.6)-\d\d\d\d$"


REFUSED = {
    "unknown key": ({"surprise": 1}, r"adsl\.json:1: surprise: unknown key; there are: expectations, meta, name"),
    "other name": ({"name": "mh"}, "the suite's name is 'mh'"),
    "no expectations": ({"expectations": []}, "expectations"),
    "unknown type": ({"meta": {"description": "x", "columns": {"AGE": "float"}}}, "meta.columns.AGE"),
    "a condition we cannot read": (
        {"expectations": [{**BETWEEN, "kwargs": {"column": "AGE", "row_condition": "AGE > 3"}}]},
        "row_condition must be",
    ),
    "not an expectation": ({"expectations": [{**BETWEEN, "type": "AGE > 50"}]}, r"expectations\.0\.type"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_suite_is_refused(name: str, tmp_path: Path) -> None:
    changes, reason = REFUSED[name]
    with pytest.raises(ConfigError, match=reason):
        load_suite(write_suite(tmp_path, **changes), "adsl")


def test_broken_json_is_refused_and_an_edit_is_seen(tmp_path: Path) -> None:
    load_suite(write_suite(tmp_path), "adsl")
    (tmp_path / "adsl.json").write_text("{")
    with pytest.raises(ConfigError, match=r"adsl\.json:1: not readable as JSON: Expecting property name"):
        load_suite(tmp_path, "adsl")


def test_an_unknown_parameter_and_twins_are_refused(tmp_path: Path) -> None:
    unknown = {"type": BETWEEN["type"], "kwargs": {"column": "AGE", "min_value": {"$PARAMETER": "agee"}}}
    with pytest.raises(ConfigError, match="min_value: there is no parameter agee"):
        load_suite(write_suite(tmp_path, unknown), "adsl")
    twins = write_suite(tmp_path, BETWEEN, {**BETWEEN, "meta": {"notes": "again"}})
    with pytest.raises(ConfigError, match=r"its id, adsl/AGE/.*, is that of expectation 1 too"):
        load_suite(twins, "adsl")


def test_bounds_are_symmetric_in_the_scaled_space() -> None:
    plain = InputReference(name="age", centre=75, scale=8)
    assert plain.bounds(2) == (59, 91)
    log = InputReference(name="alt", centre=20, scale=0.45, transform="log1p")
    low, high = log.bounds(1)
    assert (low + 1) * (high + 1) == pytest.approx(21**2)
    assert low < 20 < high


MATCH = "expect_column_values_to_match_regex"


@pytest.mark.parametrize(
    "template",
    [
        "{site_ids:>9999999999}",
        "{site_ids.__class__}",
        "{site_ids[0]}",
        "{site_ids!r}",
        "{0}",
        "{}",
        "{",
        ["a"],
        {"a": 1},
    ],
    ids=repr,
)
def test_a_format_is_names_in_braces(template: object, tmp_path: Path) -> None:
    def suite(value: object) -> Path:
        kwargs = {"column": "AGE", "regex": {"$FORMAT": value}}
        return write_suite(tmp_path, {"type": MATCH, "kwargs": kwargs})

    with pytest.raises(ConfigError, match=r"placeholders are names, such as \{site_ids\}"):
        load_suite(suite(template), "adsl")
    (check,) = expand(load_suite(suite("^{site_ids}-\\d{{4}}$"), "adsl"), {"site_ids": ["1.2"]})
    assert check.kwargs["regex"] == "^1\\.2-\\d{4}$"


@pytest.mark.parametrize("type_", sorted(OUTREACHING))
def test_an_expectation_that_reads_more_than_the_table_is_refused(type_: str, tmp_path: Path) -> None:
    schema = {"column": "AGE", "json_schema": {"$ref": "http://127.0.0.1:9/x"}}
    with pytest.raises(ConfigError, match=f"{type_} reads more than the table"):
        load_suite(write_suite(tmp_path, {"type": type_, "kwargs": schema}), "adsl")
    assert load_suite(write_suite(tmp_path, {"type": MATCH, "kwargs": {"column": "AGE", "regex": "x"}}), "adsl")
