"""What runs now, and whether it works: `pharmafed status`. The processes are asked; a state file may be old.

On a full disk the supervisor cannot write its state, and a supervisor that was killed has left one behind.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import psutil
from pydantic import ValidationError

from tasks.deploy import processes
from tasks.deploy.health import unhealthy
from tasks.deploy.ports import Ports
from tasks.deploy.services import SERVICES, read_spec, spec_file
from tasks.deploy.state import ServiceState, State, living_supervisor, read_state
from tasks.errors import ConfigError
from tasks.store import disk


class ServiceView(NamedTuple):
    """One service: `process` is `running`, `left over` (its main process is gone), or why there is none."""

    name: str
    process: str
    works: bool
    pid: int | None
    restarts: int


class Status(NamedTuple):
    """`supervised` says whether what ends is started again; `running` counts processes; `warnings` are sentences."""

    supervised: bool
    running: int
    services: list[ServiceView]
    warnings: list[str]

    @property
    def well(self) -> bool:
        """Whether everything works and goes on doing so."""
        return self.supervised and all(service.works for service in self.services)


def status(home: Path) -> Status:
    """Look at the processes of the deployment in `home`, and ask each service."""
    members = processes.by_service(home)
    supervised = living_supervisor(home) is not None
    state = read_state(home)
    names = state.services if state else SERVICES
    mains = {name: _main(members.get(name, []), _written(state, name), supervised) for name in names}
    started = {name: datetime.fromtimestamp(main.create_time(), UTC) for name, main in mains.items() if main}
    ports = _ports(home, state)
    broken = unhealthy(home, ports, started) if ports else set(started)
    views = [
        ServiceView(
            name,
            _process(members.get(name, []), main, _written(state, name), supervised),
            name in started.keys() - broken,
            main.pid if main else None,
            written.restarts if (written := _written(state, name)) else 0,
        )
        for name, main in mains.items()
    ]
    running = sum(map(len, members.values()))
    return Status(supervised, running, views if running else [], disk.warnings(home) if running else [])


def require_running(home: Path) -> None:
    """Check that `up` was the last word here. Raises ConfigError: it was, and nothing runs all the same."""
    if spec_file(home).exists() and not processes.family(home):
        raise ConfigError(f"nothing runs in {home}: run `pharmafed up`")


def _written(state: State | None, name: str) -> ServiceState | None:
    return state.services.get(name) if state else None


def _ports(home: Path, state: State | None) -> Ports | None:
    try:
        return state.ports if state else read_spec(home).ports
    except (OSError, ValidationError):
        return None


def _main(members: list[psutil.Process], written: ServiceState | None, supervised: bool) -> psutil.Process | None:
    """The process that the supervisor has started, of a service's processes, the oldest first.

    It leads a session. One that the state file does not know yet can only come from a supervisor that lives.
    """
    known = [process for process in members if written and process.pid == written.pid]
    if known or (written and not supervised):
        return known[0] if known else None
    return next((process for process in members if _leads(process.pid)), None)


def _leads(pid: int) -> bool:
    try:
        return os.getsid(pid) == pid
    except OSError:
        return False


def _process(
    members: list[psutil.Process], main: psutil.Process | None, written: ServiceState | None, supervised: bool
) -> str:
    if main:
        return "running"
    if members:
        return "left over"
    if not supervised:
        return "not running"
    return written.phase if written and written.phase != "running" else "restarting"
