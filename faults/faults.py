"""What is done to a deployment, and how it is undone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from faults.world import SITES, STUDY, World
from tasks.deploy import processes, seaweedfs
from tasks.deploy.services import SERVICES
from tasks.deploy.state import SUPERVISOR, living_supervisor, read_state
from tasks.rounds.hub.context import HubContext
from tasks.store import layout

_FULL_S, _CUT_S = 30.0, 45.0
_CHUNK = bytes(4 << 20)


@dataclass(frozen=True)
class Moment:
    """A moment of a round, told by what lies in the store."""

    name: str
    keys: Callable[[int], list[str]]

    def has_come(self, hub: HubContext, server_round: int) -> bool:
        """Whether any of its objects is there."""
        return any(hub.store.exists(key) for key in self.keys(server_round))


MOMENTS = (
    Moment("opened", lambda number: [layout.plan(STUDY, number)]),
    Moment("first key", lambda number: [layout.key_message(STUDY, number, site) for site in SITES]),
    Moment("first upload", lambda number: [layout.update_manifest(STUDY, number, site) for site in SITES]),
    Moment("selected", lambda number: [layout.survivors(STUDY, number)]),
    Moment("model", lambda number: [layout.card(STUDY, number)]),
)


@dataclass(frozen=True)
class Fault:
    """`strike` does it and, where it ends by itself, undoes it; `mend` is what an operator does after the round."""

    name: str
    moment: Moment
    strike: Callable[[World], None]
    mend: Callable[[World], None] = lambda world: None


def all_faults(world: World) -> Iterator[Fault]:
    """Every service and the supervisor killed at five moments, the disk filled at three, the store cut off at one."""
    for service in SERVICES:
        for moment in MOMENTS:
            yield Fault(f"{service} killed", moment, lambda w, service=service: _kill(w, service))  # type: ignore[misc]
    yield Fault("scheduler hangs", MOMENTS[1], lambda w: _hang(w, "scheduler"))
    for moment in MOMENTS:
        yield Fault("supervisor killed", moment, _kill_supervisor, World.start_again)
    if world.has_own_disk:
        for moment in (MOMENTS[0], MOMENTS[2], MOMENTS[4]):
            yield Fault(f"disk full for {_FULL_S:.0f} s", moment, _fill)
    yield Fault(f"store cut off for {_CUT_S:.0f} s", MOMENTS[2], _cut_off)


def _kill(world: World, service: str, how: signal.Signals = signal.SIGKILL) -> None:
    state = read_state(world.home)
    pid = state.services[service].pid if state else None
    if pid is None:
        raise RuntimeError(f"{service} does not run")
    os.kill(pid, how)


def _hang(world: World, service: str) -> None:
    _kill(world, service, signal.SIGSTOP)


def _kill_supervisor(world: World) -> None:
    supervisor = living_supervisor(world.home)
    if supervisor is None:
        raise RuntimeError(f"{SUPERVISOR} does not run")
    supervisor.kill()


def _fill(world: World) -> None:
    with _ballast(world.home / "ballast"):
        time.sleep(_FULL_S)


@contextmanager
def _ballast(path: Path) -> Iterator[None]:
    """A file as large as the disk has room for."""
    try:
        with path.open("wb", buffering=0) as file:
            while True:
                file.write(_CHUNK)
    except OSError:
        pass
    try:
        yield
    finally:
        path.unlink()


def _cut_off(world: World) -> None:
    """The store takes connections and answers none, as behind a network that drops every packet."""
    family = processes.family(world.home, seaweedfs.NAME)
    for process in family:
        process.suspend()
    time.sleep(_CUT_S)
    for process in family:
        process.resume()
