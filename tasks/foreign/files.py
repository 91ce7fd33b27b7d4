"""Reads files that somebody else put there: ordinary ones only, never more than a limit, never waiting.

A name in a folder may be a pipe that nobody writes, a device that never ends, or a link to either: opened as usual, it
would block or read for ever.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from fnmatch import fnmatchcase
from io import BufferedReader
from pathlib import Path, PurePath

from tasks.errors import ConfigError, DataError, PharmafedError

#: What a person writes by hand, or a program writes for this one: studies, suites, waivers, prices, prompts.
MAX_TEXT_BYTES = 4 << 20
#: Files below one folder, and folders within folders.
MAX_FILES = 100_000
MAX_DEPTH = 32
#: What desktops, office programs, editors and network drives leave in a folder: never data, and never refused.
#: As patterns for names that both `fnmatch` and a `.dvcignore` take.
STRAYS = (
    *("._*", ".DS_Store", ".AppleDouble", "__MACOSX", ".Spotlight-V100", ".Trashes", ".fseventsd", ".TemporaryItems"),
    *("[Dd]esktop.ini", "[Tt]humbs.db", "ehthumbs.db", "$RECYCLE.BIN", "System Volume Information"),
    *("~$*", ".~lock.*#", "*.swp", "*~", ".directory", ".Trash-*", ".nfs*", "@eaDir", "lost+found"),
)
_NEVER_WAIT = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def open_ordinary(path: Path, max_bytes: int, error: type[PharmafedError] = DataError) -> BufferedReader:
    """Open a file of at most `max_bytes`; a link is followed, as DVC may keep its cache behind one.

    Raises:
        FileNotFoundError: there is none.
        PharmafedError: of type `error`: a pipe, device, socket or folder, or too large.
    """
    descriptor = _open(path)
    if descriptor is None:
        raise error(f"{path}: no ordinary file but a socket or device: remove it")
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_size <= max_bytes:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise error(f"{path}: no ordinary file but a {_kind(found.st_mode)}: remove it")
    raise error(f"{path}: {found.st_size:,} bytes, more than the {max_bytes:,} that such a file may have")


def read_ordinary(path: Path, max_bytes: int = MAX_TEXT_BYTES, error: type[PharmafedError] = ConfigError) -> bytes:
    """The whole content; see `open_ordinary`. A file that grows while it is read is refused, not cut."""
    with open_ordinary(path, max_bytes, error) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise error(f"{path}: grew beyond the {max_bytes:,} bytes that such a file may have while it was read")
    return content


def is_stray(path: PurePath) -> bool:
    """Whether any part of a relative path is what STRAYS names."""
    return any(fnmatchcase(part, pattern) for part in path.parts for pattern in STRAYS)


def listed(folder: Path, pattern: str = "*") -> list[Path]:
    """What lies in `folder` and matches, in order of name, without strays; nothing where there is no such folder."""
    return sorted(path for path in folder.glob(pattern) if not is_stray(path.relative_to(folder)))


def ordinary_files(folder: Path) -> Iterator[Path]:
    """Every ordinary file below `folder`, links to such files included; links to folders are not followed.

    Raises:
        DataError: more than MAX_FILES entries, or folders nested deeper than MAX_DEPTH.
    """
    waiting, entries = [(folder, 1)], 0
    while waiting:
        here, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise DataError(f"{folder}: folders nested deeper than {MAX_DEPTH}: move what is no data elsewhere")
        with os.scandir(here) as found:
            for entry in found:
                entries += 1
                if entries > MAX_FILES:
                    raise DataError(f"{folder}: more than {MAX_FILES:,} files and folders: move what is no data away")
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((Path(entry.path), depth + 1))
                elif entry.is_file():
                    yield Path(entry.path)


def md5_of(path: Path) -> str:
    """DVC's digest of one ordinary file, whatever its size, read piece by piece. Raises as `open_ordinary`."""
    with open_ordinary(path, 1 << 62) as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _open(path: Path) -> int | None:
    """A descriptor; None for what cannot even be opened, such as a socket."""
    try:
        return os.open(path, _NEVER_WAIT)
    except OSError as error:
        if error.errno not in (errno.ENXIO, errno.ENODEV, errno.ELOOP):
            raise
    return None


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
    return kinds.get(stat.S_IFMT(mode), "special file")
