"""Cells in the types that a suite declares; what is no such table is refused by name, and no error quotes a cell."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from tasks.data.pin import file_digests, listing_digest
from tasks.data.reading.tables import read_tables
from tasks.errors import DataError

TABLES = ("adsl", "advs", "adlbc", "adlbh", "adadas", "adnpix", "mh", "cm", "adtte")
CANARY = "CANARY7731"


def spoil(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def set_cell(path: Path, column: str, value: str) -> None:
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    frame.loc[0, column] = value
    frame.to_csv(path, index=False, lineterminator="\n")


def everything_said(error: BaseException) -> str:
    """The error, its repr, its traceback with chained errors, and the chain itself."""
    chain = [error, error.__cause__, error.__context__]
    return "".join(traceback.format_exception(error)) + repr(chain) + repr([vars(e) for e in chain if e])


def test_types_are_those_the_suite_declares(site_dir: Path, suites_dir: Path) -> None:
    tables = read_tables(site_dir, TABLES, suites_dir)
    assert list(tables) == list(TABLES)
    assert tables["adsl"]["AGE"].dtype == np.float64
    assert tables["advs"]["AVAL"].dtype == np.float64
    assert tables["adsl"]["TRTSDT"].dtype.kind == "M"
    assert tables["adsl"]["SITEID"].dtype == "str"
    assert tables["cm"]["CMENDTC"].isna().any()
    assert all(len(frame) for frame in tables.values())


def test_a_text_that_looks_missing_is_kept(site_dir: Path, suites_dir: Path) -> None:
    set_cell(site_dir / "cm.csv", "CMTRT", "NA")
    assert (read_tables(site_dir, ["cm"], suites_dir)["cm"]["CMTRT"] == "NA").sum() == 1


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda raw: b"", "is empty"),
    "blank": (lambda raw: b"\n\n", "is empty"),
    "utf-16": (lambda raw: raw.decode().encode("utf-16"), "UTF-16"),
    "utf-16 without mark": (lambda raw: raw.decode().encode("utf-16-le"), "UTF-16"),
    "latin-1": (lambda raw: raw.replace(b"Placebo", "Placebö".encode("latin-1"), 1), "not UTF-8"),
    "cut inside a line": (lambda raw: raw[: len(raw) // 2].rstrip(b"\n"), "truncated"),
    "cut and closed": (lambda raw: raw[: raw.rindex(b",")] + b"\n", "fields, the header has"),
    "one field too many": (lambda raw: raw.replace(b"Placebo", b"Pla,cebo", 1), "put text that has commas in quotes"),
    "open quote": (lambda raw: raw.replace(b"Placebo", b'"Placebo', 1), "a quote is opened here"),
    "no header": (lambda raw: raw.split(b"\n", 1)[1], "no header"),
    "one column twice": (lambda raw: raw.replace(b"ETHNIC", b"RACE", 1), "1 column names stand twice"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused(name: str, site_dir: Path, suites_dir: Path) -> None:
    change, reason = BROKEN[name]
    spoil(site_dir / "adsl.csv", change)
    with pytest.raises(DataError, match=re.escape(reason)) as caught:
        read_tables(site_dir, ["adsl"], suites_dir)
    assert "adsl.csv" in str(caught.value)
    assert caught.value.__context__ is None
    assert not re.search(r"01-717|Placeb|WHITE", everything_said(caught.value))


def pin(folder: Path) -> Path:
    """As `dvc add` and `pharmafed data pin` leave it, of one site's folder."""
    files = {f"sites/{folder.name}/{name}": md5 for name, md5 in file_digests(folder).items()}
    path = folder.with_name("data.dvc")
    path.write_text(yaml.safe_dump({"outs": [{"md5": listing_digest(files)}], "meta": {"files": files}}))
    return path


@pytest.mark.parametrize(("spoilt", "restored"), [("before", False), ("after", True), ("never pinned", False)])
@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: spoil(path, lambda raw: raw[:-2])])
def test_dvc_is_the_remedy_only_where_other_bytes_are_pinned(
    spoil: Callable[[Path], None], spoilt: str, restored: bool, site_dir: Path, suites_dir: Path
) -> None:
    """What was pinned broken is not mended by DVC, nor what was never pinned."""
    if spoilt == "before":
        spoil(site_dir / "mh.csv")
    pin_file = pin(site_dir) if spoilt != "never pinned" else site_dir / "none.dvc"
    if spoilt != "before":
        spoil(site_dir / "mh.csv")
    with pytest.raises(DataError, match=r"mh\.csv: (no such file|truncated)") as caught:
        read_tables(site_dir, TABLES, suites_dir, pin_file=pin_file)
    assert ("dvc checkout" in str(caught.value)) is restored
    assert caught.value.__context__ is None


CELLS = [("adsl", "AGE"), ("adsl", "BMIBL"), ("adsl", "TRTSDT"), ("mh", "MHSTDTC")]


@pytest.mark.parametrize(("table", "column"), CELLS)
def test_a_cell_of_another_type_is_counted_and_never_quoted(
    table: str, column: str, site_dir: Path, suites_dir: Path
) -> None:
    set_cell(site_dir / f"{table}.csv", column, CANARY)
    with pytest.raises(DataError, match=rf"{table}\.csv: column {column}: 1 cells are not") as caught:
        read_tables(site_dir, [table], suites_dir)
    assert CANARY not in everything_said(caught.value)


def test_the_canary_would_be_found_if_it_leaked() -> None:
    """The check above can fail: an error that quotes or chains the cell is caught by it."""
    with pytest.raises(DataError) as quoted:
        raise DataError(f"cell {CANARY}")
    assert CANARY in everything_said(quoted.value)
    with pytest.raises(DataError) as chained:
        raise_from_within(CANARY)
    assert CANARY in everything_said(chained.value)


def raise_from_within(cell: str) -> None:
    """`from None` hides the chained error from the traceback's text, not from `__context__`."""
    try:
        float(cell)
    except ValueError:
        raise DataError("a cell is wrong") from None


@pytest.mark.parametrize("value", ["61.5", "inf", "nan", "1e400", "6 1"])
def test_an_integer_is_a_finite_whole_number(value: str, site_dir: Path, suites_dir: Path) -> None:
    set_cell(site_dir / "adsl.csv", "AGE", value)
    with pytest.raises(DataError, match="column AGE: 1 cells are not whole numbers"):
        read_tables(site_dir, ["adsl"], suites_dir)


@pytest.mark.parametrize("value", ["2013-02-30", "02/03/2013", "2013-2-3", "20130203", "2013-02-03T00:00"])
def test_a_date_is_an_iso_date(value: str, site_dir: Path, suites_dir: Path) -> None:
    set_cell(site_dir / "adsl.csv", "TRTSDT", value)
    with pytest.raises(DataError, match="column TRTSDT: 1 cells are not dates"):
        read_tables(site_dir, ["adsl"], suites_dir)


def test_all_wrong_columns_of_a_file_are_named_at_once(site_dir: Path, suites_dir: Path) -> None:
    set_cell(site_dir / "adsl.csv", "AGE", "x")
    set_cell(site_dir / "adsl.csv", "BMIBL", "x")
    with pytest.raises(DataError, match=r"column AGE: 1 .*column BMIBL: 1 "):
        read_tables(site_dir, ["adsl"], suites_dir)
