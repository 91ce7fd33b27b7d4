"""What each column holds, as far as it may be told: type, whether it is filled, categories, and round bounds.

A category that fewer than `MIN_CELL` patients have is counted, never named. Bounds are round figures about the values
that are left when the most extreme patients but `MIN_CELL` are set aside on each side; a side on which somebody lies
further out has none. What is drafted from here is shared by all sites.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import pandas as pd

from tasks.data.checks.suite import ColumnType
from tasks.data.drafting.column_types import ReadColumn, Source, read_column
from tasks.data.drafting.folder import SiteFolders, Table
from tasks.data.drafting.names import is_named_like_a_code, is_named_like_a_time
from tasks.data.drafting.questions import ColumnQuestion
from tasks.data.drafting.rounding import decades, round_bounds
from tasks.data.drafting.sentinels import suspicious_numbers
from tasks.data.drafting.spellings import coded_otherwise, spelled_twice
from tasks.data.drafting.subjects import MIN_CELL, Subjects, find_key, holds_site_codes
from tasks.data.drafting.told import Told
from tasks.study.reading import ColumnRules

#: A text column with more different values is free text.
MAX_CATEGORIES = 20
#: A whole number of five digits or more of which so large a share is one patient's alone is a name, too.
_OWN_SHARE, _FIVE_DIGITS = 0.9, 10_000
Bound = float | str | None


@dataclass(frozen=True)
class Column:
    """One column over all sites.

    categories: values of a text column that enough patients have, most frequent first; empty for free text and ids.
    num_rare: how many further values it has. common_share: a round share of rows that `categories` cover at each site.
    bounds: round figures beyond all values, dates as text; a side is None where only few patients lie so far out,
    both where too few have a value. looks_like_code: a number that names something, such as a telephone number.
    num_values: how many different whole numbers it holds; 0 where one of them is none.
    """

    name: str
    type: ColumnType
    required: bool
    categories: tuple[str, ...] = ()
    num_rare: int = 0
    common_share: float = 1.0
    bounds: tuple[Bound, Bound] = (None, None)
    is_flag: bool = False
    looks_like_code: bool = False
    num_values: int = 0

    @property
    def is_numeric(self) -> bool:
        return self.type in ("integer", "number")

    @property
    def is_whole(self) -> bool:
        """Whether it holds whole numbers, written 1 or 1.0."""
        return self.type == "integer" or (self.type == "number" and self.num_values > 0)


@dataclass(frozen=True)
class Profile:
    """One table: its columns in order, its key, and its rows typed as a round would read them.

    rules: how the study says its columns are to be read. questions: what cannot be known of its cells.
    """

    name: str
    columns: Mapping[str, Column]
    key: tuple[str, ...]
    rows: pd.DataFrame
    site: pd.Series
    has_site_codes: bool
    rules: Mapping[str, ColumnRules] = field(default_factory=dict)
    questions: tuple[ColumnQuestion, ...] = ()

    def of_site(self, site: str) -> pd.DataFrame:
        return self.rows[self.site == site].reset_index(drop=True)


def profile_tables(folder: SiteFolders, subjects: Subjects, told: Told | None = None) -> dict[str, Profile]:
    """Every table's profile, the table with one row per subject first; each with the questions that it leaves."""
    order = sorted(folder.tables, key=lambda name: (name != subjects.main, name))
    return {name: _profile(folder.tables[name], subjects, told or Told()) for name in order}


def _profile(table: Table, subjects: Subjects, told: Told) -> Profile:
    site_codes = holds_site_codes(table, subjects)
    names = {subjects.column} | ({subjects.site_column} if site_codes else set())
    patients = pd.MultiIndex.from_arrays([table.site, table.rows[subjects.column]])
    sources = {str(c): Source(table.name, str(c), table.rows[c], table.site, patients) for c in table.rows.columns}
    read = {c: _read(source, told, is_name=c in names) for c, source in sources.items()}
    rows = pd.DataFrame({c: one.values for c, one in read.items()})
    columns = {c: _column(sources[c], read[c], is_name=c in names) for c in sources}
    in_key = [c for c, one in read.items() if one.type != "number" and c != subjects.site_column]
    in_key.sort(key=lambda c: read[c].type == "integer" and not is_named_like_a_time(c))
    key = find_key(replace(table, rows=rows), subjects.column, in_key)
    return Profile(
        table.name,
        columns,
        key,
        rows,
        table.site,
        site_codes,
        rules={c: one.own for c, one in read.items() if one.own != ColumnRules()},
        questions=tuple(q for c, one in read.items() for q in _questions(sources[c], one, told) if c not in names),
    )


