"""A real deployment for the tests that need one: an object store and Airflow on free ports, in a folder of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasks import layout, storage
from tasks.deploy import airflow, local, seaweedfs
from tasks.deploy.airflow_api import AirflowApi
from tasks.settings import PROJECT, Addresses, S3Credential

START_TIMEOUT_S = 300.0


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


Start = Callable[..., Deployment]


def start_deployment(
    home: Path,
    sites_by_study: dict[str, list[str]],
    *,
    enrol: local.Enrol | None = None,
    dags_folder: Path | None = None,
    environ: dict[str, str] | None = None,
) -> Deployment:
    """Bring up a deployment on free ports; take it down with `local.down(home)`."""
    result = local.up(
        home,
        PROJECT,
        sites_by_study,
        enrol=enrol,
        auto_ports=True,
        dags_folder=dags_folder,
        environ=os.environ | (environ or {}),
        timeout=START_TIMEOUT_S,
    )
    api = AirflowApi(result.addresses.airflow_url, **airflow.ui_login(home))
    return Deployment(home, result.addresses, sites_by_study, api)


@pytest.fixture(scope="session")
def start() -> Start:
    """`start_deployment`, for tests that need a deployment of their own to break."""
    return start_deployment


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The project's own deployment: its studies, its sites enrolled, its DAGs; PHARMAFED_HOME points to it."""
    from tasks.enrolment import enrol_local_sites
    from tasks.study import load_studies

    home = tmp_path_factory.mktemp("pharmafed")
    studies = load_studies(PROJECT / "studies")
    sites_by_study = {name: list(study.sites) for name, study in studies.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHARMAFED_HOME", str(home))
        _forget_stores()
        running = start_deployment(home, sites_by_study, enrol=enrol_local_sites)
        try:
            yield running
        finally:
            running.api.close()
            local.down(home)
            _forget_stores()


def _forget_stores() -> None:
    storage.hub_store.cache_clear()
    storage.site_store.cache_clear()
