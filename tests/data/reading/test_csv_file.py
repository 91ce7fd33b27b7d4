"""What a CSV file may look like and is read, and what is refused, by line and fields; no error quotes a cell."""

from __future__ import annotations

import codecs
import csv
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.data.reading import csv_file
from tasks.data.reading.csv_file import MAX_CELL, MAX_COLUMNS, MAX_ROW, read_cells, read_csv_header
from tasks.errors import DataError

CANARY = "CANARY7731"


def any_header(header: list[str]) -> None:
    pass


def everything_said(error: BaseException) -> str:
    """The error, its repr, its traceback with chained errors, and the chain itself."""
    chain = [error, error.__cause__, error.__context__]
    return "".join(traceback.format_exception(error)) + repr(chain) + repr([vars(e) for e in chain if e])


def cells_of(content: bytes, folder: Path) -> list[list[str]]:
    """Header and rows, "" for what is missing."""
    path = folder / "a.csv"
    path.write_bytes(content)
    frame = read_cells(path, any_header)
    assert read_csv_header(path) == list(frame.columns)
    assert (frame.dtypes == "str").all()
    return [list(frame.columns), *frame.fillna("").to_numpy().tolist()]


PLAIN = [["id", "note"], ["a1", "well"], ["a2", ""]]
#: Name -> bytes, and the cells that they are; PLAIN if none are given.
READ: dict[str, tuple[bytes, list[list[str]]]] = {
    "LF": (b"id,note\na1,well\na2,\n", PLAIN),
    "CR LF": (b"id,note\r\na1,well\r\na2,\r\n", PLAIN),
    "CR, as on old Macs": (b"id,note\ra1,well\ra2,\r", PLAIN),
    "all three": (b"id,note\r\na1,well\na2,\r", PLAIN),
    "a byte-order mark": (codecs.BOM_UTF8 + b"id,note\na1,well\na2,\n", PLAIN),
    "a byte-order mark before a quote": (codecs.BOM_UTF8 + b'"id",note\na1,well\na2,\n', PLAIN),
    "an empty last line": (b"id,note\na1,well\na2,\n\n", PLAIN),
    "several empty last lines": (b"id,note\r\na1,well\r\na2,\r\n\r\n  \r\n\r\n", PLAIN),
    "rows of commas at the end, as Excel leaves them": (b"id,note\na1,well\na2,\n,\n , \n,\n", PLAIN),
    "everything in quotes": (b'"id","note"\n"a1","well"\n"a2",""\n', PLAIN),
    "the end of a line in quotes": (
        b'id,note\r\na1,"we\r\nll"\r\na2,\r\n',
        [["id", "note"], ["a1", "we\r\nll"], ["a2", ""]],
    ),
    "an empty line in quotes": (b'id,note\na1,"we\n\nll"\na2,\n', [["id", "note"], ["a1", "we\n\nll"], ["a2", ""]]),
    "quotes and commas in quotes": (b'id,note\na1,"say ""ah"", now"\n', [["id", "note"], ["a1", 'say "ah", now']]),
    "inches": (b'id,note\na1,5" tall\n', [["id", "note"], ["a1", '5" tall']]),
    "other ends of lines than CSV has": (
        "id,note\na1,a\u2028b\x0bc\x85\n".encode(),
        [["id", "note"], ["a1", "a\u2028b\x0bc\x85"]],
    ),
    "a long text": (
        b'id,note\na1,"' + b"fever, then\n" * 12_000 + b'"\n',
        [["id", "note"], ["a1", "fever, then\n" * 12_000]],
    ),
    "one column": (b'id\na1\n""\na3\n\n', [["id"], ["a1"], [""], ["a3"]]),
    "no rows": (b"id,note\n", [["id", "note"]]),
    "no rows but empty lines": (b"id,note\n\n\n", [["id", "note"]]),
}


@pytest.mark.parametrize("name", READ)
def test_what_other_programs_write_is_read(name: str, tmp_path: Path) -> None:
    content, cells = READ[name]
    assert cells_of(content, tmp_path) == cells
    assert csv.field_size_limit() == 131_072, "the process's own limit is as before"


