"""Runs once before the hub's services: the metadata database and its pools, the buckets, the enrolment of every site.

Harmless when run again: each step keeps what it finds.
"""

from __future__ import annotations

import subprocess
import time

from tasks.data import remote
from tasks.deploy import airflow, seaweedfs
from tasks.deploy.enrol import enrol_local_sites
from tasks.errors import ConfigError
from tasks.store import settings
from tasks.store.objects import hub_store
from tasks.study.file import load_studies

STORE_TIMEOUT_S = 60


def main() -> None:
    """Bring database and object store to the state that the services expect."""
    for command in (("db", "migrate"), *(("pools", "set", *pool) for pool in airflow.POOLS)):
        subprocess.run(["airflow", *command], check=True)
    _wait_for_store()
    seaweedfs.create_bucket(settings.addresses().s3_endpoint, settings.hub_credential(), remote.BUCKET)
    studies = load_studies(settings.project_dir() / "studies")
    sites = sorted({site for study in studies.values() for site in study.sites})
    enrol_local_sites(hub_store(), settings.home(), sites)
    print(f"ready: {len(studies)} studies, {len(sites)} sites enrolled")


def _wait_for_store() -> None:
    """Until the object store takes a write, which also creates the bucket."""
    endpoint, deadline = settings.addresses().s3_endpoint, time.monotonic() + STORE_TIMEOUT_S
    while not seaweedfs.accepts_writes(endpoint, settings.hub_credential()):
        if time.monotonic() > deadline:
            raise ConfigError(
                f"{endpoint} takes no writes after {STORE_TIMEOUT_S} s: see `docker compose logs seaweedfs`"
            )
        time.sleep(1)


if __name__ == "__main__":
    main()