def _read(source: Source, told: Told, *, is_name: bool) -> ReadColumn:
    if is_name:
        return ReadColumn("string", ColumnRules(), source.cells)
    return read_column(source, told, is_code=is_named_like_a_code(source.name))


def _questions(source: Source, read: ReadColumn, told: Told) -> Iterator[ColumnQuestion]:
    """Of a column whose cells are no question, whether its values are."""
    if read.question is not None:
        yield read.question
    is_code = is_named_like_a_code(source.name) and (read.names or read.type != "string")
    if read.question is not None or source.place in told.keep or is_code:
        return
    asked = [coded_otherwise(source, read.values)] if read.type in ("string", "integer") else []
    if read.type == "string":
        asked = [spelled_twice(source, read.values), *asked]
    elif read.type in ("integer", "number"):
        asked = [suspicious_numbers(source, read.values), *asked]
    yield from (question for question in asked if question is not None)


def _column(source: Source, read: ReadColumn, *, is_name: bool) -> Column:
    values, patients, type_ = read.values, source.patients, read.type
    filled = values.notna()
    column = Column(source.name, type_, required=bool(filled.all()))
    if column.is_numeric and (values[filled] == values[filled].round()).all():
        column = replace(column, num_values=int(values.nunique()))
    if is_name or patients[filled].nunique() < MIN_CELL:
        return column
    if type_ == "string":
        column = replace(column, looks_like_code=read.names and is_named_like_a_code(source.name))
        return _with_categories(column, values, source.site, patients)
    if type_ == "partial_date":
        return column
    if type_ != "date" and values[filled].isin([0, 1]).all():
        return replace(column, is_flag=True)
    is_code = column.is_whole and _looks_like_code(source.name, values[filled], patients[filled])
    return replace(column, looks_like_code=is_code, bounds=_bounds(values[filled], patients[filled]))


def _bounds(values: pd.Series, patients: pd.MultiIndex) -> tuple[Bound, Bound]:
    """From the fifth lowest and the fifth highest patient, widened by rounding; none on a side that somebody exceeds.

    With so few patients that these two cross, none at all.
    """
    per_patient = values.set_axis(patients).groupby(level=[0, 1])
    low = per_patient.min().nsmallest(MIN_CELL).iloc[-1]
    high = per_patient.max().nlargest(MIN_CELL).iloc[-1]
    if low > high:
        return None, None
    if isinstance(low, pd.Timestamp):
        first, last = decades(low.year, high.year)
        return (
            f"{first:04}-01-01" if values.min().year >= first else None,
            f"{last:04}-12-31" if values.max().year <= last else None,
        )
    below, above = round_bounds(float(low), float(high))
    return below if values.min() >= below else None, above if values.max() <= above else None


def _looks_like_code(name: str, values: pd.Series, patients: pd.MultiIndex) -> bool:
    if is_named_like_a_code(name):
        return True
    if values.abs().median() < _FIVE_DIGITS:
        return False
    owners = pd.DataFrame({"value": values.to_numpy(), "patient": patients}).drop_duplicates()["value"].value_counts()
    return bool((owners == 1).mean() >= _OWN_SHARE)


def _with_categories(column: Column, values: pd.Series, site: pd.Series, patients: pd.MultiIndex) -> Column:
    """Categories are named if enough patients have each, and if most rows of every site are among them."""
    filled = values.notna().to_numpy()
    if values.nunique() > MAX_CATEGORIES:
        return column
    once = pd.DataFrame({"value": values[filled].to_numpy(), "patient": patients[filled]}).drop_duplicates()
    counts = once["value"].value_counts()
    common = sorted(counts[counts >= MIN_CELL].index, key=lambda value: (-counts[value], value))
    share = values[filled].isin(common).groupby(site[filled]).mean().min() if filled.any() else 0.0
    rare = len(counts) - len(common)
    covered = 1.0 if rare == 0 else min(0.9, math.floor(share * 10) / 10)
    if not common or covered < 0.5:
        return replace(column, num_rare=rare)
    return replace(column, categories=tuple(map(str, common)), num_rare=rare, common_share=covered)
