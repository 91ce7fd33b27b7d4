"""Reads a site's CSV tables, strictly: what cannot be read as declared is refused, never guessed.

Errors name file, column and how many cells are wrong. They never quote a cell, and they are raised outside any
`except`, so that no traceback carries one either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from tasks.data.checks.suite import ColumnType
from tasks.data.checks.suites import table_columns
from tasks.data.pin import RESTORE, differs_from_pin
from tasks.data.reading.cells import trim, typed
from tasks.data.reading.csv_file import read_cells
from tasks.errors import DataError
from tasks.study.reading import AS_IT_STANDS, Reading, TableRules

_MEANS = {"integer": "whole numbers", "number": "finite numbers", "date": "dates yyyy-mm-dd", "partial_date": "dates"}


def read_tables(
    site_dir: Path,
    tables: Iterable[str],
    suites_dir: Path,
    reading: Reading | None = None,
    *,
    pin_file: Path | None = None,
) -> dict[str, pd.DataFrame]:
    """Read `<site_dir>/<table>.csv` for each table, typed as its suite's `meta.columns` says.

    Cells are trimmed, and read by the study's `data.reading` where one is given.

    Types: string -> str, integer and number -> float64, date -> datetime64, partial_date (yyyy, yyyy-mm, yyyy-mm-dd) ->
    str; an empty cell is missing. A column that is missing or undeclared is left to the column expectation.

    Raises:
        DataError: a file is missing, empty, truncated or not UTF-8, or a cell is not of its column's type. With a
            `pin_file` that pins other bytes, the message says how to restore them.
    """
    rules = reading or Reading()
    return {
        table: _read(site_dir / f"{table}.csv", table_columns(suites_dir, table), rules.of_table(table), pin_file)
        for table in tables
    }


def _read(path: Path, columns: Mapping[str, ColumnType], rules: TableRules, pin_file: Path | None) -> pd.DataFrame:
    problem = ""
    try:
        return read_table(path, columns, rules)
    except DataError as error:
        problem = str(error)
    restore = f"; or {RESTORE}" if pin_file is not None and differs_from_pin(path, pin_file) else ""
    raise DataError(f"{problem}{restore}")


def read_table(path: Path, columns: Mapping[str, ColumnType], rules: TableRules = AS_IT_STANDS) -> pd.DataFrame:
    """Read one CSV file; see `read_tables`."""

    def check(header: list[str]) -> None:
        if not set(header) & set(columns):
            raise DataError(f"{path}: the first line is no header: none of the declared columns is in it")
        if len(set(header)) != len(header):
            raise DataError(f"{path}: {len(header) - len(set(header))} column names stand twice in the header")

    return _coerce(path, read_cells(path, check), columns, rules)


def _coerce(path: Path, frame: pd.DataFrame, columns: Mapping[str, ColumnType], rules: TableRules) -> pd.DataFrame:
    problems = []
    for column, type_ in columns.items():
        if column not in frame.columns:
            continue
        frame[column], bad = typed(trim(frame[column]), type_, rules.of(column, is_text=type_ == "string"))
        if bad:
            problems.append(f"column {column}: {bad} cells are not {_MEANS[type_]}")
    if problems:
        raise DataError(
            f"{path}: {'; '.join(problems)}; correct the export, or say under data.reading in the study what they mean"
        )
    return frame
