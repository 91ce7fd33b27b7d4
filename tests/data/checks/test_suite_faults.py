"""A wrong suite is told by line, expectation and argument before any data are looked at; a right one is left alone."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fuzz.mutations import spoil_json
from tasks.data.checks.library import MADE_UP, arguments_of, known_types
from tasks.data.checks.suite import OUTREACHING
from tasks.data.checks.suite_file import MAX_TOLD, read_suite
from tasks.data.checks.suites import load_suite
from tasks.data.reading.tables import read_table
from tasks.errors import ConfigError
from tasks.foreign.bounds import MAX_NAME

COLUMNS = {
    "PID": "string",
    "CODE": "string",
    "VALUE": "number",
    "VISIT": "integer",
    "DAY": "date",
    "ONSET": "partial_date",
}
BETWEEN, REGEX = "expect_column_values_to_be_between", "expect_column_values_to_match_regex"
IN_SET, UNIQUE = "expect_column_values_to_be_in_set", "expect_column_values_to_be_unique"
MEDIAN, COUNT = "expect_column_median_to_be_between", "expect_table_row_count_to_be_between"
CODES = {"type": IN_SET, "kwargs": {"column": "CODE", "value_set": ["TEMP", "PULSE"]}}
#: The line of the first expectation that `write` is given, one expectation a line.
FIRST = 6


def line(expectation: str, meta: dict[str, Any] | None = None, /, **kwargs: Any) -> dict[str, Any]:
    return {"type": expectation, "kwargs": kwargs} | ({"meta": meta} if meta else {})


def write(folder: Path, *lines: dict[str, Any], name: str = "labs", **meta: Any) -> Path:
    about = {"description": "x", "columns": COLUMNS, "key": ["PID", "CODE"]} | meta
    head = f'{{\n"name": {json.dumps(name)},\n"meta": {json.dumps(about)},\n"expectations": [\n{json.dumps(CODES)}'
    path = folder / f"{name}.json"
    path.write_text(",\n".join([head, *(json.dumps(each) for each in lines)]) + "\n]}\n")
    return path


def faults(path: Path) -> list[str]:
    """`LINE: fault`, without the path; the last sentence says whose fault it is."""
    with pytest.raises(ConfigError) as caught:
        load_suite(path.parent, path.stem)
    *told, last = str(caught.value).split("\n")
    assert last.endswith(f"The suite is wrong, whatever the data are: correct {path.name}")
    return [each.removeprefix(f"{path}:") for each in told]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown expectation": (
        line("expect_column_values_to_be_betwen", column="VALUE", min_value=1),
        "expect_column_values_to_be_betwen (VALUE): Great Expectations knows no such expectation; did you mean "
        + BETWEEN,
    ),
    "misspelt argument": (
        line(BETWEEN, column="VALUE", min_val=1, max_value=9),
        "min_val: it has no such argument; did you mean min_value?",
    ),
    "argument of the library's own": (
        line(BETWEEN, column="VALUE", min_value=1, result_format="COMPLETE"),
        "result_format: it has no such argument",
    ),
    "argument that looks elsewhere": (
        line(BETWEEN, column="VALUE", min_value=1, batch_id="other"),
        "batch_id: it has no such argument",
    ),
    "missing argument": (line(IN_SET, column="VALUE"), "value_set: is missing"),
    "missing column": (line(BETWEEN, min_value=1), "column: is missing"),
    "text for a number": (line(BETWEEN, column="VALUE", min_value="low"), "min_value: value is not a valid float"),
    "number in quotes": (
        line(BETWEEN, column="VALUE", min_value="36.5"),
        "min_value: a text where Great Expectations reads a number",
    ),
    "truth for a number": (line(BETWEEN, column="VALUE", min_value=True), "min_value: a true or false where"),
    "word for a truth": (line(BETWEEN, column="VALUE", min_value=1, strict_min="no"), "strict_min: a text where"),
    "part of a row": (
        line("expect_table_row_count_to_equal", value=2.5),
        "value: a number where Great Expectations reads a whole number",
    ),
    "a text for a set": (line(IN_SET, column="CODE", value_set="TEMP"), "value_set: value is not a valid list"),
    "unknown choice": (
        line("expect_compound_columns_to_be_unique", column_list=["PID", "CODE"], ignore_row_if="nevr"),
        "ignore_row_if: unexpected value; permitted: 'all_values",
    ),
    "one column of several": (
        line("expect_compound_columns_to_be_unique", column_list=["PID"]),
        "column_list must contain at least two",
    ),
    "unknown column": (
        line(BETWEEN, column="VALEU", min_value=1),
        "column: the table has no column VALEU; did you mean VALUE?",
    ),
    "unknown column of a pair": (
        line("expect_column_pair_values_to_be_equal", column_A="PID", column_B="pid"),
        "column_B: the table has no column pid; did you mean PID?",
    ),
    "unknown column of a list": (
        line("expect_compound_columns_to_be_unique", column_list=["PID", "CDOE"]),
        "column_list: the table has no column CDOE; did you mean CODE?",
    ),
    "column for a row condition unknown": (
        line(MEDIAN, column="VALUE", min_value=1, row_condition='CODES=="TEMP"'),
        "row_condition: the table has no column CODES; did you mean CODE?",
    ),
    "misspelt row condition": (
        line(MEDIAN, column="VALUE", min_value=1, row_condition='CODE=="TMEP"'),
        "row_condition: no row meets it: the suite does not allow 'TMEP' in CODE; did you mean TEMP?",
    ),
    "row condition on numbers": (
        line(MEDIAN, column="VALUE", min_value=1, row_condition='VISIT=="3"'),
        "row_condition: it compares texts, and VISIT is declared as integer",
    ),
    "row condition of another form": (
        line(MEDIAN, column="VALUE", min_value=1, row_condition="CODE = 'TEMP'"),
        'row_condition must be COLUMN=="text"',
    ),
    "row condition with an end of line": (
        line(MEDIAN, column="VALUE", min_value=1, row_condition='CODE=="TEMP"\n'),
        'row_condition must be COLUMN=="text"',
    ),
    "row condition that is null": (
        line(MEDIAN, column="VALUE", min_value=1, row_condition=None),
        'row_condition must be COLUMN=="text"',
    ),
    "row condition where none can be": (
        line("expect_table_column_count_to_equal", value=6, row_condition='CODE=="TEMP"'),
        "row_condition: it has no such argument",
    ),
    "bounds exchanged": (line(BETWEEN, column="VALUE", min_value=9, max_value=1), "min_value: nothing lies between"),
    "bounds that shut out each other": (
        line(BETWEEN, column="VALUE", min_value=1, max_value=1, strict_max=True),
        "nothing lies between",
    ),
    "dates exchanged": (
        line(BETWEEN, column="DAY", min_value="2014-01-01", max_value="2013-01-01"),
        "nothing lies between",
    ),
    "share of more than all": (
        line(BETWEEN, column="VALUE", min_value=1, mostly=95),
        "mostly: ensure this value is less than or equal to 1",
    ),
    "share below none": (
        line(BETWEEN, column="VALUE", min_value=1, mostly=-0.5),
        "mostly: ensure this value is greater than or equal to 0",
    ),
    "year for a date": (
        line(BETWEEN, column="DAY", min_value=2012),
        'min_value: the column holds dates: write the bound as "yyyy-mm-dd"',
    ),
    "day that there is not": (line(BETWEEN, column="DAY", max_value="2013-02-30"), "max_value: the column holds dates"),
    "day the other way round": (
        line(BETWEEN, column="DAY", max_value="01.02.2013"),
        "max_value: the column holds dates",
    ),
    "bounds on partial dates": (
        line(BETWEEN, column="ONSET", min_value="2012-01-01"),
        "cannot evaluate it on what meta.columns declares",
    ),
    "median of texts": (line(MEDIAN, column="CODE", min_value=1), "cannot evaluate it on what meta.columns declares"),
    "broken pattern": (line(REGEX, column="CODE", regex="TEMP("), "regex: no regular expression: missing )"),
    "one broken pattern of two": (
        line(f"{REGEX}_list", column="CODE", regex_list=["T", "[P"]),
        "regex_list: no regular expression",
    ),
    "broken pattern with site's numbers": (
        line(REGEX, column="PID", regex={"$FORMAT": "^({site_ids}-"}),
        "regex: no regular expression",
    ),
    "numbers in quotes in a set": (
        line(IN_SET, column="VISIT", value_set=["1", "2"]),
        "value_set: the column holds numbers (integer)",
    ),
    "numbers in a set of texts": (
        line(IN_SET, column="PID", value_set=["1", 2]),
        "value_set: the column holds texts (string)",
    ),
    "dates in a set": (line(IN_SET, column="DAY", value_set=["2012-01-01"]), "value_set: no date is in a set of texts"),
    "for databases only": (
        line("expect_column_values_to_match_like_pattern", column="CODE", like_pattern="T%"),
        "(MetricProviderError)",
    ),
    "type that is not the declared one": (
        line("expect_column_values_to_be_of_type", column="VISIT", type_="int64"),
        "it fails on any table as meta.columns declares it",
    ),
    "header that is not the declared one": (
        line("expect_table_columns_to_match_set", column_set=["PID", "CODE"]),
        "it fails on any table",
    ),
    "unknown parameter": (
        line(IN_SET, column="PID", value_set={"$PARAMETER": "subject"}),
        "value_set: there is no parameter subject; did you mean subjects?",
    ),
    "unknown placeholder": (
        line(REGEX, column="PID", regex={"$FORMAT": "^{site_id}-"}),
        "regex: there is no parameter site_id; did you mean site_ids?",
    ),
    "parameter of inputs": (
        line(BETWEEN, column="VALUE", min_value={"$PARAMETER": "input.lowest"}),
        'only an expectation with "for_each" in its meta has it',
    ),
    "misspelt mapping": (
        line(IN_SET, column="PID", value_set={"$PARAMETRE": "subjects"}),
        'value_set: a mapping is {"$PARAMETER": NAME}',
    ),
    "mapping within a list": (
        line(IN_SET, column="PID", value_set=["a", {"$PARAMETER": "subjects"}]),
        "value_set: a list holds no mapping",
    ),
    "repeated for nothing": (
        line(UNIQUE, {"for_each": "input"}, column="PID"),
        "for_each repeats an expectation of the suite `inputs`",
    ),
    "id too long": (
        line(MEDIAN, column="VALUE", min_value=1, row_condition=f'PID=="{"x" * MAX_NAME}"'),
        "its id is longer than 300 characters",
    ),
    "id that cannot be printed": (
        line(MEDIAN, column="VALUE", min_value=1, row_condition='PID=="\u202ex"'),
        "some that cannot be printed",
    ),
    "unknown key": (line(UNIQUE, column="PID") | {"kwarg": {}}, "kwarg: unknown key; did you mean kwargs?"),
    "unknown key of meta": (line(UNIQUE, {"note": "x"}, column="PID"), "note: unknown key; did you mean notes?"),
}
#: What holds of any table: nothing is guarded.
IDLE: dict[str, tuple[dict[str, Any], str]] = {
    "no bound": (line(BETWEEN, column="VALUE"), "it has neither min_value nor max_value, so nothing is checked"),
    "bounds that are null": (
        line(MEDIAN, column="VALUE", min_value=None, max_value=None),
        "neither min_value nor max_value",
    ),
    "no bound of a count": (line(COUNT), "neither min_value nor max_value"),
    "any number of rows": (line(COUNT, min_value=0), "every table lies within its bounds"),
    "any length": (
        line("expect_column_value_lengths_to_be_between", column="CODE", min_value=-1),
        "every table lies within its bounds",
    ),
    "any share": (
        line("expect_column_proportion_of_unique_values_to_be_between", column="CODE", max_value=1),
        "every table lies within",
    ),
    "empty set": (line(IN_SET, column="VISIT", value_set=[]), "value_set: it is empty, so nothing is checked"),
    "nothing excluded": (
        line("expect_column_values_to_not_be_in_set", column="VISIT", value_set=[]),
        "value_set: it is empty",
    ),
    "no pattern": (line(REGEX, column="CODE"), "regex: is missing, so nothing is checked"),
    "empty pattern": (line(REGEX, column="CODE", regex=""), "regex: it is empty, so nothing is checked"),
    "pattern of everything": (
        line(REGEX, column="CODE", regex="(?s).*"),
        "regex: it is found in any text, so nothing is checked",
    ),
    "pattern that may be absent": (line(REGEX, column="CODE", regex="(TEMP)?"), "regex: it is found in any text"),
    "no types": (line("expect_column_values_to_be_in_type_list", column="CODE"), "type_list: is missing"),
    "any share of values": (line(BETWEEN, column="VALUE", min_value=1, mostly=0), "mostly: at 0 every value passes"),
}


@pytest.mark.parametrize("name", WRONG | IDLE)
def test_what_is_wrong_is_told_once_with_its_line(name: str, tmp_path: Path) -> None:
    wrong, told = (WRONG | IDLE)[name]
    (fault,) = faults(write(tmp_path, line(UNIQUE, column="PID"), wrong))
    assert fault.startswith(f"{FIRST + 1}: ")
    assert told in fault


RIGHT: dict[str, dict[str, Any]] = {
    "one bound": line(BETWEEN, column="VALUE", max_value=9),
    "bounds that touch": line(BETWEEN, column="VALUE", min_value=1, max_value=1),
    "bounds below zero": line(BETWEEN, column="VALUE", min_value=-9, max_value=-1),
    "the lowest bound of what may be negative": line(BETWEEN, column="VALUE", min_value=0),
    "no rows at all": line(COUNT, max_value=0),
    "a null beside a bound": line(BETWEEN, column="DAY", min_value=None, max_value="2014-12-31"),
    "a day and an hour": line(BETWEEN, column="DAY", min_value="2012-01-01T08:00"),
    "a whole number for a share": line(BETWEEN, column="VALUE", min_value=1, mostly=1),
    "a code that the suite allows": line(MEDIAN, column="VALUE", min_value=1, row_condition='CODE=="TEMP"'),
    "all but one code": line(MEDIAN, column="VALUE", min_value=1, row_condition='CODE!="TEMP"'),
    "a value of which the suite says nothing": line(MEDIAN, column="VALUE", min_value=1, row_condition='ONSET=="2012"'),
    "a pattern for nothing or digits": line(REGEX, column="PID", regex=r"^(\d+)?$"),
    "a pattern for what must not be there": line(REGEX, column="PID", regex=r"^[^@]*$"),
    "a row condition that leaves nothing out": line(MEDIAN, column="VALUE", min_value=1, row_condition='CODE!="TMEP"'),
    "a pattern for a length": line(REGEX, column="PID", regex=r"^[\s\S]{0,200}$"),
    "a set with nothing in it": line(IN_SET, column="VALUE", value_set=[1, 2, None]),
    "a pattern that looks ahead for it": line(REGEX, column="PID", regex=r"^(?!.*test)"),
    "distinct days": line("expect_column_unique_value_count_to_be_between", column="DAY", min_value=2, max_value=99),
    "pairs": line(
        "expect_column_pair_values_to_be_in_set",
        column_A="CODE",
        column_B="PID",
        value_pairs_set=[["TEMP", "1"], ["PULSE", "2"]],
    ),
    "a pattern that cannot be in JSON": line(REGEX, column="PID", regex="^\\d{4}-[\u4e00-\u9fff]+$"),
    "the parser of conditions": line(
        MEDIAN, column="VALUE", min_value=1, row_condition='CODE=="TEMP"', condition_parser="pandas"
    ),
    "numbers of both kinds": line(IN_SET, column="VALUE", value_set=[1, 2.5]),
    "texts of digits": line(IN_SET, column="PID", value_set=["1", "2"]),
    "the declared header": line("expect_table_columns_to_match_ordered_list", column_list=list(COLUMNS)),
    "the declared type": line("expect_column_values_to_be_of_type", column="VISIT", type_="float64"),
    "a date after another": line(
        "expect_column_pair_values_a_to_be_greater_than_b", column_A="DAY", column_B="DAY", or_equal=True
    ),
    "half of the values null": line("expect_column_values_to_be_null", column="ONSET", mostly=0.5),
    "dates by a format": line("expect_column_values_to_match_strftime_format", column="ONSET", strftime_format="%Y"),
    "distances from the mean": line(
        "expect_column_value_z_scores_to_be_less_than", column="VALUE", threshold=4, double_sided=True
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_is_left_alone(name: str, tmp_path: Path) -> None:
    suite = load_suite(write(tmp_path, RIGHT[name]).parent, "labs")
    assert suite.expectations[1].kwargs == RIGHT[name]["kwargs"]


def test_all_faults_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    lines = [wrong for wrong, _ in list(WRONG.values())[:MAX_TOLD]]
    told = faults(write(tmp_path, *lines))
    assert [int(each.split(":")[0]) for each in told] == list(range(FIRST, FIRST + MAX_TOLD))
    many = write(tmp_path, *[line(UNIQUE, column=f"NO{n}") for n in range(200)])
    with pytest.raises(ConfigError, match=r"and 180 more faults\. The suite is wrong") as caught:
        load_suite(tmp_path, many.stem)
    assert len(str(caught.value).split("\n")) == MAX_TOLD + 1


def test_a_form_that_is_wrong_hides_no_fault_elsewhere(tmp_path: Path) -> None:
    told = faults(write(tmp_path, {"type": UNIQUE}, line(UNIQUE, column="PIDD"), line(UNIQUE, column="PID") | {"x": 1}))
    assert [each.split(": ", 1)[0] for each in told] == [str(FIRST), str(FIRST + 1), str(FIRST + 2)]
    assert "did you mean PID?" in told[1]


def test_a_fault_is_no_longer_than_a_note_and_stands_on_one_line(tmp_path: Path) -> None:
    told = faults(write(tmp_path, line(UNIQUE, column="N" * 50_000), line(UNIQUE, column="two\nlines")))
    assert len(told) == 2
    assert all(len(each) < 1100 for each in told)


def test_twins_are_told_by_where_the_first_stands(tmp_path: Path) -> None:
    (told,) = faults(write(tmp_path, line(UNIQUE, column="PID"), line(UNIQUE, column="PID", mostly=0.9)))
    assert (
        told == f"{FIRST + 1}: {UNIQUE} (PID): its id, labs/PID/{UNIQUE}, is that of expectation 2 too: merge the two"
    )


def test_what_belongs_to_the_table_is_checked_too(tmp_path: Path) -> None:
    (told,) = faults(write(tmp_path, key=["PID", "CDOE"]))
    assert told == "3: meta.key: the table has no column CDOE; did you mean CODE?"
    assert any("no column is declared" in each for each in faults(write(tmp_path, columns={})))
    (told,) = faults(write(tmp_path, column={}))
    assert told == "3: meta.column: unknown key; did you mean columns?"


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, line(BETWEEN, column="VALUE", min_value=1))
    path.write_text(path.read_text().replace('"min_value": 1', '"min_value": 1,\n"min_value": 9'))
    with pytest.raises(ConfigError, match=rf"labs\.json:{FIRST + 1}: .*'min_value' stands here for the second time"):
        load_suite(tmp_path, "labs")


def test_a_suite_of_tabs_and_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, line(MEDIAN, column="VALUE", min_value=1))
    path.write_text("\ufeff" + json.dumps(json.loads(path.read_text()), indent="\t"))
    assert len(load_suite(tmp_path, "labs").expectations) == 2


INPUTS: dict[str, Any] = {"name": "inputs", "columns": {}, "key": [], "range_scales": 8, "shift_scales": 3}
NAME = {"$PARAMETER": "input.name"}


def test_the_suite_of_inputs_is_checked_for_each_kind(tmp_path: Path) -> None:
    def inputs(*lines: dict[str, Any], **changes: Any) -> list[str]:
        path = write(tmp_path, *lines, **{**INPUTS, **changes})
        path.write_text(path.read_text().replace(f"{json.dumps(CODES)},\n", ""))
        return faults(path)

    values = line(IN_SET, {"for_each": "input"}, column=NAME, value_set={"$PARAMETER": "input.values"})
    (told,) = inputs(values)
    assert told.startswith(f"{FIRST - 1}: {IN_SET}")
    assert "value_set: is missing" in told, "a measured input has no codes"
    (told,) = inputs(line(UNIQUE, {"for_each": "coded_inputs"}, column=NAME))
    assert "'input', 'coded_input' or 'measured_input'" in told
    right = line(UNIQUE, {"for_each": "input"}, column=NAME)
    (told,) = inputs(right, shift_scales=None)
    assert told.endswith("needs range_scales and shift_scales")
    twice = inputs(right, line(UNIQUE, {"for_each": "measured_input"}, column=NAME))
    assert ["is that of expectation 1 too" in each for each in twice] == [True]


@pytest.mark.parametrize("table", ["adsl", "advs", "inputs"])
def test_a_spoilt_suite_is_read_or_refused_in_words(table: str, suites_dir: Path, tmp_path: Path) -> None:
    rng, body, told = Random(table), (suites_dir / f"{table}.json").read_bytes(), list[str]()
    for _ in range(60):
        (tmp_path / f"{table}.json").write_bytes(spoil_json(rng, body))
        try:
            assert read_suite(tmp_path / f"{table}.json").name == table
        except ConfigError as error:
            told.append(str(error))
    assert 10 < len(told) <= 60
    assert all(f"{table}.json" in each and len(each) < 25_000 for each in told)


def test_the_made_up_table_has_the_types_of_a_table_that_was_read(tmp_path: Path) -> None:
    path = tmp_path / "labs.csv"
    path.write_text(",".join(COLUMNS) + "\na,TEMP,36.5,1,2012-01-01,2012\n")
    read = read_table(path, COLUMNS)  # type: ignore[arg-type]
    assert {name: str(read[name].dtype) for name in COLUMNS} == {n: str(MADE_UP[t].dtype) for n, t in COLUMNS.items()}  # type: ignore[index]


def test_what_the_library_has_is_asked_of_the_library() -> None:
    assert len(known_types()) > 50
    assert not known_types() & OUTREACHING
    assert arguments_of(BETWEEN) >= {"column", "min_value", "max_value", "strict_min", "strict_max", "mostly"}
    for own in ("id", "meta", "result_format", "catch_exceptions", "severity", "windows", "batch_id"):
        assert not any(own in arguments_of(type_) for type_ in known_types())
