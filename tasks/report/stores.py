"""What writing and reading a report needs of an object store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from tasks.errors import StoreError, StoreUnavailable


class ReportStore(Protocol):
    """What publishing needs of an `ObjectStore`."""

    def put(self, key: str, body: bytes, *, content_type: str) -> None:
        """Write an object that may be written again."""


class ReadableStore(Protocol):
    """What reading needs of an `ObjectStore`."""

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """Read an object. Raises ObjectMissing; StoreError: it has more than `max_bytes`."""

    def keys(self, prefix: str) -> Iterator[str]:
        """All keys under `prefix`, sorted."""


def readable(store: ReadableStore, keys: Iterable[str], max_bytes: int) -> Iterator[bytes]:
    """The objects that can be read and are no larger. Raises StoreUnavailable."""
    for key in keys:
        try:
            yield store.get(key, max_bytes=max_bytes)
        except StoreUnavailable:
            raise
        except StoreError:  # one that is gone or too large hides no other
            continue
