"""A site's private files: written whole or not at all, readable by the owner only, by one process at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def private_folder(path: Path) -> Path:
    """Create `path` and its parents for the owner only, whatever the umask; an existing folder keeps its rights."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):  # `mkdir(parents=True)` would give the mode to the last one only
        folder.mkdir(mode=0o700, exist_ok=True)
    return path


def write_private(path: Path, content: bytes) -> None:
    """Replace `path` in one durable step, with rights 0600; folders that are missing are made with rights 0700."""
    private_folder(path.parent)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.unlink(missing_ok=True)  # of a killed process; or a link that somebody planted, which O_EXCL never follows
    try:
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError:  # a full disk: half a file would only take room, and may hold half a secret
        scratch.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process of this machine at a time; `folder` is made if it is missing.

    A task that was given up may still run beside its retry. What a killed process has left half-written in the folder
    is removed first: it may be a secret that nothing else would ever remove.
    """
    private_folder(folder)
    descriptor = os.open(folder / "lock", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for scratch in folder.glob(".*.*"):
            scratch.unlink()
        yield


def _sync_folder(folder: Path) -> None:
    """Without it a power cut may undo the renaming."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
