"""Files in a folder of ours that others may also write to: what is read and written lies in it, whatever links say.

Each step from the root down is opened without following a link, and the next step is taken from what was opened. So a
link planted at the file or at any folder above it is refused, also one that is planted while we are under way.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import StringConstraints

from tasks.errors import ConfigError

#: A folder's name: never `..`, and nothing with a slash.
FolderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$")]
#: A file's name in a folder, in any script.
FileName = Annotated[str, StringConstraints(pattern=r"^[^./\\\x00-\x1f][^/\\\x00-\x1f]{0,199}$")]
#: The largest file that is read; a report with its pictures has a few megabytes.
MAX_BYTES = 64 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def read_inside(root: Path, relative: str | Path, max_bytes: int = MAX_BYTES) -> bytes | None:
    """A file below `root`; None if it is not there, no ordinary file, behind a link, or of more than `max_bytes`.

    Raises:
        ValueError: `relative` is absolute or has `..`.
    """
    *folders, name = _parts(relative)
    try:
        with _folder(root, folders, make=False) as folder, os.fdopen(os.open(name, _FILE, dir_fd=folder), "rb") as file:
            found = os.fstat(file.fileno())
            body = file.read(max_bytes + 1) if stat.S_ISREG(found.st_mode) else None
    except OSError:
        return None
    return body if body is not None and len(body) <= max_bytes else None


def write_inside(root: Path, relative: str | Path, body: bytes) -> None:
    """Replace a file below `root`, so that a reader sees all of it or the one before; a link in its place is replaced.

    Raises:
        ConfigError: a folder on the way is a link, or no folder.
        ValueError: `relative` is absolute or has `..`.
    """
    *folders, name = _parts(relative)
    root.mkdir(parents=True, exist_ok=True)
    try:
        with _folder(root, folders, make=True) as folder:
            _replace(folder, name, body)
    except (NotADirectoryError, IsADirectoryError):
        raise ConfigError(f"{root / relative}: not written: a link or file stands where a folder belongs") from None


def _parts(relative: str | Path) -> tuple[str, ...]:
    parts = PurePosixPath(relative).parts
    if not parts or parts[0] == "/" or ".." in parts or "\0" in str(relative):
        raise ValueError(f"{str(relative)!r} leads out of its folder")
    return parts


@contextmanager
def _folder(root: Path, folders: list[str], *, make: bool) -> Iterator[int]:
    """The descriptor of a folder below `root`. Opening a link as a folder fails with ENOTDIR."""
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in folders:
            if make:
                _make(here, name)
            below = os.open(name, _FOLDER, dir_fd=here)
            os.close(here)
            here = below
        yield here
    finally:
        os.close(here)


def _make(parent: int, name: str) -> None:
    try:
        os.mkdir(name, dir_fd=parent)
    except FileExistsError:
        return


def _replace(folder: int, name: str, body: bytes) -> None:
    scratch = f".{name}.{secrets.token_hex(8)}"
    with os.fdopen(os.open(scratch, _NEW, 0o644, dir_fd=folder), "wb") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(body)
    try:
        os.replace(scratch, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        os.unlink(scratch, dir_fd=folder)
        raise
