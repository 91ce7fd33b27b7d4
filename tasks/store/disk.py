"""Room on disk: what is needed to start and to open a round, and from where on it is time to make room.

    place                         refused below           warned below
    the deployment's home         2 GB                    4 GB, or 5 % of the disk where that is more, at most 20 GB
    the folder for scratch files  64 MB                   256 MB, or 5 % of the disk where that is more, at most 1 GB
    either: files (inodes)        2,000                   20,000

A round also needs `round_bytes` above `STORE_RESERVE_MIB`, below which the object store takes no writes.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tasks.errors import RoundRefused
from tasks.store import settings

if TYPE_CHECKING:  # the object store's container and the supervisor have no use for torch
    from torch import nn

    from tasks.study.sections import Study

STORE_RESERVE_MIB = 256
"""The object store's `minFreeSpace`: with less than that it is read-only."""
FULL = (errno.ENOSPC, errno.EDQUOT)
"""No room on the disk, or none left of the user's share of it."""
_PART, _LOGS_BYTES, _MIN_FILES, _FEW_FILES = 0.05, 64_000_000, 2_000, 20_000
REMEDY = "free some space there (old logs under logs/ and airflow/logs/ of the deployment may go)"


class Limits(NamedTuple):
    """Bytes: without `needed` nothing starts; `low` is the least, `most` the largest figure to warn below."""

    needed: int
    low: int
    most: int


HOME = Limits(2_000_000_000, 4_000_000_000, 20_000_000_000)
SCRATCH = Limits(64_000_000, 256_000_000, 1_000_000_000)


class Room(NamedTuple):
    """What this user can still write: `free` of `total` bytes, and so many files; None where those are not counted."""

    place: Path
    free: int
    total: int
    files: int | None
    limits: Limits

    @property
    def too_little(self) -> bool:
        """Whether nothing should be started with it."""
        return self.free < self.limits.needed or (self.files is not None and self.files < _MIN_FILES)

    @property
    def low(self) -> bool:
        """Whether it is time to make room."""
        warned = max(self.limits.low, min(int(_PART * self.total), self.limits.most))
        return self.free < warned or (self.files is not None and self.files < _FEW_FILES)

    @property
    def needed(self) -> str:
        """The least to start with, in words."""
        files = "" if self.files is None else f" and {_MIN_FILES} files"
        return f"{_size(self.limits.needed)}{files}"

    def __str__(self) -> str:
        files = "" if self.files is None or self.files >= _FEW_FILES else f" and {self.files} files"
        return f"{_size(self.free)} of {_size(self.total)}{files} are free under {self.place}"


def room(place: Path, limits: Limits) -> Room:
    """How much can be written under `place`, or under the first of its parents that exists."""
    found = os.statvfs(next(folder for folder in (place, *place.parents) if folder.exists()))
    files = found.f_favail if found.f_files else None
    return Room(place, found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, files, limits)


def rooms(home: Path) -> Iterator[Room]:
    """The places that a deployment writes to: its home, and the folder for scratch files."""
    yield room(home, HOME)
    yield room(_scratch(), SCRATCH)


def _scratch() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:  # it is tried by writing to it
        return Path(os.environ.get("TMPDIR") or "/tmp")


def warnings(home: Path) -> list[str]:
    """A sentence for each place whose room runs out, with the remedy."""
    return [f"little room on the disk: only {found}: {REMEDY}" for found in rooms(home) if found.low]


def is_full(home: Path, was_full: bool = False) -> bool:
    """Whether services cannot be expected to work for want of room; a disk that was full needs some more to be not."""
    return room(home, HOME).free < ((STORE_RESERVE_MIB << 20) + SCRATCH.needed if was_full else SCRATCH.needed)


def round_bytes(study: Study, model_bytes: int) -> int:
    """What a round writes at most when hub, store and all sites share one disk, as on a single machine.

    Each site keeps the model, its update and what it uploads; the store keeps the upload too, and the new model.
    """
    per_site = 2 + 2 * study.channel.copies
    return model_bytes * (2 + per_site * len(study.sites)) + _LOGS_BYTES


def require_room_for_round(study: Study, model: nn.Module, home: Path | None = None) -> None:
    """Check, before a round is opened and paid for, that the hub's disk can hold it to its end.

    Raises:
        RoundRefused: it cannot; the message has the figures and the remedy.
    """
    found = room((home or settings.home()) / "reports", HOME)  # which the hub writes in containers too
    needed = round_bytes(study, _bytes_of(model)) + (STORE_RESERVE_MIB << 20)
    if found.free < needed or (found.files is not None and found.files < _MIN_FILES):
        raise RoundRefused(
            f"no round of {study.study} is opened, since the disk could not hold it to its end: {found}, and "
            f"{_size(needed)} and {_MIN_FILES} files are needed. Nothing was paid. Remedy: {REMEDY}"
        )


def _bytes_of(model: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1_000_000_000 else f"{count / 1e6:.0f} MB"
