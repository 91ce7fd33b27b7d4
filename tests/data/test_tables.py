"""Each way in which a CSV file can be broken is refused by name, and no error quotes a cell."""

from __future__ import annotations

import codecs
import csv
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import pytest

from tasks.data import tables
from tasks.data.tables import MAX_CELL, MAX_COLUMNS, MAX_ROW_BYTES, read_header, read_table, read_tables
from tasks.errors import DataError
from tasks.validation.suites import ColumnType

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
    "byte-order mark": (lambda raw: codecs.BOM_UTF8 + raw, "byte-order mark"),
    "latin-1": (lambda raw: raw.replace(b"Placebo", "Placebö".encode("latin-1"), 1), "not UTF-8"),
    "cut inside a line": (lambda raw: raw[: len(raw) // 2].rstrip(b"\n"), "truncated"),
    "cut and closed": (lambda raw: raw[: raw.rindex(b",")] + b"\n", "truncated or broken: 1 lines"),
    "one field too many": (lambda raw: raw.replace(b"Placebo", b"Pla,cebo", 1), "1 lines"),
    "open quote": (lambda raw: raw.replace(b"Placebo", b'"Placebo', 1), "broken"),
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


def test_a_missing_file_is_refused_with_the_remedy(site_dir: Path, suites_dir: Path) -> None:
    (site_dir / "mh.csv").unlink()
    with pytest.raises(DataError, match=r"mh\.csv: no such file.*pharmafed data prepare"):
        read_tables(site_dir, TABLES, suites_dir)


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


# limits: each attack has a twin that is just within them

KINDS: Mapping[str, ColumnType] = {"A": "string"}
LONG = "x" * MAX_CELL
#: Name -> the table, its twin within the limits, what is said.
OVERLONG: dict[str, tuple[str, str, str]] = {
    "a cell": (
        f"A,B\n1,2\n{CANARY},{LONG}x\n",
        f"A,B\n1,2\n{CANARY},{LONG}\n",
        r"line 3: a cell of more than 1,000,000",
    ),
    "a cell in quotes": (
        f'A,B\n1,2\n{CANARY},"{LONG},x"\n',
        f'A,B\n1,2\n{CANARY},"{LONG[9:]},x"\n',
        "line 3: a cell of more than",
    ),
    "a cell over many lines": (
        f'A,B\n"{CANARY}' + "x\n" * MAX_CELL + '",1\n',
        f'A,B\n"{CANARY}' + "x\n" * 100_000 + '",1\n',
        "a cell of more than",
    ),
    "a row": (
        f"A,B\n1,{CANARY}" + f",{LONG}" * 17 + "\n",
        "A" + ",B".join(map(str, range(17))) + f"\n{CANARY}" + f",{LONG[:900_000]}" * 16 + "\n",
        r"a row of more than .*\(line 2\)",
    ),
    "a row over many lines": (
        f"A,B\n{CANARY}," + '"\n",' * (MAX_ROW_BYTES // 4) + "1\n",
        f'A,B\n{CANARY},"\n"\n',
        r"a row of more than .*\(line \d+\)",
    ),
    "a row of columns": (
        f"A,B\n{CANARY}{',' * MAX_COLUMNS}\n",
        f"A,B\n{CANARY},\n",
        "line 2: 10,001 columns, more than 10,000",
    ),
    "a header of columns": (
        ",".join(["A", *(f"C{n}" for n in range(MAX_COLUMNS))]) + "\n",
        ",".join(["A", *(f"C{n}" for n in range(MAX_COLUMNS - 1))]) + "\n",
        "line 1: 10,001 columns",
    ),
}


@pytest.mark.parametrize("name", OVERLONG)
def test_what_is_too_long_is_refused_by_its_line_and_its_twin_is_read(name: str, tmp_path: Path) -> None:
    attack, twin, says = OVERLONG[name]
    path = tmp_path / "a.csv"
    path.write_text(attack)
    with pytest.raises(DataError, match=rf"a\.csv: .*{says}") as caught:
        read_table(path, KINDS)
    assert CANARY not in everything_said(caught.value)
    assert len(everything_said(caught.value)) < 5_000
    path.write_text(twin)
    if "A" in read_header(path):
        assert len(read_table(path, KINDS).columns) >= 2


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    """Sparse: it takes no room on disk, and would take a gigabyte of memory."""
    with (tmp_path / "a.csv").open("wb") as file:
        file.truncate(tables.MAX_TABLE_BYTES + 1)
    with pytest.raises(DataError, match=r"a\.csv: 1,073,741,825 bytes, more than the 1,073,741,824"):
        read_table(tmp_path / "a.csv", KINDS)


def test_one_endless_line_takes_no_memory(tmp_path: Path) -> None:
    """Before lines had a limit, 300 MB in one line took 2.4 GB. The twin shows that memory is seen."""
    with (tmp_path / "a.csv").open("wb") as file:
        file.write(b"A,B\n1,")
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b"\n")
    grown = growth("read_table(path, {'A': 'string'})", tmp_path / "a.csv")
    assert grown < 64
    assert growth("kept = path.read_bytes()", tmp_path / "a.csv") > 90


def growth(statement: str, path: Path) -> float:
    """By how many megabytes the peak of a process of its own grows; an error of ours is what is expected."""
    code = (
        "import re, sys\nfrom pathlib import Path\nfrom tasks.data.tables import read_table\n"
        "from tasks.errors import DataError\npath = Path(sys.argv[1])\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) / 1024\n"
        f"before = peak()\ntry:\n    {statement}\nexcept DataError:\n    pass\nprint(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
def test_what_is_no_file_is_refused_and_not_waited_for(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"a\.csv: no ordinary file but a (pipe|device|folder)"):
        read_table(tmp_path / "a.csv", KINDS)


def test_a_narrative_and_a_comma_in_quotes_are_read_whole(tmp_path: Path) -> None:
    narrative = 'fever, then ""better"",\n' * 5_000
    (tmp_path / "a.csv").write_text(f'A,B\n"{narrative}",1\n')
    (cell,) = read_table(tmp_path / "a.csv", KINDS)["A"]
    assert cell == narrative.replace('""', '"').rstrip(), "without what pads it"
    assert csv.field_size_limit() == 131_072, "the process's own limit is as before"


def test_a_blank_line_is_an_empty_cell_of_one_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("A\n1\n\n3\n")
    assert read_table(tmp_path / "a.csv", KINDS)["A"].isna().tolist() == [False, True, False]
    (tmp_path / "a.csv").write_text("A,B\n1,2\n\n3,4\n")
    with pytest.raises(DataError, match="1 lines have not the header's 2 fields"):
        read_table(tmp_path / "a.csv", KINDS)


def test_a_file_that_is_written_to_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks and the cells are of the same bytes, or the table is refused."""
    path = tmp_path / "a.csv"
    path.write_text("A,B\n1,2\n")
    parse = tables._parse

    def slow(file: BinaryIO) -> pd.DataFrame | None:
        with path.open("a") as export:
            export.write("3\n")
        return parse(file)

    monkeypatch.setattr(tables, "_parse", slow)
    with pytest.raises(DataError, match="written to while it was read"):
        read_table(path, KINDS)
