"""The suites of a folder: one `<table>.json` for each table, and `inputs.json`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tasks.data.checks.suite import ColumnType, Suite
from tasks.data.checks.suite_file import read_suite
from tasks.errors import ConfigError
from tasks.foreign.files import listed


def load_suite(suites_dir: Path, table: str, *, for_columns: bool = False) -> Suite:
    """Read `<suites_dir>/<table>.json`.

    `for_columns` is for those that ask for the table's columns and run no expectation: these are then held to their
    form and not to their library, whose import takes seconds.

    Raises:
        ConfigError: no such suite, or all that is wrong with it and can be known without data, each with its line.
    """
    path = suites_dir / f"{table}.json"
    if not path.is_file():
        raise ConfigError(f"no suite {path}; there is one for: {', '.join(suite_names(suites_dir)) or 'no table'}")
    return _load(path, path.stat().st_mtime_ns, for_columns)


@cache
def _load(path: Path, _mtime_ns: int, for_columns: bool) -> Suite:
    return read_suite(path, for_columns=for_columns)


def suite_names(suites_dir: Path) -> list[str]:
    return [path.stem for path in listed(suites_dir, "*.json")]


def table_columns(suites_dir: Path, table: str) -> dict[str, ColumnType]:
    """The columns that `table` has, in order, and their types."""
    return load_suite(suites_dir, table, for_columns=True).meta.columns


def all_columns(suites_dir: Path) -> dict[str, set[str]]:
    """Table -> its columns, for every table that has a suite (`inputs` is not a table)."""
    columns = {name: set(table_columns(suites_dir, name)) for name in suite_names(suites_dir)}
    return {table: names for table, names in columns.items() if names}
