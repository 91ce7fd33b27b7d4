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
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tasks.errors import ConfigError
from tasks.foreign_files import listed, read_ordinary

ROW_CONDITION = re.compile(r'^(\w+)(==|!=)"([^"]+)"$')
#: Expectations that do more than look at the table: a JSON schema may name an address, which is then fetched.
OUTREACHING = frozenset({"expect_column_values_to_match_json_schema", "expect_query_results_to_match_comparison"})
ColumnType = Literal["string", "integer", "number", "date", "partial_date"]


def _is_simple(template: object) -> bool:
    if not isinstance(template, str):
        return False
    try:
        fields = [field for field in Formatter().parse(template) if field[1] is not None]
    except ValueError:
        return False
    return all(name.isidentifier() and not form and not conversion for _, name, form, conversion in fields)  # type: ignore[union-attr]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ExpectationMeta(_Record):
    notes: str = ""
    for_each: Literal["input", "coded_input", "measured_input"] | None = None


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
    def _formats_are_simple(self) -> Self:
        """`{site_ids:>9999999999}` would ask for ten gigabytes of blanks, `{site_ids.__class__}` for our insides."""
        for value in self.kwargs.values():
            if isinstance(value, dict) and not _is_simple(value.get("$FORMAT", "")):
                raise ValueError("$FORMAT is a text whose placeholders are names, such as {site_ids}")
        return self

    @model_validator(mode="after")
    def _row_condition_is_simple(self) -> Self:
        condition = self.kwargs.get("row_condition")
        if condition is not None and not ROW_CONDITION.match(str(condition)):
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
    expectations: tuple[Expectation, ...] = Field(min_length=1)


class Check(_Record):
    """An expectation with all filled in. `kwargs` may hold ids of patients, so it is neither shown nor stored."""

    id: str
    type: str
    kwargs: dict[str, Any] = Field(repr=False, exclude=True)


def load_suite(suites_dir: Path, table: str) -> Suite:
    """Read `<suites_dir>/<table>.json`.

    Raises:
        ConfigError: no such suite, or it says something that a suite cannot say.
    """
    path = suites_dir / f"{table}.json"
    if not path.is_file():
        raise ConfigError(f"no suite {path}; there is one for: {', '.join(suite_names(suites_dir)) or 'no table'}")
    return _load(path, path.stat().st_mtime_ns)


@cache
def _load(path: Path, _mtime_ns: int) -> Suite:
    try:
        suite = Suite.model_validate_json(read_ordinary(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "suite"
        raise ConfigError(f"{path}: {place}: {first['msg']}") from None
    if suite.name != path.stem:
        raise ConfigError(f"{path}: the suite's name is {suite.name!r}, but the file is named {path.name}")
    return suite


def suite_names(suites_dir: Path) -> list[str]:
    return [path.stem for path in listed(suites_dir, "*.json")]


def table_columns(suites_dir: Path, table: str) -> dict[str, ColumnType]:
    """The columns that `table` has, in order, and their types."""
    return load_suite(suites_dir, table).meta.columns


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
        ConfigError: an unknown parameter, or two checks with one id.
    """
    rows = list(inputs)
    values = {**values, "columns": list(suite.meta.columns), "key": list(suite.meta.key)}
    checks: list[Check] = []
    for expectation in suite.expectations:
        kind = expectation.meta.for_each
        scopes = [{}] if kind is None else [row for row in rows if kind in row["input.kinds"]]
        checks += [_check(suite, expectation, {**values, **scope}) for scope in scopes]
    _refuse_twins(suite, checks)
    return checks


def _check(suite: Suite, expectation: Expectation, values: Mapping[str, Any]) -> Check:
    kwargs = {key: _fill(suite, value, values) for key, value in expectation.kwargs.items()}
    return Check(id=_check_id(suite.name, expectation.type, kwargs), type=expectation.type, kwargs=kwargs)


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
