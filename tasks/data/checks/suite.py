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
from collections.abc import Mapping
from string import Formatter
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.foreign.bounds import MAX_EXPECTATIONS

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
