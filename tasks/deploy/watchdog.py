"""Finds services whose process lives and does no work: a scheduler that met a full disk waits for ever.

A service is stuck when it has neither answered nor beaten for `STUCK_S`. That counts from when it was last seen well,
and after a start no sooner than `START_S`. While the disk is full nothing counts: a new process would fare no better.
Once there is room again, the object store is started again in any case, since what it could not write to it does not
try again; the others have `AFTER_FULL_S` to show that they work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tasks.deploy import seaweedfs

CHECK_EVERY_S = 10.0
STUCK_S = 90.0
START_S = 180.0
AFTER_FULL_S = 20.0


class Watchdog:
    """Asks `silent` every `CHECK_EVERY_S` which services do not work; looks each time whether the disk is full.

    `disk_is_full` is told whether it was. All times are monotonic, in seconds.
    """

    def __init__(self, silent: Callable[[], set[str]], disk_is_full: Callable[[bool], bool]) -> None:
        self._silent = silent
        self._disk_is_full = disk_is_full
        self._patience_until: dict[str, float] = {}
        self._next = 0.0
        self._full = False

    def started(self, service: str, now: float) -> None:
        """Note a start: the service gets `START_S` to show that it works."""
        self._patience_until[service] = now + START_S

    def stuck(self, running: Iterable[str], now: float) -> set[str]:
        """Those of the running services that have to be started again; between two checks mostly none."""
        running, was_full = set(running), self._full
        self._full = self._disk_is_full(was_full)
        if was_full and not self._full:
            self._patience_until = dict.fromkeys(running, now + AFTER_FULL_S)
            return running & {seaweedfs.NAME}
        if now < self._next:
            return set()
        overslept = (
            now > self._next + STUCK_S
        )  # this process was held up, and maybe the others too: they have to be asked again
        self._next = now + CHECK_EVERY_S
        silent = self._silent()
        for service in running:
            if self._full or overslept or service not in silent:
                self._patience_until[service] = max(self._patience_until.get(service, 0.0), now + STUCK_S)
        return {service for service in running if self._patience_until.get(service, now) < now}
