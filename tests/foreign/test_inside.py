"""A link planted in a folder of ours, at the file or above it, leads neither a reader nor a writer out of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.errors import ConfigError
from tasks.foreign.inside import read_inside, write_inside
from tasks.store.files import alone, write_private

SECRET = b"what lies elsewhere"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with one report, beside a folder with a secret in files of the same names."""
    for folder in ("root/study/0001", "elsewhere/study/0001", "elsewhere/0001"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "report.html").write_bytes(SECRET)
    (tmp_path / "elsewhere/report.html").write_bytes(SECRET)
    (tmp_path / "root/study/0001/report.html").write_bytes(b"a report")
    return tmp_path / "root"


def replace(path: Path, target: Path | str) -> None:
    """Put a link in the place of a file or folder."""
    path.rename(path.with_name(f"{path.name}.away"))
    path.symlink_to(target)


PLANTED: dict[str, Callable[[Path], None]] = {
    "the file": lambda root: replace(root / "study/0001/report.html", root.parent / "elsewhere/report.html"),
    "the file, relative": lambda root: replace(root / "study/0001/report.html", "../../../elsewhere/report.html"),
    "the round": lambda root: replace(root / "study/0001", root.parent / "elsewhere/0001"),
    "the study": lambda root: replace(root / "study", root.parent / "elsewhere/study"),
}
NAME = "study/0001/report.html"


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_link_is_not_read(name: str, root: Path) -> None:
    assert read_inside(root, NAME) == b"a report"
    PLANTED[name](root)
    assert (root / NAME).read_bytes() == SECRET, "the control: a plain reader follows it"
    assert read_inside(root, NAME) is None


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_link_is_not_written_through(name: str, root: Path) -> None:
    PLANTED[name](root)
    if name.startswith("the file"):
        write_inside(root, NAME, b"new")
        assert read_inside(root, NAME) == b"new"
    else:
        with pytest.raises(ConfigError, match="a link or file stands where a folder belongs"):
            write_inside(root, NAME, b"new")
    elsewhere = [path.read_bytes() for path in (root.parent / "elsewhere").rglob("*") if path.is_file()]
    assert elsewhere == [SECRET] * 3, "neither changed nor joined by a new file"


def test_special_and_large_files_are_not_read(root: Path) -> None:
    os.mkfifo(root / "pipe")
    (root / "zero").symlink_to("/dev/zero")
    (root / "large").write_bytes(b"12345")
    assert [read_inside(root, name) for name in ("pipe", "zero", "study", "none", "study/none", f"{NAME}/x")] == [
        None
    ] * 6
    assert read_inside(root, "large", 5) == b"12345"
    assert read_inside(root, "large", 4) is None
    assert read_inside(root, "n" * 5_000) is None


@pytest.mark.parametrize(
    "name", ["../elsewhere/report.html", "/etc/passwd", "study/../../elsewhere/x", "a\0b", "", "."]
)
def test_a_name_that_leads_out_is_refused(name: str, root: Path) -> None:
    with pytest.raises(ValueError, match="leads out of its folder"):
        read_inside(root, name)
    with pytest.raises(ValueError, match="leads out of its folder"):
        write_inside(root, name, b"")


def test_writing_replaces_whole_files_and_leaves_no_scratch(root: Path) -> None:
    write_inside(root, "new/deep/file", b"1")
    write_inside(root, "new/deep/file", b"2")
    assert [path.name for path in (root / "new/deep").iterdir()] == ["file"]
    assert (root / "new/deep/file").read_bytes() == b"2"
    assert (root / "new/deep/file").stat().st_mode & 0o777 == 0o644


def test_private_files_are_not_written_through_planted_links(tmp_path: Path) -> None:
    """The scratch file's name can be foreseen; so can the lock's."""
    (tmp_path / "victim").write_bytes(SECRET)
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / f".state.{os.getpid()}").symlink_to(tmp_path / "victim")
    (folder / "state").symlink_to(tmp_path / "victim")
    write_private(folder / "state", b"new")
    assert (folder / "state").read_bytes() == b"new"
    assert not (folder / "state").is_symlink()
    (folder / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"), alone(folder):
        pass
    assert (tmp_path / "victim").read_bytes() == SECRET
