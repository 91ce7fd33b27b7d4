"""A deployment of its own: one masked study of six sites, on a disk of its own where this machine lets us mount one."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console

from tasks.deploy import airflow, local
from tasks.deploy.airflow_api import AirflowApi
from tasks.deploy.enrol import enrol_local_sites
from tasks.deploy.ports import variable
from tasks.deploy.services import read_spec
from tasks.rounds.hub.context import HubContext
from tasks.store.settings import PROJECT

STUDY = "faults"
SITES = ("701", "704", "708", "710", "716", "718")
DEADLINE_S = 240
_BASE = "xanomeline_derm56"
_TOTAL_ROUNDS = 60
_DISK_MB = 3000


@dataclass(frozen=True)
class World:
    """The running deployment. `has_own_disk`: its home is on a disk that may be filled."""

    home: Path
    project: Path
    api: AirflowApi
    has_own_disk: bool

    @property
    def hub(self) -> HubContext:
        """The hub's view of the study."""
        return HubContext.load(STUDY)

    def start_again(self) -> None:
        """Stop what is left and start all, as `pharmafed up` asks for where the supervisor has died alone."""
        spec = read_spec(self.home)
        ports = {variable(name): str(port) for name, port in spec.ports.model_dump().items()}
        local.down(self.home)
        local.up(
            self.home,
            self.project,
            {STUDY: list(SITES)},
            enrol=enrol_local_sites,
            dags_folder=spec.dags_folder,
            environ=os.environ | ports,
            console=Console(quiet=True),
        )


@contextmanager
def running() -> Iterator[World]:
    """Start it on free ports, stop and remove it at the end."""
    root = Path(tempfile.mkdtemp(prefix="pharmafed-faults-"))
    home, project = root / "home", root / "project"
    home.mkdir(mode=0o700)
    _write_project(project)
    mounted = _mount(home)
    os.environ |= {"PHARMAFED_HOME": str(home), "PHARMAFED_PROJECT": str(project)}
    try:
        up = local.up(
            home,
            project,
            {STUDY: list(SITES)},
            enrol=enrol_local_sites,
            auto_ports=True,
            dags_folder=PROJECT / "dags",
            console=Console(stderr=True),
        )
        with AirflowApi(up.addresses.airflow_url, **airflow.ui_login(home)) as api:
            api.wait_for_dag(f"federated_round.{STUDY}")
            yield World(home, project, api, mounted)
    finally:
        local.down(home)
        if mounted:
            subprocess.run(["umount", "--lazy", str(home)], check=False)
        shutil.rmtree(root, ignore_errors=True)


def _write_project(project: Path) -> None:
    shutil.copytree(PROJECT / "expectations", project / "expectations")
    shutil.copy(PROJECT / "data.dvc", project)
    (project / "data").symlink_to(PROJECT / "data")
    study = yaml.safe_load((PROJECT / "studies" / f"{_BASE}.yaml").read_text(encoding="utf-8"))
    study |= {"study": STUDY, "title": "Faults", "sites": {site: study["sites"][site] for site in SITES}}
    study["rounds"] |= {"total": _TOTAL_ROUNDS, "min_sites": 4, "deadline_seconds": DEADLINE_S}
    (project / "studies").mkdir()
    (project / "studies" / f"{STUDY}.yaml").write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")


def _mount(home: Path) -> bool:
    """A disk of our own in memory; False where we may not mount one."""
    options = f"size={_DISK_MB}m,mode=0700"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "pharmafed-faults", str(home)], capture_output=True)
    return done.returncode == 0
