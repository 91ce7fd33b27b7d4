"""Reads a folder with one sub-folder per site, each with the same CSV tables. What cannot be read is refused by name.

Messages name file, line and column, never a cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from tasks.data.reading.csv_file import read_csv_header
from tasks.data.reading.tables import read_table
from tasks.errors import ConfigError, DataError
from tasks.foreign.files import listed
from tasks.study.names import Identifier, SiteName


@dataclass(frozen=True)
class Table:
    """One table of all sites: `rows` holds text, NaN where a cell is empty; `site` says whose each row is."""

    name: str
    rows: pd.DataFrame
    site: pd.Series


@dataclass(frozen=True)
class SiteFolders:
    """What lies in the folder: sites and tables in order of their names."""

    root: Path
    sites: tuple[str, ...]
    tables: Mapping[str, Table]

    def file(self, site: str, table: str) -> Path:
        return self.root / site / f"{table}.csv"


def read_folder(root: Path) -> SiteFolders:
    """Read `<root>/<site>/<table>.csv` of every site.

    Raises:
        ConfigError: no such folder, no sub-folder, or a name that a study cannot use.
        DataError: a file cannot be read, or sites differ in tables or headers, or one has no rows.
    """
    sites = _sites(root)
    names = _same_tables(root, sites)
    frames = {table: {site: _read(root / site / f"{table}.csv") for site in sites} for table in names}
    for table, parts in frames.items():
        _same_header(root, table, parts)
        _refuse_empty(root, table, parts)
    return SiteFolders(root, tuple(sites), {table: _together(table, parts) for table, parts in frames.items()})


def valid_name(kind: Any, text: str) -> bool:
    """Whether a study may use this name: `Identifier` or `SiteName`."""
    try:
        TypeAdapter(kind).validate_python(text)
    except ValidationError:
        return False
    return True


def _sites(root: Path) -> list[str]:
    if not root.is_dir():
        raise ConfigError(f"{root}: no such folder; give the folder with one sub-folder per site")
    sites = [path.name for path in listed(root) if path.is_dir() and not path.name.startswith(".")]
    if not sites:
        raise ConfigError(f"{root}: no sub-folders: make one per site, each with the same CSV files")
    for site in sites:
        if not valid_name(SiteName, site):
            raise ConfigError(f"{root / site}: a site is named with letters, digits, - and _: rename the folder")
    return sites


def _same_tables(root: Path, sites: list[str]) -> list[str]:
    """The tables that every site has. What else lies there is left aside; what may be meant as a table is refused."""
    found = {site: _tables(root / site) for site in sites}
    every = sorted(set().union(*found.values()))
    if not every:
        raise ConfigError(f"{root}: no CSV files (*.csv) in its sub-folders")
    for table in every:
        having = [site for site in sites if table in found[site]]
        if 2 * len(having) < len(sites):
            raise DataError(
                f"{root / having[0] / table}.csv: only {len(having)} of {len(sites)} sites have such a file: "
                "remove it, or add it to the others"
            )
        lacking = [site for site in sites if table not in found[site]]
        if lacking:
            raise DataError(
                f"{root / lacking[0]}: lacks {table}.csv, which other sites have{_near(root, lacking[0], table)}"
            )
    return every


def _tables(folder: Path) -> set[str]:
    """The names of the files that end in .csv, each one that a table may have."""
    files = [path for path in listed(folder) if path.suffix.lower() == ".csv"]
    for path in files:
        if path.suffix != ".csv":
            raise ConfigError(f"{path}: a table's file ends in .csv, in small letters: rename it")
        if not valid_name(Identifier, path.stem) or path.stem == "inputs":
            raise ConfigError(
                f"{path}: a table is named with small letters, digits and _, and not `inputs`: rename or remove it"
            )
    return {path.stem for path in files}


def _near(root: Path, site: str, table: str) -> str:
    """A file that may be the missing table in another form: `labs.xlsx`, `labs.csv.txt`, `labs.csv.gz`."""
    near = [path.name for path in listed(root / site) if path.name.lower().startswith(f"{table}.")]
    return f"; it has {near[0]}: export that as {table}.csv" if near else ""


def _read(path: Path) -> pd.DataFrame:
    """The cells as text, checked as in a round; what only a draft must know of the header comes first."""
    header = read_csv_header(path)
    _check_header(path, header)
    return read_table(path, dict.fromkeys(header, "string"))


def _check_header(path: Path, header: list[str]) -> None:
    if not any(header):
        raise DataError(f"{path}: line 1 is empty: the first line names the columns")
    if header[0].lower().startswith("sep="):
        raise DataError(
            f"{path}: line 1 tells a spreadsheet the separator: delete it, the first line names the columns"
        )
    if len(header) == 1 and (header[0].count(";") or header[0].count("\t")):
        sign = "semicolons" if ";" in header[0] else "tabs"
        raise DataError(f"{path}: columns are separated by {sign}: export it with commas, and decimals with a point")
    for number, column in enumerate(header, start=1):
        if not column.strip() or not column.isprintable() or column != column.strip():
            raise DataError(f"{path}: column {number} has no usable name (empty, or with blanks or control characters)")


def _same_header(root: Path, table: str, parts: Mapping[str, pd.DataFrame]) -> None:
    first, *others = parts
    expected = set(parts[first].columns)
    for site in others:
        found = set(parts[site].columns)
        missing, surplus = sorted(expected - found), sorted(found - expected)
        if missing or surplus:
            told = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has {', '.join(surplus)} more"] * bool(surplus)
            raise DataError(f"{root / site / table}.csv: {' and '.join(told)}, compared with {first}/{table}.csv")


def _refuse_empty(root: Path, table: str, parts: Mapping[str, pd.DataFrame]) -> None:
    for site, rows in parts.items():
        if rows.empty:
            raise DataError(f"{root / site / table}.csv: no rows, only a header: fill it, or leave the site out")


def _together(table: str, parts: Mapping[str, pd.DataFrame]) -> Table:
    columns = next(iter(parts.values())).columns
    rows = pd.concat([part[columns] for part in parts.values()], ignore_index=True)
    site = pd.Series([site for site, part in parts.items() for _ in range(len(part))], dtype=str)
    return Table(table, rows, site)
