"""Reads a site's CSV tables, strictly: what cannot be read as declared is refused, never guessed.

Errors name file, column and how many cells are wrong. They never quote a cell, and they are raised outside any
`except`, so that no traceback carries one either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.data.csv_file import read_cells
from tasks.data.pin import RESTORE, differs_from_pin
from tasks.errors import DataError
from tasks.validation.suites import ColumnType, table_columns

_MEANS = {"integer": "whole numbers", "number": "finite numbers", "date": "dates yyyy-mm-dd", "partial_date": "dates"}


def read_tables(
    site_dir: Path, tables: Iterable[str], suites_dir: Path, *, pin_file: Path | None = None
) -> dict[str, pd.DataFrame]:
    """Read `<site_dir>/<table>.csv` for each table, typed as its suite's `meta.columns` says.

    Types: string -> str, integer and number -> float64, date -> datetime64, partial_date (yyyy, yyyy-mm, yyyy-mm-dd) ->
    str; an empty cell is missing. A column that is missing or undeclared is left to the column expectation.

    Raises:
        DataError: a file is missing, empty, truncated or not UTF-8, or a cell is not of its column's type. With a
            `pin_file` that pins other bytes, the message says how to restore them.
    """
    return {table: _read(site_dir / f"{table}.csv", table_columns(suites_dir, table), pin_file) for table in tables}


def _read(path: Path, columns: Mapping[str, ColumnType], pin_file: Path | None) -> pd.DataFrame:
    problem = ""
    try:
        return read_table(path, columns)
    except DataError as error:
        problem = str(error)
    restore = f"; or {RESTORE}" if pin_file is not None and differs_from_pin(path, pin_file) else ""
    raise DataError(f"{problem}{restore}")


def read_table(path: Path, columns: Mapping[str, ColumnType]) -> pd.DataFrame:
    """Read one CSV file; see `read_tables`."""

    def check(header: list[str]) -> None:
        if not set(header) & set(columns):
            raise DataError(f"{path}: the first line is no header: none of the declared columns is in it")
        if len(set(header)) != len(header):
            raise DataError(f"{path}: {len(header) - len(set(header))} column names stand twice in the header")

    return _coerce(path, read_cells(path, check), columns)


def _coerce(path: Path, frame: pd.DataFrame, columns: Mapping[str, ColumnType]) -> pd.DataFrame:
    problems = []
    for column, type_ in columns.items():
        if column not in frame.columns or type_ == "string":
            continue
        typed = _typed(frame[column], type_)
        bad = int((typed.isna() & frame[column].notna()).sum())
        if bad:
            problems.append(f"column {column}: {bad} cells are not {_MEANS[type_]}")
        frame[column] = typed
    if problems:
        raise DataError(f"{path}: {'; '.join(problems)}; correct the export")
    return frame


def _typed(cells: pd.Series, type_: ColumnType) -> pd.Series:
    """The cells in their type; what is not of it becomes missing."""
    if type_ == "date":
        return pd.to_datetime(cells.where(cells.str.len() == 10), format="%Y-%m-%d", errors="coerce")
    if type_ == "partial_date":
        return cells.where(cells.str.fullmatch(r"\d{4}(-\d{2}(-\d{2})?)?").fillna(False).astype(bool))
    numbers = pd.to_numeric(cells, errors="coerce").astype(np.float64)
    numbers = numbers.where(np.isfinite(numbers))
    return numbers.where(numbers == numbers.round()) if type_ == "integer" else numbers
