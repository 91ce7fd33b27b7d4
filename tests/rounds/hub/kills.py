"""Processes that die at a chosen write of a site's step, and a log of all that they were about to write."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tasks.errors import ObjectMissing
from tasks.privacy.secure_sum import protocol
from tasks.store.objects import ObjectStore
from tasks.store.records.ledger import LedgerEntry
from tests.rounds.hub.federation import _FORKS, Federation, in_child

#: Written instead of a digest where the ledger has no entry.
UNRECORDED = "unrecorded"


@dataclass
class Watch:
    """What to log of a process, and when to end it.

    Attributes:
        folder: the log and the contributions that it masks lie here; every process of a test appends to the same log.
        ledger_key: the entry that pays for the round's release.
        kill_at: the number, from 0, of the boundary at which the process kills itself. Each write of a file, removal of
            a file and write of an object has two: before and after.
        meet: (end of an event, barrier): all processes of a race wait there for each other, for a second at most.
        slow: (end of an event, seconds): sleep there.
    """

    folder: Path
    ledger_key: str
    kill_at: int | None = None
    meet: tuple[str, Any] | None = None
    slow: tuple[str, float] | None = None
    count: int = field(default=0, init=False)

    @property
    def log(self) -> Path:
        return self.folder / "log.jsonl"

    def lines(self) -> list[dict[str, str]]:
        """The log so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def contributions(self) -> list[np.ndarray]:
        """Every vector that some process was about to mask."""
        return [np.load(path) for path in sorted(self.folder.glob("contribution-*.npy"))]

    def boundary(self, event: str, **facts: str) -> None:
        """Log it; then die, wait or sleep, if this is the place."""
        line = json.dumps({"event": event, "pid": os.getpid(), **facts}) + "\n"
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(descriptor, line.encode())
        os.close(descriptor)
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1
        if self.meet and event.endswith(self.meet[0]):
            with suppress(threading.BrokenBarrierError):
                self.meet[1].wait(1)
        if self.slow and event.endswith(self.slow[0]):
            time.sleep(self.slow[1])

    def around(self, what: str, act: Callable[[], Any], **facts: str) -> Any:
        self.boundary(f"before {what}", **facts)
        result = act()
        self.boundary(f"after {what}", **facts)
        return result


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Every write of this process goes through `watch`."""
    call, replace, unlink, mask = ObjectStore._call, Path.replace, Path.unlink, protocol.mask

    def put(self: ObjectStore, operation: str, key: str | None, **arguments: Any) -> Any:
        act = partial(call, self, operation, key, **arguments)
        if operation != "put_object" or key is None:
            return act()
        paid = _paid(call, self, watch.ledger_key) if key.endswith("/update.safetensors") else ""
        return watch.around(f"put {key}", act, sha256=hashlib.sha256(arguments["Body"]).hexdigest(), paid=paid)

    def moved(self: Path, target: Path) -> Any:
        return watch.around(f"replace {Path(target).name}", lambda: replace(self, target))

    def removed(self: Path, missing_ok: bool = False) -> None:
        if not self.exists():  # the scratch file of nobody: nothing changes on the disk
            return unlink(self, missing_ok=missing_ok)
        watch.around(f"unlink {self.name}", lambda: unlink(self, missing_ok=missing_ok))

    def hidden(values: np.ndarray, *rest: Any) -> Any:
        whole = watch.folder / f"contribution-{os.getpid()}-{time.monotonic_ns()}.npy"
        scratch = whole.with_name(f"half-written-{whole.name}")  # a kill at a random moment may come here
        np.save(scratch, values)
        os.rename(scratch, whole)
        return mask(values, *rest)

    ObjectStore._call, Path.replace, Path.unlink, protocol.mask = put, moved, removed, hidden  # type: ignore
    try:
        yield
    finally:
        ObjectStore._call, Path.replace, Path.unlink, protocol.mask = call, replace, unlink, mask  # type: ignore


def _paid(call: Any, store: ObjectStore, key: str) -> str:
    """What the ledger in the store says at this moment that it has paid for."""
    try:
        body = call(store, "get_object", key)["Body"].read()
    except ObjectMissing:
        return UNRECORDED
    return LedgerEntry.model_validate_json(body).release_sha256


def start(fed: Federation, step: Callable[[], object], watch: Watch) -> tuple[Any, Any]:
    """The step in a process of its own, watched; and the event that it sets when its step begins."""
    begun = _FORKS.Event()
    return in_child(fed, partial(_watched_step, step, watch, begun)), begun


def _watched_step(step: Callable[[], object], watch: Watch, begun: Any) -> None:
    with watched(watch):
        begun.set()
        step()
