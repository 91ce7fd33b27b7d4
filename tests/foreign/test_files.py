"""What is no ordinary file is refused at once: a test that would wait for ever ends by its time limit."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path, PurePath

import pytest

from tasks.errors import ConfigError, DataError
from tasks.foreign import files as foreign_files
from tasks.foreign.files import is_stray, listed, md5_of, ordinary_files, read_ordinary

pytestmark = pytest.mark.timeout(30)


def bind(path: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(os.path.relpath(path))


SPECIAL: dict[str, tuple[Callable[[Path], None], str]] = {
    "a pipe": (os.mkfifo, "pipe"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "device"),
    "a folder": (Path.mkdir, "folder"),
    "a socket": (bind, "socket or device"),
    "a circle of links": (lambda path: path.symlink_to(path), "socket or device"),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_what_is_no_file_is_refused_and_its_kind_told(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, kind = SPECIAL[name]
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "a")
    with pytest.raises(ConfigError, match=f"a: no ordinary file but a {kind}"):
        read_ordinary(tmp_path / "a")


def test_a_file_is_read_up_to_its_limit_also_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "b").symlink_to("a")
    assert read_ordinary(tmp_path / "b", 5) == b"12345"
    with pytest.raises(DataError, match="b: 5 bytes, more than the 4 that such a file may have"):
        read_ordinary(tmp_path / "b", 4, DataError)
    with pytest.raises(FileNotFoundError):
        read_ordinary(tmp_path / "c")


def test_a_file_that_says_it_is_empty_is_not_read_for_ever() -> None:
    """What /proc shows has no size."""
    with pytest.raises(ConfigError, match="grew beyond the 1,000 bytes"):
        read_ordinary(Path("/proc/self/smaps"), 1_000)


def test_a_folder_is_walked_without_following_links_to_folders(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/secret").touch()
    (tmp_path / "a/b/one").touch()
    (tmp_path / "a/up").symlink_to("..")
    (tmp_path / "a/out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a/linked").symlink_to("b/one")
    (tmp_path / "a/endless").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "a/pipe")
    assert sorted(str(path.relative_to(tmp_path / "a")) for path in ordinary_files(tmp_path / "a")) == [
        "b/one",
        "linked",
    ]


def test_a_deep_folder_is_refused(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * (foreign_files.MAX_DEPTH - 1))
    deep.mkdir(parents=True)
    (deep / "file").touch()
    assert len(list(ordinary_files(tmp_path))) == 1
    (deep / "d").mkdir()
    with pytest.raises(DataError, match="folders nested deeper than 32"):
        list(ordinary_files(tmp_path))


def test_a_folder_of_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign_files, "MAX_FILES", 3)
    for number in range(3):
        (tmp_path / str(number)).touch()
    assert len(list(ordinary_files(tmp_path))) == 3
    (tmp_path / "3").touch()
    with pytest.raises(DataError, match="more than 3 files and folders"):
        list(ordinary_files(tmp_path))


def test_a_digest_is_that_of_the_content(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "a").write_bytes(content)
    assert md5_of(tmp_path / "a") == hashlib.md5(content, usedforsecurity=False).hexdigest()


LEFT_BEHIND = ("._labs.csv", ".DS_Store", "~$labs.xlsx", "desktop.ini", "Desktop.ini", "Thumbs.db", ".~lock.labs.csv#")
LEFT_BEHIND += ("labs.csv~", ".labs.csv.swp", "__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information")
MEANT = (
    "labs.csv",
    "labs.CSV",
    "_labs.csv",
    ".labs.csv",
    "labs (1).csv",
    "labs~1.csv",
    "desktop.csv",
    "macosx",
    "thumbs",
)


@pytest.mark.parametrize("name", [*LEFT_BEHIND, *MEANT])
def test_what_desktops_leave_behind_is_known_by_its_name(name: str, tmp_path: Path) -> None:
    assert is_stray(PurePath(name)) is (name in LEFT_BEHIND)
    assert is_stray(PurePath(name, "labs.csv")) is (name in LEFT_BEHIND)
    (tmp_path / name).touch()
    assert [path.name for path in listed(tmp_path)] == [name] * (name in MEANT)


def test_what_is_listed_matches_and_is_in_order(tmp_path: Path) -> None:
    for name in ("b.yaml", "._a.yaml", "a.yaml", "c.json", "d/._e.yaml", "d/e.yaml", "@eaDir/f.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in listed(tmp_path, "*.yaml")] == ["a.yaml", "b.yaml"]
    assert [path.name for path in listed(tmp_path, "*/*.yaml")] == ["e.yaml"]
    assert listed(tmp_path / "none") == []
