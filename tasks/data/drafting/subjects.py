"""Who is a row about: the subject column, the table with one row per subject, the site's own code, and each key."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from tasks.data.drafting.folder import SiteFolders, Table
from tasks.errors import ConfigError, DataError

#: Fewer patients are no cell that may be told of, and no site of its own.
MIN_CELL = 5
_ID = re.compile(r"(^|_)(id|no|nr|num|number|code)$|ID$|SUBJ|subj|patient|person", re.ASCII)
_SITE = re.compile(r"site|clinic|hospital|cent(er|re)|institution", re.IGNORECASE)
_WHOLE = r"-?\d+|.*[A-Za-z_-].*"
#: How many columns beside the subject a key may need, and how many are tried.
_KEY_COLUMNS, _KEY_CANDIDATES = 2, 12


@dataclass(frozen=True)
class Subjects:
    """`column` identifies a subject within a site; `main` lists each once; `patients` counts them per site.

    `site_column` holds one code for all rows of a site, another at each site; None where no column does.
    """

    column: str
    main: str
    patients: Mapping[str, int]
    site_column: str | None
    site_codes: Mapping[str, str]


def find_subjects(folder: SiteFolders, wanted: str | None = None) -> Subjects:
    """Find the subject column, or check the one that is wanted.

    Raises:
        ConfigError: no column, or more than one, can be it; the message names them.
        DataError: subjects stand twice, have no id, are not in the main table, or are too few at a site.
    """
    column, main = _choose(folder, wanted)
    table = folder.tables[main]
    patients = {site: int((table.site == site).sum()) for site in folder.sites}
    for site, count in patients.items():
        if count < MIN_CELL:
            raise DataError(
                f"{folder.file(site, main)}: {count} patients, fewer than {MIN_CELL}: merge this site with another"
            )
    _refuse_strangers(folder, column, main)
    site_column = _site_column(table, column)
    codes = {site: _code(table, site, site_column) for site in folder.sites}
    return Subjects(column, main, patients, site_column, codes)


def holds_site_codes(table: Table, subjects: Subjects) -> bool:
    """Whether the site column of `table` says the same as that of the main table."""
    column = subjects.site_column
    return column in table.rows.columns and bool((table.rows[column] == table.site.map(subjects.site_codes)).all())


def is_one_row_each(table: Table, column: str) -> bool:
    """Whether `column` is filled and unique within each site."""
    ids = table.rows[column]
    return not ids.isna().any() and not _repeated(table, [column]).any()


def find_key(table: Table, subject: str, columns: list[str]) -> tuple[str, ...]:
    """The fewest of `columns` that, with the subject, tell all rows of a site apart; empty if it takes too many."""
    if is_one_row_each(table, subject):
        return (subject,)
    filled = [name for name in columns if name != subject and not table.rows[name].isna().any()][:_KEY_CANDIDATES]
    for size in range(1, _KEY_COLUMNS + 1):
        for more in itertools.combinations(filled, size):
            if not _repeated(table, [subject, *more]).any():
                return (subject, *more)
    return ()


def _choose(folder: SiteFolders, wanted: str | None) -> tuple[str, str]:
    if wanted is not None:
        return wanted, _main_of(folder, wanted)
    unique = [column for column in _shared_columns(folder) if _mains(folder, column)]
    named = [column for column in unique if _ID.search(column)]
    if len(unique) != 1 and len(named) != 1:
        raise ConfigError(_no_single_subject(folder, named or unique))
    column = (named if len(named) == 1 else unique)[0]
    return column, _main_of(folder, column)


def _shared_columns(folder: SiteFolders) -> list[str]:
    """Columns that all tables have and that hold whole numbers or names: no measurement, no date."""
    first, *others = folder.tables.values()
    shared = [c for c in first.rows.columns if all(c in other.rows.columns for other in others)]
    dates = r"\d{4}-\d{2}(-\d{2})?"
    texts = {column: first.rows[column].dropna() for column in shared}
    return [c for c, t in texts.items() if t.str.fullmatch(_WHOLE).all() and not t.str.fullmatch(dates).all()]


def _mains(folder: SiteFolders, column: str) -> list[str]:
    """The tables with one row per subject, the fullest first."""
    found = [table for table in folder.tables.values() if is_one_row_each(table, column)]
    return [table.name for table in sorted(found, key=lambda table: -len(table.rows))]


def _no_single_subject(folder: SiteFolders, candidates: list[str]) -> str:
    if candidates:
        return f"more than one column could name the subject: {', '.join(candidates)}; say which with --subject"
    near = [f"{column} ({_told_twice(folder, column)})" for column in _shared_columns(folder)]
    near = [text for text in near if _ID.search(text.split(" ")[0])] or near
    remedy = "correct the data, or say with --subject which column it is"
    return (
        "no column is filled, unique per row in one table, and present in all tables"
        f"{': nearest ' + '; '.join(near[:3]) if near else ''}; {remedy}"
    )


def _main_of(folder: SiteFolders, column: str) -> str:
    lacking = [f"{name}.csv" for name, table in folder.tables.items() if column not in table.rows.columns]
    if lacking:
        raise ConfigError(f"the subject column {column} is not in {', '.join(lacking)}: it must be in every table")
    mains = _mains(folder, column)
    if not mains:
        raise DataError(f"no table has one row per {column}: {_told_twice(folder, column)}; correct the data")
    return mains[0]


def _told_twice(folder: SiteFolders, column: str) -> str:
    """Where the table that is nearest to one row per subject repeats one: file and rows, no id."""
    table = min(folder.tables.values(), key=lambda each: int(_repeated(each, [column]).sum()))
    empty, twice = table.rows[column].isna(), _repeated(table, [column])
    bad = empty if empty.any() else twice
    where = folder.file(table.site[bad].iloc[0], table.name)
    row = int((table.site.iloc[: bad[bad].index[0] + 1] == table.site[bad].iloc[0]).sum())
    what = "is empty" if empty.any() else "repeats one"
    return f"{where}: row {row} after the header {what}, and {int(bad.sum()) - 1} more such rows"


def _repeated(table: Table, columns: list[str]) -> pd.Series:
    return table.rows[columns].assign(**{"\0site": table.site}).duplicated()


def _refuse_strangers(folder: SiteFolders, column: str, main: str) -> None:
    """Each table tells of the main table's subjects only."""
    listed = pd.MultiIndex.from_arrays([folder.tables[main].site, folder.tables[main].rows[column]])
    for table in folder.tables.values():
        known = pd.MultiIndex.from_arrays([table.site, table.rows[column]]).isin(listed)
        if not known.all():
            where = folder.file(table.site[~known].iloc[0], table.name)
            raise DataError(
                f"{where}: {int((~known).sum())} rows of {table.name} are of subjects that {main}.csv of their site "
                f"does not list: add them there, or drop the rows"
            )


def _site_column(table: Table, subject: str) -> str | None:
    """A column with one code per site, filled everywhere, that is named like a site's or repeats the folders' names."""
    for column in table.rows.columns.drop(subject):
        codes = table.rows[column]
        if (codes == table.site).all() or (_SITE.search(column) and _tells_sites_apart(table, column)):
            return str(column)
    return None


def _tells_sites_apart(table: Table, column: str) -> bool:
    codes = table.rows[column]
    per_site = codes.groupby(table.site).nunique(dropna=False)
    return not codes.isna().any() and bool((per_site == 1).all()) and codes.nunique() == table.site.nunique()


def _code(table: Table, site: str, column: str | None) -> str:
    return site if column is None else str(table.rows.loc[table.site == site, column].iloc[0])
