"""The deployment on this machine: `up` and `down`."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from tasks.data.remote import BUCKET, configure_remote
from tasks.deploy import airflow, processes, seaweedfs, sockets, store_security
from tasks.deploy.health import wait_until_healthy
from tasks.deploy.ports import Ports, choose_ports
from tasks.deploy.preflight import require_ready, require_same_time
from tasks.deploy.secret_files import open_private, write_secret
from tasks.deploy.services import Spec, airflow_environment, last_ports, marked, write_spec
from tasks.deploy.state import SUPERVISOR, State, living_supervisor, log_file, read_state, run_folder, state_file
from tasks.errors import ConfigError
from tasks.store import disk, layout
from tasks.store.files import private_folder
from tasks.store.objects import ObjectStore
from tasks.store.settings import PROJECT, Addresses

START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 30.0

Enrol = Callable[[ObjectStore, Path, list[str]], object]


class Up(NamedTuple):
    """What `up` did: `was_running` when there was nothing to start; `seconds` it took."""

    addresses: Addresses
    was_running: bool
    seconds: float


def up(
    home: Path,
    project: Path,
    sites_by_study: Mapping[str, Sequence[str]],
    *,
    enrol: Enrol | None = None,
    auto_ports: bool = False,
    dags_folder: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    console: Console | None = None,
    timeout: float = START_TIMEOUT_S,
) -> Up:
    """Start the deployment in `home`, or bring a running one in line with the studies, and wait until it works.

    `enrol(store, home, sites)` is called once the object store answers. `timeout` is in seconds. A start that fails
    leaves nothing running.

    Raises:
        ConfigError: something is in the way, or a service does not come up; the message has the remedy.
    """
    began = time.monotonic()
    console = console or Console(stderr=True)
    for warning in disk.warnings(home):
        console.print(f"! {warning}", style="yellow", highlight=False, markup=False)
    with _only_one(home):
        was_running = living_supervisor(home) is not None
        if was_running:
            _refresh(home, sites_by_study)
        else:
            folder = dags_folder or Path(environ.get("PHARMAFED_DAGS_FOLDER", project / "dags"))
            spec = Spec(home=home, project=project, dags_folder=folder, ports=choose_ports(auto_ports, environ))
            _launch(spec, sites_by_study, environ, console)
        with _stopping_on_failure(home, keep=was_running):
            state = _settle(home, timeout, console)
            if enrol:
                enrol(_hub_store(home, state), home, sorted(set().union(*sites_by_study.values())))
    return Up(_addresses(state.ports), was_running, time.monotonic() - began)


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Keep two `up` from starting the same deployment at once."""
    try:
        lock = open_private(private_folder(run_folder(home)) / "up.lock")
    except OSError as error:
        full = error.errno in disk.FULL
        remedy = disk.REMEDY if full else "set PHARMAFED_HOME to a folder that you may write to"
        raise ConfigError(f"cannot write to {home} ({error.strerror}): {remedy}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another `pharmafed up` is starting {home}: wait for it") from None
        yield


def offer_dvc_remote(home: Path, project: Path, endpoint: str) -> None:
    """Make the project's DVC remote `store` lead to this object store, with a key for the bucket of data only."""
    seaweedfs.create_bucket(endpoint, seaweedfs.credential(home, seaweedfs.HUB), BUCKET)
    key = seaweedfs.credential(home, seaweedfs.DVC)
    configure_remote(project, endpoint, key.access_key, key.secret_key)


def _refresh(home: Path, sites_by_study: Mapping[str, Sequence[str]]) -> None:
    """Let in the sites that have joined a running store since, and shut out those that have left.

    A store that is given a new certificate, or was started before it had one, is stopped: its supervisor starts it
    again at once.
    """
    if store_security.ensure_closed(home):
        seaweedfs.write_identities(home, sites_by_study)
        seaweedfs.stop(home)
        return
    if seaweedfs.write_identities(home, sites_by_study):
        seaweedfs.reload_identities(home)


def _launch(
    spec: Spec, sites_by_study: Mapping[str, Sequence[str]], environ: Mapping[str, str], console: Console
) -> None:
    sockets.remove_abandoned(spec.ports.model_dump())
    require_ready(spec.home, spec.ports)
    seaweedfs.prepare(spec.home, sites_by_study)
    airflow.prepare(spec.home)
    write_spec(spec)
    write_secret(spec.home / "deployment.json", _addresses(spec.ports).model_dump_json(indent=2) + "\n")
    if airflow.needs_migration(spec.home):
        with console.status("Creating Airflow's metadata database"):
            airflow.migrate(spec.home, marked(airflow_environment(spec, environ), spec.home, "migrate"))
        console.print("✓ metadata database", highlight=False)
    _start_supervisor(spec, environ)


def _start_supervisor(spec: Spec, environ: Mapping[str, str]) -> None:
    """Start the supervisor in a session of its own, so that it outlives this terminal."""
    paths = {"PHARMAFED_HOME": str(spec.home), "PHARMAFED_PROJECT": str(spec.project), "PYTHONPATH": str(PROJECT)}
    state_file(spec.home).unlink(missing_ok=True)
    with open_private(log_file(spec.home, SUPERVISOR)) as log:
        subprocess.Popen(
            [sys.executable, "-m", "tasks.deploy.supervisor"],
            env=marked({**environ, **paths}, spec.home, SUPERVISOR),
            cwd=spec.home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@contextmanager
def _stopping_on_failure(home: Path, keep: bool) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if not keep:
            down(home)
        raise


def _settle(home: Path, timeout: float, console: Console) -> State:
    """Wait until everything is healthy, saying what is."""
    ready: set[str] = set()

    def report(missing: set[str]) -> None:
        state = read_state(home)
        for name in sorted(set(state.services if state else ()) - missing - ready):
            ready.add(name)
            console.print(f"✓ {name}", highlight=False)
        spinner.update(f"Waiting for {', '.join(sorted(missing))}")

    with console.status("Starting") as spinner:
        state = wait_until_healthy(home, timeout, report)
    require_same_time(state.ports.s3_endpoint)
    return state


def _hub_store(home: Path, state: State) -> ObjectStore:
    hub = seaweedfs.credential(home, seaweedfs.HUB)
    return ObjectStore.connect(state.ports.s3_endpoint, layout.BUCKET, hub, seaweedfs.HUB)


def _addresses(ports: Ports) -> Addresses:
    return Addresses(s3_endpoint=ports.s3_endpoint, bucket=layout.BUCKET, airflow_url=ports.airflow_url)


def down(home: Path) -> int:
    """Stop every process of the deployment and keep its data. Returns how many there were."""
    before = len(processes.family(home))
    supervisor = living_supervisor(home)
    if supervisor:
        supervisor.terminate()
        processes.wait([supervisor], _STOP_TIMEOUT_S)
    processes.stop(processes.family(home), grace=3.0)
    sockets.remove_abandoned(last_ports(home))
    state_file(home).unlink(missing_ok=True)
    (home / "deployment.json").unlink(missing_ok=True)
    return before
