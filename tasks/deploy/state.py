"""What the supervisor says about itself in `run/state.json`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.deploy.ports import Ports
from tasks.deploy.processes import MARKER, SERVICE, family, marker
from tasks.deploy.secret_files import write_secret

SUPERVISOR = "supervisor"
ServicePhase = Literal["running", "restarting", "failed", "stopped"]


class ServiceState(BaseModel):
    """One service: `restarts` since the deployment's start; `exit_code` is the last one, -N for signal N."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    phase: ServicePhase
    pid: int | None = None
    started_at: datetime
    restarts: int = 0
    exit_code: int | None = None


class State(BaseModel):
    """The whole deployment as its supervisor saw it last."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    supervisor_pid: int
    started_at: datetime
    ports: Ports
    services: dict[str, ServiceState]


def run_folder(home: Path) -> Path:
    """What belongs to the running deployment only."""
    return home / "run"


def state_file(home: Path) -> Path:
    """Where the supervisor writes its state."""
    return run_folder(home) / "state.json"


def log_file(home: Path, service: str) -> Path:
    """Where a service's output goes."""
    return home / "logs" / f"{service}.log"


def write_state(home: Path, state: State) -> None:
    """Replace the state file in one step."""
    write_secret(state_file(home), state.model_dump_json(indent=2) + "\n")


def read_state(home: Path) -> State | None:
    """The last state written, or None when there is none; the supervisor may be dead all the same."""
    try:
        return State.model_validate_json(state_file(home).read_text())
    except (OSError, ValidationError):
        return None


def living_supervisor(home: Path) -> psutil.Process | None:
    """The supervisor of this home, if it runs, whatever the state file says: on a full disk it cannot write that."""
    state = read_state(home)
    if state and (written := _supervisor(home, state.supervisor_pid)):
        return written
    return min(family(home, SUPERVISOR), key=psutil.Process.create_time, default=None)


def _supervisor(home: Path, pid: int) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
        environ = process.environ()
    except psutil.Error:
        return None
    return process if environ.get(MARKER) == marker(home) and environ.get(SERVICE) == SUPERVISOR else None
