"""Keeps the services' logs small while they run: an API server's grows with every request, for months."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

MAX_BYTES = 10_000_000


def keep_small(logs: Iterable[Path]) -> None:
    """Move what a log of more than `MAX_BYTES` holds to `<name>.log.1`, in place of what lay there.

    The services append to the open file, so it is emptied and not renamed. What cannot be copied is kept where it is.
    """
    for log in logs:
        with suppress(OSError):
            if log.stat().st_size > MAX_BYTES:
                _move_content(log)


def _move_content(log: Path) -> None:
    earlier, scratch = log.with_suffix(".log.1"), log.with_suffix(".log.2")
    try:
        shutil.copy(log, scratch)  # with its rights
        scratch.replace(earlier)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise
    with log.open("r+b") as file:
        file.truncate(0)
