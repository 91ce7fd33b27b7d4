"""Reads a site's CSV tables, strictly: what cannot be read as declared is refused, never guessed.

Errors name file, column and how many cells are wrong. They never quote a cell, and they are raised outside any
`except`, so that no traceback carries one either.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.errors import DataError
from tasks.validation.suites import ColumnType, table_columns

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MEANS = {"integer": "whole numbers", "number": "finite numbers", "date": "dates yyyy-mm-dd", "partial_date": "dates"}


def read_tables(site_dir: Path, tables: Iterable[str], suites_dir: Path) -> dict[str, pd.DataFrame]:
    """Read `<site_dir>/<table>.csv` for each table, typed as its suite's `meta.columns` says.

    Types: string -> str, integer and number -> float64, date -> datetime64, partial_date (yyyy, yyyy-mm, yyyy-mm-dd) ->
    str; an empty cell is missing. A column that is missing or undeclared is left to the column expectation.

    Raises:
        DataError: a file is missing, empty, truncated or not UTF-8, or a cell is not of its column's type.
    """
    return {table: read_table(site_dir / f"{table}.csv", table_columns(suites_dir, table)) for table in tables}


def read_table(path: Path, columns: Mapping[str, ColumnType]) -> pd.DataFrame:
    """Read one CSV file; see `read_tables`."""
    text = _read_text(path)
    _check_lines(path, text, columns)
    frame = _parse(text)
    if frame is None:
        raise DataError(f"{path}: not readable as CSV: export it again, or restore it with `dvc checkout`")
    return _coerce(path, frame, columns)


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise DataError(f"{path}: no such file: restore it with `dvc checkout` or `pharmafed data prepare`")
    raw = path.read_bytes()
    if not raw.strip():
        raise DataError(f"{path}: the file is empty: restore it with `dvc checkout` or `pharmafed data prepare`")
    if raw.startswith(codecs.BOM_UTF8):
        raise DataError(f"{path}: begins with a byte-order mark: export it as UTF-8 without BOM")
    if raw.startswith(_UTF16) or b"\0" in raw:
        raise DataError(f"{path}: looks like UTF-16: export it as UTF-8")
    text = _decode(raw)
    if text is None:
        raise DataError(f"{path}: not UTF-8 (Latin-1 or Windows-1252?): export it as UTF-8")
    return text


def _decode(raw: bytes) -> str | None:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _check_lines(path: Path, text: str, columns: Mapping[str, ColumnType]) -> None:
    """Truncation shows as a last line without its end, or as lines with too few fields."""
    if not text.endswith("\n"):
        raise DataError(f"{path}: truncated: the last line has no end; restore it with `dvc checkout`")
    header, counts = _shape(text)
    if not set(header) & set(columns):
        raise DataError(f"{path}: the first line is no header: none of the declared columns is in it")
    if len(set(header)) != len(header):
        raise DataError(f"{path}: {len(header) - len(set(header))} column names stand twice in the header")
    ragged = sum(count != len(header) for count in counts)
    if ragged:
        raise DataError(
            f"{path}: truncated or broken: {ragged} lines have not the header's {len(header)} fields; "
            "restore it with `dvc checkout`"
        )


def _shape(text: str) -> tuple[list[str], list[int]]:
    """The header, and each further line's number of fields; -1 for what is not CSV."""
    if '"' not in text:
        first, *lines = text.removesuffix("\n").split("\n")
        return first.rstrip("\r").split(","), [line.count(",") + 1 for line in lines]
    try:
        first_row, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        return first_row, [len(row) for row in rows]
    except csv.Error:
        return text.split("\n", 1)[0].rstrip("\r").split(","), [-1]


def _parse(text: str) -> pd.DataFrame | None:
    try:
        return pd.read_csv(
            io.StringIO(text), dtype=str, keep_default_na=False, na_values=[""], index_col=False, skip_blank_lines=False
        )
    except (ValueError, pd.errors.ParserError):
        return None


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