#: Name -> bytes, and what is said after the file's name.
REFUSED: dict[str, tuple[bytes, str]] = {
    "a comma outside of quotes": (
        b"id,note\na1,well\na2,tired, but well\na3,a,b,c\n",
        "line 3 has 3 fields, the header has 2, first of 2 lines that do not fit: put text that has commas in quotes",
    ),
    "a row cut off": (
        b"id,note,age\na1,well,5\na2\n",
        "line 3 has 1 field, the header has 3, first of 1 .* is cut off",
    ),
    "an end of line outside of quotes": (
        b"id,note\na1,we\nll\na2,\n",
        "line 3 has 1 field, the header has 2, .* is not in quotes",
    ),
    "a lone CR outside of quotes": (b"id,note\na1,we\rll\na2,\n", "line 3 has 1 field, the header has 2"),
    "a line after a cell of three lines": (b'id,note\na1,"x\ny\nz"\na2\n', "line 5 has 1 field, the header has 2"),
    "the first line of a row of several": (b'id,note\na1,"x\ny",3\na2,\n', "line 2 has 3 fields, the header has 2"),
    "an empty line between": (
        b"id,note\na1,well\n\n\na2,\n",
        "line 3 is empty, first of 2 lines that do not fit: delete it",
    ),
    "an empty line in one column": (b"id\na1\n\na3\n", "line 3 is empty"),
    "a row of commas between": (b"id,note\na1,well\n,\na2,\n", "line 3 is empty, first of 1"),
    "ends of lines doubled": (b"id,note\r\r\na1,well\r\r\na2,\r\r\n", "line 2 is empty, first of 2"),
    "a quote left open": (b'id,note\na1,"well\na2,\n', r"a quote is opened here and never closed: .* \(line 2\)"),
    "a quote left open, closed by another": (
        b'id,note\na1,"well\na2,"ill"\n',
        r"text follows a closing quote: .* \(line 2\)",
    ),
    "a quote within quotes": (
        b'id,note\na1,"say "ah""\n',
        r"text follows a closing quote: .*write a quote twice \(line 2\)",
    ),
    "no end": (b"id,note\na1,well\na2,i", r"truncated: the last line has no end; export it again \(line 3\)"),
    "no end in quotes": (b'id,note\na1,"well', r"truncated.*\(line 2\)"),
    "a zero byte": (b"id,note\n" + b"a1,well\n" * 200_000 + b"a2,\0\n", r"a zero byte: .*\(line 200,002\)"),
    "Latin-1 after the first block": (
        b"id,note\n" + b"a1,well\n" * 9_000 + b"a2,\xe9\n" + b"a3,\n" * 99,
        r"not UTF-8 .*\(line 9,002\)",
    ),
    "UTF-16": ("id,note\na1,\u00e9\n".encode("utf-16"), r"looks like UTF-16: .*\(line 1\)"),
    "UTF-16 without its mark": ("id,note\na1,\u00e9\n".encode("utf-16-le"), r"looks like UTF-16: .*\(line 1\)"),
    "nothing": (b"", "the file is empty"),
    "a byte-order mark alone": (codecs.BOM_UTF8 + b"\r\n", "the file is empty"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_table_is_refused_by_line_and_fields(name: str, tmp_path: Path) -> None:
    content, says = REFUSED[name]
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.csv: {says}") as caught:
        read_cells(tmp_path / "a.csv", any_header)
    assert caught.value.__context__ is None
    assert "dvc" not in str(caught.value)
    assert not {word for word in ("well", "tired", "ill", "a2") if word in str(caught.value).replace("well be", "")}


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)


@given(
    rows=st.lists(st.lists(TEXT, min_size=2, max_size=2), max_size=30),
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    mark=st.sampled_from([b"", codecs.BOM_UTF8]),
)
def test_whatever_is_written_is_read(
    rows: list[list[str]], end: str, quoting: int, mark: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every text in cells, as Python's writer writes it; the last row is filled: empty ones do not count."""
    if quoting == csv.QUOTE_MINIMAL:  # the writer leaves what is no end of its own lines without quotes
        rows = [[cell.replace("\r", "") for cell in row] for row in rows]
    path = tmp_path_factory.mktemp("written") / "a.csv"
    table = [["id", "note"], *([f"i{cells[0]}", cells[1]] for cells in rows)]
    with path.open("wb") as file:
        file.write(mark)
    with path.open("a", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator=end, quoting=quoting).writerows(table)  # type: ignore[arg-type]
    frame = read_cells(path, any_header)
    assert frame.fillna("").to_numpy().tolist() == table[1:]


def test_rows_keep_their_order_over_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_file, "_BLOCK", 7)
    (tmp_path / "a.csv").write_text("A,B,C\n" + "".join(f"{n},{n if n % 3 else ''},x\n" for n in range(100)))
    frame = read_cells(tmp_path / "a.csv", any_header)
    assert frame["A"].tolist() == [str(n) for n in range(100)]
    assert frame["B"].isna().tolist() == [n % 3 == 0 for n in range(100)]
    assert list(frame.index) == list(range(100))


def test_a_header_that_is_refused_is_refused_before_the_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("A,B\n1,2,3\n")

    def refuse(header: list[str]) -> None:
        raise DataError(f"{len(header)} columns")

    with pytest.raises(DataError, match=r"^2 columns$"):
        read_cells(tmp_path / "a.csv", refuse)


# limits: each attack has a twin that is just within them

LONG = "x" * MAX_CELL
#: Name -> the table, its twin within the limits, what is said.
OVERLONG: dict[str, tuple[str, str, str]] = {
    "a cell": (
        f"A,B\n1,2\n{CANARY},{LONG}x\n",
        f"A,B\n1,2\n{CANARY},{LONG}\n",
        r"a cell of more than 1,000,000 .*\(line 3\)",
    ),
    "a cell in quotes": (
        f'A,B\n1,2\n{CANARY},"{LONG},x"\n',
        f'A,B\n1,2\n{CANARY},"{LONG[9:]},x"\n',
        r"a cell of more than .*\(line 3\)",
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
        f"A,B\n{CANARY}," + '"\n",' * (MAX_ROW // 4) + "1\n",
        f'A,B\n{CANARY},"\n"\n',
        r"a row of more than .*\(line [\d,]+\)",
    ),
    "a row of columns": (
        f"A,B\n{CANARY}{',' * MAX_COLUMNS}\n",
        f"A,B\n{CANARY},\n",
        r"10,001 columns, more than 10,000 \(line 2\)",
    ),
    "a header of columns": (
        ",".join(["A", *(f"C{n}" for n in range(MAX_COLUMNS))]) + "\n",
        ",".join(["A", *(f"C{n}" for n in range(MAX_COLUMNS - 1))]) + "\n",
        r"10,001 columns, .*\(line 1\)",
    ),
}


@pytest.mark.parametrize("name", OVERLONG)
def test_what_is_too_long_is_refused_by_its_line_and_its_twin_is_read(name: str, tmp_path: Path) -> None:
    attack, twin, says = OVERLONG[name]
    path = tmp_path / "a.csv"
    path.write_text(attack)
    with pytest.raises(DataError, match=rf"a\.csv: .*{says}") as caught:
        read_cells(path, any_header)
    assert CANARY not in everything_said(caught.value)
    assert len(everything_said(caught.value)) < 5_000
    path.write_text(twin)
    if "A" in read_csv_header(path):
        assert len(read_cells(path, any_header).columns) >= 2


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    """Sparse: it takes no room on disk, and would take a gigabyte of memory."""
    with (tmp_path / "a.csv").open("wb") as file:
        file.truncate(csv_file.MAX_TABLE_BYTES + 1)
    with pytest.raises(DataError, match=r"a\.csv: 1,073,741,825 bytes, more than the 1,073,741,824"):
        read_cells(tmp_path / "a.csv", any_header)


def test_one_endless_line_takes_no_memory(tmp_path: Path) -> None:
    """Before lines had a limit, 300 MB in one line took 2.4 GB. The twin shows that memory is seen."""
    with (tmp_path / "a.csv").open("wb") as file:
        file.write(b"A,B\n1,")
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b"\n")
    grown = growth("read_cells(path, len)", tmp_path / "a.csv")
    assert grown < 64
    assert growth("kept = path.read_bytes()", tmp_path / "a.csv") > 90


def growth(statement: str, path: Path) -> float:
    """By how many megabytes the peak of a process of its own grows; an error of ours is what is expected."""
    code = (
        "import re, sys\nfrom pathlib import Path\nfrom tasks.data.reading.csv_file import read_cells\n"
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
        read_cells(tmp_path / "a.csv", any_header)


def test_a_file_that_is_written_to_meanwhile_is_refused(tmp_path: Path) -> None:
    """The checks and the cells are of the same bytes, or the table is refused."""
    path = tmp_path / "a.csv"
    path.write_text("A,B\n1,2\n")

    def export(header: list[str]) -> None:
        with path.open("a") as file:
            file.write("3,4\n")

    with pytest.raises(DataError, match="written to while it was read"):
        read_cells(path, export)
