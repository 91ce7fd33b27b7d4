"""Reads a site's CSV tables, strictly: what cannot be read as declared is refused, never guessed.

Errors name file, column and how many cells are wrong. They never quote a cell, and they are raised outside any
`except`, so that no traceback carries one either.
"""

from __future__ import annotations

import codecs
import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pandas as pd

from tasks.data.cells import trim, typed
from tasks.errors import DataError
from tasks.foreign_files import open_ordinary
from tasks.study_reading import AS_IT_STANDS, Reading, TableRules
from tasks.validation.suites import ColumnType, table_columns

#: A table of ten million rows; its cells take several times as much memory.
MAX_TABLE_BYTES = 1 << 30
#: Characters of a cell: a narrative has some hundred thousand.
MAX_CELL = 1_000_000
#: Bytes of a row, over all of its lines.
MAX_ROW_BYTES = 16 << 20
MAX_COLUMNS = 10_000
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_MEANS = {"integer": "whole numbers", "number": "finite numbers", "date": "dates yyyy-mm-dd", "partial_date": "dates"}


def read_tables(
    site_dir: Path, tables: Iterable[str], suites_dir: Path, reading: Reading | None = None
) -> dict[str, pd.DataFrame]:
    """Read `<site_dir>/<table>.csv` for each table, typed as its suite's `meta.columns` says.

    Cells are trimmed, and read by the study's `data.reading` where one is given.

    Types: string -> str, integer and number -> float64, date -> datetime64, partial_date (yyyy, yyyy-mm, yyyy-mm-dd) ->
    str; an empty cell is missing. A column that is missing or undeclared is left to the column expectation.

    Raises:
        DataError: a file is missing, empty, truncated or not UTF-8, or a cell is not of its column's type.
    """
    rules = reading or Reading()
    return {
        table: read_table(site_dir / f"{table}.csv", table_columns(suites_dir, table), rules.of_table(table))
        for table in tables
    }


def read_table(path: Path, columns: Mapping[str, ColumnType], rules: TableRules = AS_IT_STANDS) -> pd.DataFrame:
    """Read one CSV file; see `read_tables`. The text is never in memory as a whole, only the cells."""
    with _open(path) as file:
        before = os.fstat(file.fileno())
        _check(path, file, columns)
        file.seek(0)
        frame = _parse(file)
        after = os.fstat(file.fileno())
    if frame is None:
        raise DataError(f"{path}: not readable as CSV: export it again, or restore it with `dvc checkout`")
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise DataError(f"{path}: written to while it was read: wait until the export has ended")
    return _coerce(path, frame, columns, rules)


def read_header(path: Path) -> list[str]:
    """The first line's cells. Raises DataError as `read_tables`, for what the first line already shows."""
    with _open(path) as file, _long_cells():
        return next(_rows(path, file), [])


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    if not path.exists():
        raise DataError(f"{path}: no such file: restore it with `dvc checkout` or `pharmafed data prepare`")
    with open_ordinary(path, MAX_TABLE_BYTES) as file:
        if not file.read(MAX_CELL).strip():
            raise DataError(f"{path}: the file is empty: export it again, or restore it with `dvc checkout`")
        file.seek(0)
        yield file


def _check(path: Path, file: BinaryIO, columns: Mapping[str, ColumnType]) -> None:
    """Truncation shows as a last line without its end, or as lines with too few fields."""
    with _long_cells():
        rows = _rows(path, file)
        header = next(rows, [])
        width, ragged = len(header), 0
        for row in rows:
            ragged += len(row) != width and (len(row) or 1) != width  # a blank line is an empty cell of one column
    if not set(header) & set(columns):
        raise DataError(f"{path}: the first line is no header: none of the declared columns is in it")
    if len(set(header)) != width:
        raise DataError(f"{path}: {width - len(set(header))} column names stand twice in the header")
    if ragged:
        raise DataError(
            f"{path}: truncated or broken: {ragged} lines have not the header's {width} fields; "
            "restore it with `dvc checkout`"
        )


@contextmanager
def _long_cells() -> Iterator[None]:
    """The csv module's own limit, one for the whole process, is too low for a narrative."""
    before = csv.field_size_limit(MAX_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _rows(path: Path, file: BinaryIO) -> Iterator[list[str]]:
    """The rows, header first. What is not CSV counts as one row without cells, and ends them.

    Raises:
        DataError: a line or cell is too long, or there are too many columns; the line is named.
    """
    lines = _Lines(path, file)
    reader = csv.reader(lines, strict=True)
    while True:
        problem = None
        try:
            row = next(reader, None)
        except csv.Error as error:
            row, problem = [], str(error)
        if problem and problem.startswith("field larger than"):
            raise DataError(f"{path}: line {lines.number}: a cell of more than {MAX_CELL:,} characters")
        if row is None:
            return
        if len(row) > MAX_COLUMNS:
            raise DataError(f"{path}: line {lines.number}: {len(row):,} columns, more than {MAX_COLUMNS:,}")
        yield row
        if problem:
            return
        lines.end_row()


class _Lines:
    """A file's lines as text. `number` is the newest one's, counted from 1.

    A row goes over several lines where a cell in quotes does, so it has a limit of its own.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.number, self._path, self._file, self._row_bytes = 0, path, file, 0
        self._ended = True

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        raw = self._file.readline(MAX_ROW_BYTES + 1)
        if not raw:
            self._require_end()
            raise StopIteration
        self.number += 1
        self._row_bytes += len(raw)
        self._ended = raw.endswith(b"\n")
        self._require(raw)
        text = _decode(raw)
        if text is None:
            raise self._refuse("not UTF-8 (Latin-1 or Windows-1252?): export it as UTF-8")
        return text

    def end_row(self) -> None:
        """The lines so far belong to rows that are complete."""
        self._row_bytes = 0

    def _require(self, raw: bytes) -> None:
        if self.number == 1 and raw.startswith(codecs.BOM_UTF8):
            raise self._refuse("begins with a byte-order mark: export it as UTF-8 without BOM")
        if b"\0" in raw or (self.number == 1 and raw.startswith(_UTF16)):
            raise self._refuse("looks like UTF-16: export it as UTF-8")
        if self._row_bytes > MAX_ROW_BYTES:
            raise self._refuse(f"a row of more than {MAX_ROW_BYTES:,} bytes: is an end of line or a quote missing?")

    def _require_end(self) -> None:
        if not self._ended:
            raise self._refuse(
                "truncated: the last line has no end; export it again, or restore it with `dvc checkout`"
            )

    def _refuse(self, problem: str) -> DataError:
        return DataError(f"{self._path}: {problem} (line {self.number})")


def _decode(raw: bytes) -> str | None:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _parse(file: BinaryIO) -> pd.DataFrame | None:
    try:
        return pd.read_csv(
            file, dtype=str, keep_default_na=False, na_values=[""], index_col=False, skip_blank_lines=False
        )
    except (ValueError, pd.errors.ParserError):
        return None


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
