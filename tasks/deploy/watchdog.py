"""Finds services whose process lives and does no work: a scheduler that met a full disk waits for ever.

A service is stuck when it has neither answered nor beaten for `STUCK_S`. That counts from when it was last seen well,
and after a start no sooner than `START_S`. While the disk is full nothing counts: a new process would fare no better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

CHECK_EVERY_S = 10.0
STUCK_S = 90.0
START_S = 180.0


class Watchdog:
    """Asks `silent` every `CHECK_EVERY_S` which services do not work. All times are monotonic, in seconds."""

    def __init__(self, silent: Callable[[], set[str]], disk_is_full: Callable[[], bool]) -> None:
        self._silent = silent
        self._disk_is_full = disk_is_full
        self._patience_until: dict[str, float] = {}
        self._next = 0.0

    def started(self, service: str, now: float) -> None:
        """Note a start: the service gets `START_S` to show that it works."""
        self._patience_until[service] = now + START_S

    def stuck(self, running: Iterable[str], now: float) -> set[str]:
        """Those of the running services that have to be started again; none between two checks."""
        if now < self._next:
            return set()
        overslept = now > self._next + STUCK_S  # the machine was suspended: what beats, beats again in a moment
        self._next = now + CHECK_EVERY_S
        full, silent = self._disk_is_full(), self._silent()
        for service in running:
            if full or overslept or service not in silent:
                self._patience_until[service] = max(self._patience_until.get(service, 0.0), now + STUCK_S)
        return {service for service in running if self._patience_until.get(service, now) < now}
