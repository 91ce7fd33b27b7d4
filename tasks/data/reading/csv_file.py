"""Reads a CSV file into columns of text, in one pass: the rows that are checked are the rows that are read.

Lines end in LF, CR LF or CR. A byte-order mark is passed over, and so are empty lines at the end. A cell in quotes may
hold commas, ends of lines, and quotes written twice. All else is refused, by line and number of fields; an error never
quotes a cell, and is raised outside any `except`, so that no traceback carries one either.
"""

from __future__ import annotations

import codecs
import csv
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import BufferedReader, TextIOWrapper
from itertools import chain, islice
from pathlib import Path
from typing import cast

import pandas as pd

from tasks.errors import DataError
from tasks.foreign.files import open_ordinary

#: A table of ten million rows; its cells take several times as much memory.
MAX_TABLE_BYTES = 1 << 30
#: Characters of a cell: a narrative has some hundred thousand.
MAX_CELL = 1_000_000
#: Characters of a row, over all of its lines.
MAX_ROW = 16 << 20
MAX_COLUMNS = 10_000
#: Cells that become part of the columns at once, since each is an object until then.
_BLOCK = 30_000
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
#: What the csv module says -> what is wrong with the row, and the remedy.
_NO_CSV = {
    "field larger than": f"a cell of more than {MAX_CELL:,} characters: is a closing quote missing?",
    "unexpected end": "a quote is opened here and never closed: close it, or export the file again",
}
_QUOTE_WITHIN = "text follows a closing quote: within quoted text, write a quote twice"
CsvRow = list[str]


