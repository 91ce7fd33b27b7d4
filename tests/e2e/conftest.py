"""One real deployment on a copy of the project, with a few studies of our own that go wrong on purpose."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tasks.data.drafting.draft import DraftOptions, draft_study
from tasks.data.drafting.place import place
from tasks.data.pin import write_pin
from tasks.deploy import local
from tasks.deploy.enrol import enrol_local_sites
from tasks.rounds.hub.context import HubContext
from tasks.store.records.report import RoundMetrics
from tasks.store.settings import PROJECT
from tasks.study.file import load_studies
from tests.conftest import Deployment, copy_shipped, start_deployment
from tests.data.drafting.unseen_study import write_unseen_study
from tests.e2e.examination import place_exam, scripted
from tests.exam.scripted_server import ScriptedServer

FOUR_SITES = ("701", "704", "708", "710")


@dataclass(frozen=True)
class Federation:
    """A running deployment, the project copy that it works on, and short cuts for tests."""

    deployment: Deployment
    project: Path
    marks: Path
    exam: str
    drifting: list[int]

    def hub(self, study: str) -> HubContext:
        """The hub's view of a study."""
        return HubContext.load(study)

    def run(self, study: str, *, run_id: str, timeout: float = 480) -> str:
        """Trigger a study's DAG, wait for the run and give its state."""
        self.start(study, run_id=run_id)
        return str(self.deployment.api.wait_for_run(f"federated_round.{study}", run_id, timeout)["state"])

    def start(self, study: str, *, run_id: str) -> None:
        """Trigger a study's DAG."""
        self.deployment.api.wait_for_dag(f"federated_round.{study}")
        self.deployment.api.trigger(f"federated_round.{study}", {"rounds": 1}, run_id)

    def command(self, *arguments: str) -> str:
        """What `pharmafed <arguments>` prints; it must end well."""
        command = [sys.executable, "-m", "tasks.cli", *arguments]
        done = subprocess.run(command, cwd=PROJECT, env=os.environ, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def states(self, study: str, run_id: str) -> dict[str, str]:
        """State of each task of a run."""
        tasks = self.deployment.api.task_instances(f"federated_round.{study}", run_id)
        return {task["task_id"]: task["state"] for task in tasks}

    def newest(self, study: str) -> RoundMetrics:
        """The newest closed round."""
        return self.hub(study).closed_rounds()[-1]


@pytest.fixture(scope="session")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Starts with site 705's records strange but valid, and site 713's not readable (see `canaries`)."""
    root = tmp_path_factory.mktemp("federation")
    project, home = root / "project", root / "home"
    copy_shipped(project)
    for folder in ("data", "exams"):
        shutil.copytree(PROJECT / folder, project / folder)
    shutil.copy(PROJECT / "data.dvc", project / "data.dvc")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet", "--no-scm"], cwd=project, check=True)
    marks = root / "marks"
    marks.mkdir()
    write_studies(project / "studies", marks)
    draft_unseen_study(project, root / UNSEEN)
    plant(project / "data" / "sites")
    exam = place_exam(project / "data")
    script, drifting = scripted(project / "data", exam)
    write_pin(project / "data")
    studies = load_studies(project / "studies")
    with pytest.MonkeyPatch.context() as patch, ScriptedServer(script) as server:
        patch.setenv("PHARMAFED_HOME", str(home))
        patch.setenv("PHARMAFED_PROJECT", str(project))
        patch.setenv("PHARMAFED_MODEL_PACKAGES", "tests")  # our models lie beside the copy, not in it
        patch.setenv("SCRIPTED_BASE_URL", server.url)
        patch.setenv("SCRIPTED_API_KEY", "a key for the scripted model")
        deployment = start_deployment(
            home,
            {name: list(study.sites) for name, study in studies.items()},
            enrol=enrol_local_sites,
            dags_folder=PROJECT / "dags",
            project=project,
        )
        try:
            yield Federation(deployment, project, marks, exam, drifting)
        finally:
            deployment.api.close()
            local.down(home)


#: A study of six clinics that `pharmafed study init` drafts from their tables.
UNSEEN = "asthma"


def draft_unseen_study(project: Path, folder: Path) -> None:
    """What `pharmafed study init <folder>` writes."""
    options = DraftOptions(label="patients.exacerbation", name=UNSEEN)
    place(draft_study(write_unseen_study(folder), options, project / "expectations"), project)


def write_studies(folder: Path, marks: Path) -> None:
    """Small studies on four sites: a worker killed once, a slow site, a model of one's own and one that is refused.

    And one with a budget of one round.
    """
    base = yaml.safe_load((folder / "xanomeline_nocomp24.yaml").read_text())
    base["sites"] = {site: [site] for site in FOUR_SITES}
    quick = {"total": 20, "min_sites": 3, "deadline_seconds": 60}
    for name, changes in {
        "killed_once": {"model": {"path": "tests.e2e.models:KilledOnce", "options": {"mark": str(marks / "killed")}}},
        "slow_site": {"model": {"path": "tests.e2e.models:SlowOnce", "options": {"mark": str(marks / "slow")}}},
        "four_sites": {},
        "one_more": {},
        "own_model": {"model": {"path": "tests.own_models:Everything", "options": {}}},
        "wrong_model": {"model": {"path": "tests.own_models:EverythingWrong", "options": {}}},
    }.items():
        study = {**base, "study": name, "title": name, "rounds": quick, **changes}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    private = yaml.safe_load((folder / "xanomeline_derm56.yaml").read_text())
    private |= {
        "study": "one_round",
        "title": "one_round",
        "sites": base["sites"],
        "rounds": {**quick, "total": 1, "deadline_seconds": 180},
    }
    (folder / "one_round.yaml").write_text(yaml.safe_dump(private, sort_keys=False))


#: Strange enough to be found anywhere, and harmless to a real site's records.
ODD_TEXT = "ZQXCANARYDRUG"
ODD_NUMBER = "117.31415926"
ODD_CELL = "ZQXCANARYCELL"
CANARY_SITES = ("705", "713")


def plant(sites: Path) -> None:
    """Site 705: an odd drug and an odd but valid pulse. Site 713: an odd cell where a number should be."""
    drugs = sites / "705" / "cm.csv"
    _replace_cell(drugs, "CMTRT", ODD_TEXT)
    _replace_cell(sites / "705" / "advs.csv", "AVAL", ODD_NUMBER, where=("PARAMCD", "PULSE"))
    _replace_cell(sites / "713" / "adsl.csv", "AGE", ODD_CELL)


def _replace_cell(path: Path, column: str, text: str, where: tuple[str, str] | None = None) -> None:
    header, *rows = path.read_text().splitlines()
    names = header.split(",")
    for i, row in enumerate(rows):
        cells = row.split(",")
        if '"' not in row and (where is None or cells[names.index(where[0])] == where[1]):
            cells[names.index(column)] = text
            rows[i] = ",".join(cells)
            path.write_text("\n".join([header, *rows]) + "\n")
            return
    raise AssertionError(f"no row to plant in {path}")


@pytest.fixture(scope="session")
def canaries(federation: Federation) -> list[bytes]:
    """What must never leave sites 705 and 713: the planted values, and the ids of all their patients."""
    ids: set[str] = set()
    for site in CANARY_SITES:
        rows = (federation.project / "data" / "sites" / site / "adsl.csv").read_text().splitlines()[1:]
        ids |= {row.split(",")[0] for row in rows}
    return [text.encode() for text in (ODD_TEXT, ODD_NUMBER, ODD_CELL, *sorted(ids))]
