"""Private files: for their owner only, whatever the umask says."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.deploy.preflight import secret_problems
from tasks.store.files import alone, private_folder, write_private
from tasks.store.identity import ensure_authority, ensure_site_identity


@pytest.fixture(params=[0o022, 0o002, 0o000])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}


@pytest.mark.usefixtures("umask")
def test_every_folder_on_the_way_to_a_private_file_is_closed(tmp_path: Path) -> None:
    write_private(tmp_path / "a" / "b" / "c", b"secret")
    assert modes(tmp_path) == {"a": 0o700, "a/b": 0o700, "a/b/c": 0o600}


@pytest.mark.usefixtures("umask")
def test_so_is_the_folder_of_a_lock(tmp_path: Path) -> None:
    with alone(tmp_path / "a" / "b"):
        assert {modes(tmp_path)[folder] for folder in ("a", "a/b")} == {0o700}


@pytest.mark.usefixtures("umask")
def test_a_folder_that_is_there_keeps_its_rights(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o777)
    rights = stat.S_IMODE((tmp_path / "shared").stat().st_mode)
    private_folder(tmp_path / "shared" / "mine")
    assert modes(tmp_path) == {"shared": rights, "shared/mine": 0o700}


@pytest.mark.usefixtures("umask")
def test_secrets_made_by_enrolment_are_as_closed_as_up_wants_them(tmp_path: Path) -> None:
    home = tmp_path / "home"
    authority = ensure_authority(home / "secrets" / "ca")
    ensure_site_identity(home / "secrets" / "sites" / "701", "701", authority)
    assert list(secret_problems(home)) == []
    found = modes(tmp_path)
    assert len(found) == 11
    assert {mode for path, mode in found.items() if (tmp_path / path).is_dir()} == {0o700}
    (home / "secrets").chmod(0o755)  # what a plain mkdir under this umask would have made of it
    assert [str(home / "secrets") in problem.what for problem in secret_problems(home)] == [True]


def test_a_file_that_does_not_fit_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the kernel refuses in the middle of the writing."""
    path = tmp_path / "state.json"
    write_private(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_private(path, b"x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("state.json", b"old")]
    write_private(path, b"x" * 2000)
    assert path.read_bytes() == b"x" * 2000