def read_cells(path: Path, check_header: Callable[[CsvRow], None]) -> pd.DataFrame:
    """All cells as text (dtype `str`), NaN where one is empty. The text is never in memory as a whole, only the cells.

    Args:
        path: the file.
        check_header: raises where the first row names no columns.

    Raises:
        DataError: a file that is missing, empty, truncated, not UTF-8, no CSV, too large, or written to meanwhile.
    """
    with _open(path) as text:
        before = os.fstat(text.fileno())
        rows = _rows(path, text)
        _, header = next(rows)
        check_header(header)
        if not header:
            raise DataError(f"{path}: line 1 is empty: the first line names the columns")
        frame = _columns(header, _whole(path, len(header), rows))
        after = os.fstat(text.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise DataError(f"{path}: written to while it was read: wait until the export has ended")
    return frame


def read_csv_header(path: Path) -> CsvRow:
    """The first row's cells. Raises DataError as `read_cells`, for what the first row already shows."""
    with _open(path) as text:
        return next(_rows(path, text))[1]


@contextmanager
def _open(path: Path) -> Iterator[TextIOWrapper]:
    """The file after its byte-order mark. Meanwhile the csv module's limit, one for the whole process, is MAX_CELL."""
    if not path.exists():
        raise DataError(f"{path}: no such file: put it there")
    with open_ordinary(path, MAX_TABLE_BYTES) as file:
        head = file.read(MAX_CELL)
        if head.startswith(_UTF16) or b"\0" in head:
            raise DataError(f"{path}: looks like UTF-16: export it as UTF-8 (line 1)")
        if not head.removeprefix(codecs.BOM_UTF8).strip():
            raise DataError(f"{path}: the file is empty: export it again")
        file.seek(len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0)
        usual = csv.field_size_limit(MAX_CELL)
        try:
            yield TextIOWrapper(file, encoding="utf-8", newline="")
        finally:
            csv.field_size_limit(usual)


def _columns(header: CsvRow, rows: Iterator[CsvRow]) -> pd.DataFrame:
    """Cells in one long list, not rows in a list: Python's collector of garbage would look at every row again."""
    parts: list[list[pd.Series]] = [[pd.Series([], dtype="str")] for _ in header]
    width, cells = len(header), chain.from_iterable(rows)
    while block := list(islice(cells, max(1, _BLOCK // width) * width)):
        for place, part in enumerate(parts):
            part.append(_texts(block[place::width]))
    columns = (pd.concat(part, ignore_index=True) for part in parts)
    return pd.DataFrame(dict(zip(header, columns, strict=True)))


def _texts(cells: CsvRow) -> pd.Series:
    return pd.Series([cell or None for cell in cells] if "" in cells else cells, dtype="str")


def _whole(path: Path, width: int, rows: Iterator[tuple[int, CsvRow]]) -> Iterator[CsvRow]:
    """The rows after the header. Empty lines at the end are passed over: no writer means a row of several cells by one.

    Raises:
        DataError: a row has more or fewer cells than the header, or is empty; the first is named, all are counted.
    """
    first, remedy, wrong = "", "", 0
    empty_line, empty_lines = 0, 0
    for line, row in rows:
        told = (row and row[0].strip()) or "".join(row).strip()
        fits = len(row) == width and (told or width == 1)
        if not fits and not told:
            empty_line, empty_lines = empty_line or line, empty_lines + 1
            continue
        if empty_lines:
            first, remedy = (first, remedy) if wrong else (f"line {empty_line:,} is empty", "delete it")
            empty_line, empty_lines, wrong = 0, 0, wrong + empty_lines
        if not fits:
            first, remedy = (first, remedy) if wrong else _misfit(line, len(row), width)
            wrong += 1
        elif not wrong:
            yield row
    if wrong:
        raise DataError(f"{path}: {first}, first of {wrong:,} lines that do not fit: {remedy}")


def _misfit(line: int, fields: int, width: int) -> tuple[str, str]:
    told = f"line {line:,} has {fields:,} field{'s' * (fields != 1)}, the header has {width:,}"
    if fields > width:
        return told, "put text that has commas in quotes"
    return told, "the file is cut off, or text with ends of lines is not in quotes: export it again"


def _rows(path: Path, text: TextIOWrapper) -> Iterator[tuple[int, CsvRow]]:
    """Every row with the line that it begins in, the header first.

    Raises:
        DataError: no CSV, or a line, a cell or the number of columns is beyond the limits.
    """
    lines = _Lines(path, text)
    line, problem = 1, ""
    try:
        for row in csv.reader(lines, strict=True):
            if len(row) > MAX_COLUMNS:
                raise lines.refuse(f"{len(row):,} columns, more than {MAX_COLUMNS:,}", line)
            yield line, row
            line, lines.length = lines.number + 1, 0
    except csv.Error as error:
        problem = str(error)
    if problem:
        told = (what for said, what in _NO_CSV.items() if problem.startswith(said))
        raise lines.refuse(next(told, _QUOTE_WITHIN), line)


class _Lines:
    """The lines of a file. `number` is that of the newest, counted from 1; `length` is that of its row so far."""

    def __init__(self, path: Path, text: TextIOWrapper) -> None:
        self._path, self._text = path, text
        self.number, self.length = 0, 0

    def __iter__(self) -> Iterator[str]:
        line = "\n"
        for line in iter(self._read, ""):
            self.number += 1
            self.length += len(line)
            if self.length > MAX_ROW:
                raise self.refuse(f"a row of more than {MAX_ROW:,} characters: is an end of line or a quote missing?")
            if "\0" in line:
                raise self.refuse("a zero byte: export it again, as UTF-8")
            yield line
        if not line.endswith(("\n", "\r")):
            raise self.refuse("truncated: the last line has no end; export it again")

    def refuse(self, problem: str, line: int = 0) -> DataError:
        return DataError(f"{self._path}: {problem} (line {line or self.number:,})")

    def _read(self) -> str:
        try:
            return self._text.readline(MAX_ROW + 1)
        except UnicodeDecodeError:
            pass
        raise self.refuse(
            "not UTF-8 (Latin-1 or Windows-1252?): export it as UTF-8", _line_of_other_encoding(self._text)
        )


def _line_of_other_encoding(text: TextIOWrapper) -> int:
    """The first line that is not UTF-8, by another pass over the file: text is decoded ahead of its lines."""
    file = cast(BufferedReader, text.buffer)
    file.seek(0)
    number = 1
    for line in iter(partial(file.readline, MAX_ROW), b""):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            break
        number += 1
    return number
