"""What each column holds, as far as it may be told: type, whether it is filled, categories, and round bounds.

A category that fewer than `MIN_CELL` patients have is counted, never named. Bounds are round figures about the values
that are left when the most extreme patients but `MIN_CELL` are set aside on each side; a side on which somebody lies
further out has none. What is drafted from here is shared by all sites.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from tasks.study_init.folder import SiteFolders, Table
from tasks.study_init.rounding import decades, round_bounds
from tasks.study_init.subjects import MIN_CELL, Subjects, find_key, holds_site_codes
from tasks.validation.suites import ColumnType

#: A text column with more different values is free text.
MAX_CATEGORIES = 20
#: A column that says when a row was measured: study day, visit number, week.
TIME = re.compile(r"(^|_)(day|dy|visit|visitnum|week|month)(_|$)|^A?DY$|^VISITNUM$|DY$", re.ASCII)
_INTEGER = r"-?(0|[1-9]\d{0,14})"
_NUMBER = r"-?((0|[1-9]\d{0,14})(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?"
_DATE = r"\d{4}-\d{2}-\d{2}"
_PARTIAL_DATE = r"\d{4}(-\d{2}(-\d{2})?)?"
#: Names of numbers that measure nothing, in words apart: `house_no`, `postCode`, `phone2`; not `no_of_falls`.
_CODE = re.compile(
    r"(^|_)(id|code|zip|zip_?code|post_?code|postal(_code)?|phone|phone_?number|mobile|telephone|tel|fax|ssn|mrn)\d*(_|$)"
    r"|(^|_)(no|nr|num|number|post)\d*$|(subj|patient|person|site|record|sample|case)id$",
    re.ASCII,
)
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

    @property
    def is_numeric(self) -> bool:
        return self.type in ("integer", "number")


@dataclass(frozen=True)
class Profile:
    """One table: its columns in order, its key, and its rows typed as a round would read them."""

    name: str
    columns: Mapping[str, Column]
    key: tuple[str, ...]
    rows: pd.DataFrame
    site: pd.Series
    has_site_codes: bool

    def of_site(self, site: str) -> pd.DataFrame:
        return self.rows[self.site == site].reset_index(drop=True)


def profile_tables(folder: SiteFolders, subjects: Subjects) -> dict[str, Profile]:
    """Every table's profile, the table with one row per subject first."""
    order = sorted(folder.tables, key=lambda name: (name != subjects.main, name))
    return {name: _profile(folder.tables[name], subjects) for name in order}


def _profile(table: Table, subjects: Subjects) -> Profile:
    site_codes = holds_site_codes(table, subjects)
    names = {subjects.column} | ({subjects.site_column} if site_codes else set())
    types = {c: "string" if c in names else _type(table.rows[c]) for c in map(str, table.rows.columns)}
    rows = pd.DataFrame({column: _typed(table.rows[column], type_) for column, type_ in types.items()})
    patients = pd.MultiIndex.from_arrays([table.site, rows[subjects.column]])
    columns = {c: _column(c, types[c], rows[c], table.site, patients, is_name=c in names) for c in types}
    in_key = [c for c in types if types[c] != "number" and c != subjects.site_column]
    in_key.sort(key=lambda c: types[c] == "integer" and not TIME.search(c))
    return Profile(table.name, columns, find_key(table, subjects.column, in_key), rows, table.site, site_codes)


def _type(cells: pd.Series) -> ColumnType:
    """The narrowest type that every filled cell has; a whole number of more than 15 digits is a name."""
    filled = cells.dropna()
    if filled.empty:
        return "string"
    if filled.str.fullmatch(_INTEGER).all():
        return "integer"
    if filled.str.fullmatch(_NUMBER).all() and np.isfinite(filled.astype(float)).all():
        return "number"
    if filled.str.fullmatch(_DATE).all() and pd.to_datetime(filled, format="%Y-%m-%d", errors="coerce").notna().all():
        return "date"
    return "partial_date" if filled.str.fullmatch(_PARTIAL_DATE).all() else "string"


def _typed(cells: pd.Series, type_: ColumnType) -> pd.Series:
    if type_ == "date":
        return pd.to_datetime(cells, format="%Y-%m-%d")
    return pd.to_numeric(cells).astype(np.float64) if type_ in ("integer", "number") else cells


def _column(
    name: str, type_: ColumnType, values: pd.Series, site: pd.Series, patients: pd.MultiIndex, *, is_name: bool
) -> Column:
    filled = values.notna()
    column = Column(name, type_, required=bool(filled.all()))
    if is_name or patients[filled].nunique() < MIN_CELL:
        return column
    if type_ == "string":
        return _with_categories(column, values, site, patients)
    if type_ == "partial_date":
        return column
    if type_ != "date" and values[filled].isin([0, 1]).all():
        return replace(column, is_flag=True)
    is_code = type_ == "integer" and _looks_like_code(name, values[filled], patients[filled])
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
    words = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())
    if _CODE.search(words.strip("_")):
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
