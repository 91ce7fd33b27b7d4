"""Everything that is wrong with a suite and can be known without data: a wrong suite must never be told as wrong data.

What an expectation is called and takes is asked of the installed Great Expectations (`tasks.data.checks.library`); the
rest follows from what the suite itself declares.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from tasks.data.checks.expand import check_of, scopes
from tasks.data.checks.parameters import InputReference
from tasks.data.checks.suite import (
    INPUTS,
    ROW_CONDITION,
    Check,
    ColumnType,
    Expectation,
    Suite,
    columns_of,
    parameters_of,
)
from tasks.data.checks.value_faults import TEXTUAL, value_faults
from tasks.foreign.bounds import MAX_NAME, Name, shorten
from tasks.foreign.json_file import JsonPath
from tasks.foreign.spelling import nearest

#: What says which values a column may have.
_ALLOWS = re.compile(r"expect_column_(values_to_be_in|distinct_values_to_(be_in|equal))_set")
_NAME = TypeAdapter(Name)
_MADE_UP = (
    InputReference(name="measured", centre=0, scale=1),
    InputReference(name="coded", centre=0, scale=1, values=(0.0, 1.0)),
)


class Fault(NamedTuple):
    """What is wrong, and where: keys and indices from the root of the file."""

    place: JsonPath
    text: str


def suite_faults(suite: Suite, indices: Iterable[int]) -> Iterator[Fault]:
    """Every fault of a suite whose parts have the right form; `indices`: where in the file each expectation stands."""
    from tasks.data.checks.library import trial_faults  # Great Expectations: seconds

    yield from _of_meta(suite)
    sound: dict[str, tuple[_One, Check]] = {}
    for index, expectation in zip(indices, suite.expectations, strict=True):
        one = _One(suite, index, expectation)
        faults = list(dict.fromkeys(one.faults()))
        yield from faults
        for check in one.checks() if not faults else ():
            if not _is_name(check.id):
                yield one.fault(f"its id is longer than {MAX_NAME} characters, or has some that cannot be printed")
            if check.id in sound:
                other = sound[check.id][0].index + 1
                yield one.fault(f"its id, {check.id}, is that of expectation {other} too: merge the two")
            sound.setdefault(check.id, (one, check))
    for id_, text in trial_faults(_columns(suite), [check for _, check in sound.values()]):
        yield sound[id_][0].fault(text)


def _of_meta(suite: Suite) -> Iterator[Fault]:
    columns = suite.meta.columns
    if suite.name != INPUTS and not columns:
        yield Fault(("meta",), "meta.columns: no column is declared: name every column of the table and its type")
    for index, name in enumerate(suite.meta.key if columns else ()):
        if name not in columns:
            yield Fault(("meta", "key", index), f"meta.key: the table has no column {name}; {nearest(name, columns)}")
    if suite.name == INPUTS and None in (suite.meta.range_scales, suite.meta.shift_scales):
        yield Fault(("meta",), "meta: the suite of the inputs needs range_scales and shift_scales")


def _columns(suite: Suite) -> dict[str, ColumnType]:
    """The columns of the table; of the inputs, made-up ones and those that an expectation names."""
    if suite.name != INPUTS:
        return suite.meta.columns
    named = [name for expectation in suite.expectations for name in columns_of(expectation.kwargs)]
    return dict.fromkeys([*(one.name for one in _MADE_UP), *named], "number")


def _is_name(text: str) -> bool:
    try:
        _NAME.validate_python(text)
    except ValidationError:
        return False
    return True


@dataclass(frozen=True)
class _One:
    """One expectation of a suite; `index` is its place in the file."""

    suite: Suite
    index: int
    expectation: Expectation

    def fault(self, text: str, argument: str | None = None) -> Fault:
        place = ("expectations", self.index, *(("kwargs", argument) if argument else ()))
        return Fault(place, f"{self._name()}{f' {argument}' if argument else ''}: {text}")

    def checks(self) -> list[Check]:
        """With made-up values for what only a run knows."""
        return [check_of(self.suite, self.expectation, values) for values in self._scopes()]

    def faults(self) -> Iterator[Fault]:
        """Later ones only where earlier ones leave something to look at."""
        from tasks.data.checks.library import known_types

        type_, known = self.expectation.type, known_types()
        if type_ not in known:
            yield self.fault(f"Great Expectations knows no such expectation; {nearest(type_, known)}")
        elif self.expectation.meta.for_each is not None and self.suite.name != INPUTS:
            yield self.fault("for_each repeats an expectation of the suite `inputs`, and makes none here: take it out")
        elif unfilled := list(self._unfilled()):
            yield from unfilled
        else:
            yield from self._of_arguments()

    def _name(self) -> str:
        """`expect_column_median_to_be_between (AVAL where PARAMCD=="TEMP")`."""
        rows = self.expectation.kwargs.get("row_condition")
        about = ", ".join(columns_of(self.expectation.kwargs)) + (f" where {rows}" if rows else "")
        return shorten(f"{self.expectation.type} ({about.strip()})" if about else self.expectation.type, MAX_NAME)

    def _scopes(self) -> list[dict[str, Any]]:
        values = {"site_ids": ["1"], "subjects": ["1"], "num_subjects": 1, "input_names": list(_columns(self.suite))}
        if self.suite.name != INPUTS or None in (self.suite.meta.range_scales, self.suite.meta.shift_scales):
            return scopes(self.suite, self.expectation, values)
        return scopes(self.suite, self.expectation, values, [r.suite_values(self.suite.meta) for r in _MADE_UP])

    def _unfilled(self) -> Iterator[Fault]:
        known = {name for values in self._scopes() for name in values}
        for argument, value in self.expectation.kwargs.items() if known else ():
            for name in parameters_of(value) - known:
                hint = nearest(name, known)
                if name.startswith("input.") and self.expectation.meta.for_each is None:
                    hint = 'only an expectation with "for_each" in its meta has it'
                yield self.fault(f"there is no parameter {name}; {hint}", argument)

    def _of_arguments(self) -> Iterator[Fault]:
        from tasks.data.checks.library import argument_faults, arguments_of

        type_, known = self.expectation.type, arguments_of(self.expectation.type)
        unknown = self.expectation.kwargs.keys() - known
        for argument in sorted(unknown):
            others = known - self.expectation.kwargs.keys()
            yield self.fault(f"it has no such argument; {nearest(argument, others)}", argument)
        for check in self.checks():
            kwargs = {name: value for name, value in check.kwargs.items() if name not in unknown}
            own = list(value_faults(type_, known, kwargs, self.suite.meta.columns))
            told = {argument for argument, _ in own}
            other = [(name, text) for name, text in argument_faults(type_, kwargs) if name not in told]
            for argument, text in own + [fault for fault in other if fault[0] or not own]:
                yield self.fault(text, argument or None)
        if self.suite.name != INPUTS:
            yield from self._of_columns()
            yield from self._of_rows()

    def _of_columns(self) -> Iterator[Fault]:
        columns = self.suite.meta.columns
        for argument, value in self.expectation.kwargs.items():
            for name in columns_of({argument: value}):
                if name not in columns:
                    yield self.fault(f"the table has no column {name}; {nearest(name, columns)}", argument)

    def _of_rows(self) -> Iterator[Fault]:
        """A row condition that picks no row of any table that passes the rest of the suite."""
        match = ROW_CONDITION.fullmatch(self.expectation.kwargs.get("row_condition") or "")
        if match is None:
            return
        column, operator, value = match.groups()
        columns, allowed = self.suite.meta.columns, self._allowed(column)
        if column not in columns:
            problem = f"the table has no column {column}; {nearest(column, columns)}"
        elif columns[column] not in TEXTUAL:
            problem = f"it compares texts, and {column} is declared as {columns[column]}: choose by a column of texts"
        elif allowed is not None and value not in allowed and operator == "==":
            problem = f"no row meets it: the suite does not allow {value!r} in {column}; {nearest(value, allowed)}"
        else:
            return
        yield self.fault(problem, "row_condition")

    def _allowed(self, column: str) -> set[str] | None:
        """The values that another expectation of this suite, about all rows, allows in a column of texts."""
        for type_, kwargs in ((other.type, other.kwargs) for other in self.suite.expectations):
            values, of_all = kwargs.get("value_set"), "row_condition" not in kwargs and kwargs.get("mostly", 1) == 1
            if kwargs.get("column") == column and of_all and _ALLOWS.fullmatch(type_) and isinstance(values, list):
                return {value for value in values if isinstance(value, str)} or None
        return None
