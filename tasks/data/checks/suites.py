r"""The suites in `expectations/`: one JSON per table in the form of a Great Expectations suite.

Two forms stand for what a reviewer cannot know in advance, and `expand` fills them in:

    {"$PARAMETER": "site_ids"}                 a value of the run: site_ids, subjects, columns, key, input.name, ...
    {"$FORMAT": "^01-(?:{site_ids})-\d+$"}     a text with lists joined by `|`
    "meta": {"for_each": "measured_input"}     the expectation is repeated for each such input of the study

`"row_condition": "PARAMCD==\"TEMP\""` picks rows; `==` and `!=` with one text are all it knows.

`meta.columns` is the one place that says which columns a table has, and of which type.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.errors import ConfigError
from tasks.foreign.bounds import MAX_EXPECTATIONS
from tasks.foreign.files import listed

#: The suite of a study's inputs, which is no table's.
INPUTS = "inputs"
ROW_CONDITION = re.compile(r'^(\w+)(==|!=)"([^"]+)"$')
#: Expectations that do more than look at the table: a JSON schema may name an address, which is then fetched.
OUTREACHING = frozenset({"expect_column_values_to_match_json_schema", "expect_query_results_to_match_comparison"})
ColumnType = Literal["string", "integer", "number", "date", "partial_date"]


def _placeholders(template: str) -> set[str]:
    """Raises ValueError unless the text is names in braces, as `{site_ids:>9999999999}` and `{a.__class__}` are not."""
    fields = [field for field in Formatter().parse(template) if field[1] is not None]
    if not all(name and name.isidentifier() and not form and not conversion for _, name, form, conversion in fields):
        raise ValueError("a placeholder is a name")
    return {str(name) for _, name, _, _ in fields}


def parameters_of(value: object) -> set[str]:
    """The parameters that an argument is filled in with."""
    if not isinstance(value, dict):
        return set()
    return {value["$PARAMETER"]} if "$PARAMETER" in value else _placeholders(value["$FORMAT"])


def columns_of(kwargs: Mapping[str, Any]) -> list[str]:
    """The columns that arguments name as they stand."""
    named = [value for name, value in kwargs.items() if name.startswith("column")]
    texts = [each for value in named for each in (value if isinstance(value, list | tuple) else [value])]
    return [each for each in texts if isinstance(each, str)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ExpectationMeta(_Record):
    """`may_check_nothing`: sites may have no row for it yet, and are not asked to."""

    notes: str = ""
    for_each: Literal["input", "coded_input", "measured_input"] | None = None
    may_check_nothing: bool = False


class Expectation(_Record):
    """One line of a suite, named as Great Expectations names it."""

    type: str = Field(pattern=r"^expect_[a-z_]+$")
    kwargs: dict[str, Any]
    meta: ExpectationMeta = ExpectationMeta()

    @model_validator(mode="after")
    def _only_looks_at_the_table(self) -> Self:
        if self.type in OUTREACHING:
            raise ValueError(f"{self.type} reads more than the table: use another expectation")
        return self

    @model_validator(mode="after")
    def _mappings_are_filled_in(self) -> Self:
        for name, value in self.kwargs.items():
            if isinstance(value, list) and any(isinstance(each, dict) for each in value):
                raise ValueError(f"{name}: a list holds no mapping; a parameter may stand for the whole list")
            if isinstance(value, dict) and (len(value) != 1 or not value.keys() <= {"$PARAMETER", "$FORMAT"}):
                raise ValueError(f'{name}: a mapping is {{"$PARAMETER": NAME}} or {{"$FORMAT": TEXT}}')
            if isinstance(value, dict) and not isinstance(value.get("$PARAMETER", ""), str):
                raise ValueError(f"{name}: $PARAMETER is a name")
            if isinstance(value, dict) and "$FORMAT" in value:
                try:
                    _placeholders(value["$FORMAT"])
                except (TypeError, ValueError):
                    raise ValueError(
                        f"{name}: $FORMAT is a text whose placeholders are names, such as {{site_ids}}"
                    ) from None
        return self

    @model_validator(mode="after")
    def _row_condition_is_simple(self) -> Self:
        condition = self.kwargs.get("row_condition", 'C=="text"')
        if not isinstance(condition, str) or not ROW_CONDITION.fullmatch(condition):
            raise ValueError('row_condition must be COLUMN=="text" or COLUMN!="text"')
        return self


class SuiteMeta(_Record):
    """What belongs to a table beside its expectations. `range_scales` and `shift_scales` are for inputs only."""

    description: str
    columns: dict[str, ColumnType] = Field(default_factory=dict)
    key: tuple[str, ...] = ()
    range_scales: float | None = Field(default=None, gt=0)
    shift_scales: float | None = Field(default=None, gt=0)


class Suite(_Record):
    name: str
    meta: SuiteMeta
    expectations: tuple[Expectation, ...] = Field(min_length=1, max_length=MAX_EXPECTATIONS)


class Check(_Record):
    """An expectation with all filled in. `kwargs` may hold ids of patients, so it is neither shown nor stored."""

    id: str
    type: str
    kwargs: dict[str, Any] = Field(repr=False, exclude=True)
    may_check_nothing: bool = False


def load_suite(suites_dir: Path, table: str, *, for_columns: bool = False) -> Suite:
    """Read `<suites_dir>/<table>.json`.

    `for_columns` is for those that ask for the table's columns and run no expectation: these are then held to their
    form and not to their library, whose import takes seconds.

    Raises:
        ConfigError: no such suite, or all that is wrong with it and can be known without data, each with its line.
    """
    path = suites_dir / f"{table}.json"
    if not path.is_file():
        raise ConfigError(f"no suite {path}; there is one for: {', '.join(suite_names(suites_dir)) or 'no table'}")
    return _load(path, path.stat().st_mtime_ns, for_columns)


@cache
def _load(path: Path, _mtime_ns: int, for_columns: bool) -> Suite:
    from tasks.data.checks.suite_file import read_suite

    return read_suite(path, for_columns=for_columns)


def suite_names(suites_dir: Path) -> list[str]:
    return [path.stem for path in listed(suites_dir, "*.json")]


def table_columns(suites_dir: Path, table: str) -> dict[str, ColumnType]:
    """The columns that `table` has, in order, and their types."""
    return load_suite(suites_dir, table, for_columns=True).meta.columns


def all_columns(suites_dir: Path) -> dict[str, set[str]]:
    """Table -> its columns, for every table that has a suite (`inputs` is not a table)."""
    columns = {name: set(table_columns(suites_dir, name)) for name in suite_names(suites_dir)}
    return {table: names for table, names in columns.items() if names}


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
