"""The `data.reading` section of a study: what the cells of its tables mean where a number or a word does not say it.

Every site reads its own raw files by these rules, in each round and each check, so what was said once when the study
was drafted holds for the cells that come later.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from tasks.study.privacy import Section


def _as_text(value: Any) -> Any:
    """YAML reads 99 as a number; what stands in a cell is text. A bare `no` is neither, and is refused."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


CellText = Annotated[str, BeforeValidator(_as_text), Field(min_length=1, max_length=300)]
BelowLimit = Literal["half", "limit", "missing"]
AboveLimit = Literal["limit", "missing"]


class CellRules(Section):
    """How cells are read. Each is trimmed first; one that is empty then is missing, whatever stands here.

    missing: codes that stand for no value; in a column of numbers 99 is 99.0 too. below_limit: what `<0.3` is read as:
    half of the limit, the limit, or missing; above_limit: the same for `>90`. decimal: comma, where 3,5 is 3.5 and
    1.234 is refused, since it may be a thousand; either, where 3,5 and 3.5 are one, and 1.234 is little more than 1.
    Of all columns it is no rule for 1,234, which may be a thousand: only a column's own rule is.
    """

    missing: tuple[CellText, ...] = Field(default=(), max_length=100)
    below_limit: BelowLimit | None = None
    above_limit: AboveLimit | None = None
    decimal: Literal["comma", "either"] | None = None


class ColumnRules(CellRules):
    """Those of one column. `same` maps a value to its other spellings."""

    same: dict[CellText, tuple[CellText, ...]] = Field(default_factory=dict, max_length=1000)

    @property
    def spellings(self) -> dict[str, str]:
        """Other spelling -> value."""
        return {other: value for value, others in self.same.items() for other in others}

    @model_validator(mode="after")
    def _each_spelling_once(self) -> ColumnRules:
        others = [other for spelled in self.same.values() for other in spelled]
        if len(set(others)) != len(others) or set(others) & set(self.same):
            raise ValueError("same: a spelling stands for two values, or for itself")
        return self


class AppliedRules(ColumnRules):
    """A column's rules with those of all. is_own_decimal: `decimal` was said of this column, and so of 1,234 too."""

    is_own_decimal: bool = True


class Reading(CellRules):
    """The rules of all columns of numbers and dates, and under `columns` (TABLE.COLUMN) those of one column besides.

    A text column has only its own: a country NA is no missing value.
    """

    columns: dict[str, ColumnRules] = Field(default_factory=dict, max_length=10_000)

    def of_table(self, table: str) -> TableRules:
        """The rules of one table."""
        prefix = f"{table}."
        own = {key.removeprefix(prefix): rules for key, rules in self.columns.items() if key.startswith(prefix)}
        return TableRules(every=CellRules(**self.model_dump(exclude={"columns"})), columns=own)

    def unknown_tables(self, tables: Iterable[str]) -> list[str]:
        """The keys of `columns` that name no column of one of these tables."""
        known = set(tables)
        return [key for key in self.columns if not (key.partition(".")[2] and key.partition(".")[0] in known)]


class TableRules(Section):
    """One table's part of a `Reading`."""

    every: CellRules = CellRules()
    columns: dict[str, ColumnRules] = Field(default_factory=dict)

    def of(self, column: str, *, is_text: bool) -> AppliedRules:
        """A column's own rules, and where it holds no text, those of all such columns besides."""
        own = self.columns.get(column, ColumnRules())
        if is_text:
            return AppliedRules(**own.model_dump())
        return AppliedRules(
            missing=(*self.every.missing, *own.missing),
            below_limit=own.below_limit or self.every.below_limit,
            above_limit=own.above_limit or self.every.above_limit,
            decimal=own.decimal or self.every.decimal,
            same=own.same,
            is_own_decimal=own.decimal is not None,
        )


AS_IT_STANDS = TableRules()
