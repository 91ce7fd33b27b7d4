"""What the supervisor runs: each service's command line, environment and way to stop."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.deploy import airflow, processes, seaweedfs
from tasks.deploy.ports import Ports
from tasks.deploy.secret_files import write_secret
from tasks.deploy.state import run_folder

AIRFLOW_SERVICES = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),  # their log servers would listen on every interface
    "triggerer": ("triggerer", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
}
SERVICES = (seaweedfs.NAME, *AIRFLOW_SERVICES)


class Spec(BaseModel):
    """What `up` asks the supervisor to run; holds no secret. Kept in `run/spec.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path
    project: Path
    dags_folder: Path
    ports: Ports


class Service(NamedTuple):
    """One process to keep alive. Services stop in ascending `stop_order`; `grace` is in seconds."""

    name: str
    argv: list[str]
    environ: dict[str, str]
    folder: Path
    stop_order: int
    grace: float


def spec_file(home: Path) -> Path:
    """Where `up` leaves the supervisor's orders."""
    return run_folder(home) / "spec.json"


def write_spec(spec: Spec) -> None:
    """Leave the supervisor's orders in `run/spec.json`."""
    write_secret(spec_file(spec.home), spec.model_dump_json(indent=2) + "\n")


def read_spec(home: Path) -> Spec:
    """The supervisor's orders."""
    return Spec.model_validate_json(spec_file(home).read_text())


def last_ports(home: Path) -> dict[str, int]:
    """The ports of the last start, by name; none where there was no start that this version understands."""
    try:
        return read_spec(home).ports.model_dump()
    except (FileNotFoundError, ValidationError):
        return {}


def marked(environ: Mapping[str, str], home: Path, service: str) -> dict[str, str]:
    """`environ` with the marks by which `processes.family` finds the process and its descendants.

    SPT_NOENV keeps setproctitle, which Airflow calls, from overwriting them with the new title.
    """
    marks = {processes.MARKER: processes.marker(home), processes.SERVICE: service, "SPT_NOENV": "1"}
    return {**environ, **marks}


def airflow_environment(spec: Spec, inherited: Mapping[str, str]) -> dict[str, str]:
    """Airflow's environment for this deployment."""
    return airflow.environment(spec.home, spec.ports, spec.project, spec.dags_folder, inherited)


def services(spec: Spec, inherited: Mapping[str, str]) -> list[Service]:
    """Everything that has to run: first stops what hands out work, last what the others need."""
    environ = airflow_environment(spec, inherited)
    store = Service(
        name=seaweedfs.NAME,
        argv=seaweedfs.command(spec.home, spec.ports),
        environ=marked(seaweedfs.environment(inherited), spec.home, seaweedfs.NAME),
        folder=seaweedfs.folder(spec.home),
        stop_order=3,
        grace=seaweedfs.GRACE_S,
    )
    return [store, *(_airflow_service(name, spec, environ) for name in AIRFLOW_SERVICES)]


def _airflow_service(name: str, spec: Spec, environ: dict[str, str]) -> Service:
    return Service(
        name=name,
        argv=[sys.executable, "-m", "airflow", *AIRFLOW_SERVICES[name]],
        environ=marked(environ, spec.home, name),
        folder=airflow.folder(spec.home),
        stop_order=2 if name == "api-server" else 1,
        grace=5.0,
    )
