"""Files that only their owner may read: keys, passwords, tokens."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from pydantic import TypeAdapter

from tasks.errors import ConfigError
from tasks.store import files

FILE_MODE = 0o600
_Strings = TypeAdapter(dict[str, str])


def open_private(path: Path) -> BinaryIO:
    """Open `path` for appending; a new file is readable by its owner only."""
    return open(path, "ab", opener=lambda name, flags: os.open(name, flags, FILE_MODE))


def write_secret(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step, readable by its owner only (mode 0600)."""
    files.write_private(path, text.encode())


def read_or_create(path: Path, make: Callable[[], dict[str, str]]) -> dict[str, str]:
    """The JSON object in `path`; written from `make()` at first use and kept from then on. Raises ConfigError."""
    if not path.exists():
        write_secret(path, json.dumps(make(), indent=2) + "\n")
    try:
        return _Strings.validate_json(path.read_text())
    except ValueError:
        raise ConfigError(
            f"{path} is damaged: put it back from a copy of the folder, or remove it to have new keys made"
        ) from None


def readable_by_others(root: Path) -> Iterator[Path]:
    """`root` itself and the files under it that group or others have any right on; folders inside lie behind `root`."""
    if not root.exists():
        return
    for path in (root, *sorted(path for path in root.rglob("*") if path.is_file())):
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            yield path
