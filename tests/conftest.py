"""A real deployment for the tests that need one: an object store and Airflow on free ports, in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tasks.deploy import airflow, local, seaweedfs, sockets
from tasks.deploy.airflow_api import AirflowApi
from tasks.deploy.ports import choose_ports
from tasks.store import layout
from tasks.store import objects as storage
from tasks.store.settings import PROJECT, Addresses, S3Credential
from tasks.store.version import require_layout

START_TIMEOUT_S = 300.0
#: No time limit for an example: on a busy machine any of them may take long.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
#: The project's own studies. A checkout may have others beside them: whoever tests with it brought them.
SHIPPED = ("xanomeline_derm56", "xanomeline_nocomp24")


def copy_shipped(folder: Path) -> None:
    """The project's own studies, with their suites, into a project folder."""
    from tasks.study.file import load_study

    studies = [PROJECT / "studies" / f"{study}.yaml" for study in SHIPPED]
    tables = {table for path in studies for table in load_study(path).data.tables}
    suites = [
        PROJECT / "expectations" / name for name in ("inputs.json", "waivers.yaml", *(f"{t}.json" for t in tables))
    ]
    for place, paths in ((folder / "studies", studies), (folder / "expectations", suites)):
        place.mkdir(parents=True)
        for path in paths:
            shutil.copy(path, place)


@dataclass(frozen=True)
class Deployment:
    """A running deployment. `api` is logged in as the web UI's user."""

    home: Path
    addresses: Addresses
    sites_by_study: dict[str, list[str]]
    api: AirflowApi

    def credential(self, identity: str) -> S3Credential:
        """The key pair of `hub` or `site-<site>`."""
        return seaweedfs.credential(self.home, identity)

    def s3(self, identity: str) -> Any:
        """A boto3 client that acts as `hub` or `site-<site>`."""
        return seaweedfs.client(self.addresses.s3_endpoint, self.credential(identity))

    def store(self, identity: str) -> storage.ObjectStore:
        """The project's own client, acting as `hub` or `site-<site>`."""
        return storage.ObjectStore.connect(
            self.addresses.s3_endpoint, layout.BUCKET, self.credential(identity), identity
        )


#: What takes longest, first: a worker that got one of these last would leave the others idle. What mostly waits stands
#: between what computes.
LONG = (
    "deploy/test_local",
    "e2e/test_rounds",
    "deploy/test_store_closed",
    "rounds/",
    "data/checks/",
    "deploy/test_supervisor",
    "data/",
    "deploy/test_full_store",
    "exam/",
    "simulation/",
    "privacy/",
    "test_",
)


#: Where `make test` looks for tests of whole deployments.
E2E = ("e2e/", "deploy/test_local_e2e.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in the order of LONG, then all others; within a file the order is the file's."""

    def place(item: pytest.Item) -> str:
        return item.path.relative_to(PROJECT / "tests").as_posix()

    def rank(item: pytest.Item) -> int:
        return next((number for number, start in enumerate(LONG) if place(item).startswith(start)), len(LONG))

    items.sort(key=rank)
    lost = {place(item) for item in items if item.get_closest_marker("e2e") and not place(item).startswith(E2E)}
    if lost:
        raise pytest.UsageError(f"{', '.join(sorted(lost))}: `make test` looks for e2e tests in {', '.join(E2E)}")


@pytest.fixture(scope="session", autouse=True)
def _nobodys_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test meets the deployment of whoever runs it, and `make demo` leaves one in the project."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHARMAFED_HOME", str(tmp_path_factory.mktemp("nobodys_home")))
        yield


@pytest.fixture(scope="session")
def kept_checks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `checked_once` keeps: one folder for all workers of this run."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "kept_checks"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of its own in memory, with the mount options that the test is parametrized by."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", request.param, "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"file systems cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


Start = Callable[..., Deployment]

#: A suite that runs at two in the morning starts no rounds but its own.
NO_SCHEDULE = {"PHARMAFED_AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False"}


def start_deployment(
    home: Path,
    sites_by_study: dict[str, list[str]],
    *,
    enrol: local.Enrol | None = None,
    dags_folder: Path | None = None,
    environ: dict[str, str] | None = None,
    project: Path = PROJECT,
) -> Deployment:
    """Bring up a deployment on free ports; take it down with `local.down(home)`."""
    result = local.up(
        home,
        project,
        sites_by_study,
        enrol=enrol,
        auto_ports=True,
        dags_folder=dags_folder,
        environ=os.environ | NO_SCHEDULE | (environ or {}),
        timeout=START_TIMEOUT_S,
    )
    api = AirflowApi(result.addresses.airflow_url, **airflow.ui_login(home))
    return Deployment(home, result.addresses, sites_by_study, api)


@pytest.fixture(scope="session")
def start() -> Start:
    """`start_deployment`, for tests that need a deployment of their own to break."""
    return start_deployment


#: Names that the object store's identities know before it starts: one per test that asks for a study of its own.
STUDY_NAMES = tuple(f"study_{number:02d}" for number in range(80))
STORE_SITES = ("701", "702")


@dataclass(frozen=True)
class ObjectStoreServer:
    """A running object store without Airflow, with a hub and the sites of STORE_SITES in every study of STUDY_NAMES."""

    home: Path
    endpoint: str
    names: Iterator[str] = field(default_factory=lambda: iter(STUDY_NAMES))

    def store(self, identity: str) -> storage.ObjectStore:
        """The project's own client, acting as `hub` or `site-<site>`."""
        credential = seaweedfs.credential(self.home, identity)
        return storage.ObjectStore.connect(self.endpoint, layout.BUCKET, credential, identity)


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStoreServer]:
    """Only the object store, on free ports; stopped at the end of the run."""
    home, ports = tmp_path_factory.mktemp("store"), choose_ports(auto=True)
    seaweedfs.prepare(home, {name: STORE_SITES for name in STUDY_NAMES})
    with (home / "store.log").open("wb") as log:
        server = subprocess.Popen(
            seaweedfs.command(home, ports), cwd=seaweedfs.folder(home), stdout=log, stderr=subprocess.STDOUT
        )
    try:
        _wait_for_writes(server, ports.s3_endpoint, home)
        started = ObjectStoreServer(home, ports.s3_endpoint)
        require_layout(started.store("hub"))
        yield started
    finally:
        server.kill()  # a graceful stop takes 15 s, and nothing here is worth keeping
        server.wait()
        sockets.remove_abandoned(ports.model_dump())


@pytest.fixture
def study_name(object_store: ObjectStoreServer) -> str:
    """A study that no other test has written to."""
    return next(object_store.names)


def _wait_for_writes(server: subprocess.Popen[bytes], endpoint: str, home: Path) -> None:
    until = time.monotonic() + 60
    while not seaweedfs.accepts_writes(endpoint, seaweedfs.credential(home, seaweedfs.HUB)):
        if server.poll() is not None or time.monotonic() > until:
            log = (home / "store.log").read_text()[-2000:]
            raise RuntimeError(f"the object store did not start (exit code {server.poll()}):\n{log}")
        time.sleep(0.1)
