"""The pipeline's stages say exactly what they depend on: neither a stale result nor a needless run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.simulation.experiments import plan
from tasks.store.settings import PROJECT
from tasks.study.file import load_study
from tests.house import ROOMS, House

STAGES: dict[str, Any] = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]
HOUSE = House(PROJECT)
_CHECK = ("tasks.rounds.site.validation", "tasks.data.pin")
_SIMULATION = ("tasks.simulation.runs", "tasks.simulation.summary", "tasks.models")
_EXPERIMENTS = ("tasks.simulation.experiments.run", "tasks.simulation.experiments.files", "tasks.models")
_FINDINGS = ("findings", "gallery", "metrics", "files")
#: What computes each stage, below its command line.
ENTRIES = {
    "validate": _CHECK,
    "simulate": _SIMULATION,
    "baselines": _SIMULATION,
    "validate_experiments": _CHECK,
    "cohort": _EXPERIMENTS[:2],
    "experiments": _EXPERIMENTS,
    "exam": ("tasks.exam.comparing.archive", "tasks.exam.bank.items"),
    "report": tuple(f"tasks.simulation.experiments.{name}" for name in _FINDINGS),
}
#: Command lines that decide what a stage writes.
COMMANDS = {"tasks/deploy/commands/data.py", "tasks/deploy/commands/simulate.py"}
#: They name things, read and write files, refuse, or say what went wrong: no figure changes with them.
PLUMBING = ("tasks/errors.py", "tasks/foreign/", "tasks/store/")
#: In the same folders, what figures do come from.
FIGURES = ("tasks/store/kernels.py", "tasks/store/plans.py", "tasks/store/records/", "tasks/store/weights.py")
_NO_HUB = ("tasks/rounds/site/global_models.py", "tasks/rounds/site/plans.py", "tasks/learning/", "tasks/privacy/")
#: Rooms and modules that a stage imports and does not run, or of which no figure of its depends on what it runs.
NOT_RUN = {
    "validate": (*_NO_HUB, *FIGURES[1:]),
    "validate_experiments": (*_NO_HUB, *FIGURES[1:]),
    "simulate": ("tasks/data/checks/",),
    "baselines": ("tasks/data/checks/",),
    "cohort": (
        "tasks/data/checks/",
        "tasks/learning/",
        "tasks/privacy/",
        "tasks/rounds/",
        "tasks/simulation/",
        *FIGURES[1:],
    ),
    "experiments": ("tasks/data/checks/", "tasks/rounds/pooled.py", "tasks/rounds/site/"),
    "exam": ("tasks/exam/comparing/comparison_records.py", "tasks/study/", "tasks/store/"),
    "report": tuple(f"tasks/{room}/" for room in ROOMS if room != "report"),
}


def dependencies(stage: str) -> list[str]:
    content = STAGES[stage]
    return list(content.get("do", content)["deps"])


def modules_of(stage: str) -> set[str]:
    """The modules that its lines name, one by one or by their folder."""
    code = [line for line in dependencies(stage) if line.startswith("tasks/")]
    return {path for path in map(HOUSE.place, HOUSE.files) if path.startswith(tuple(code))}


@pytest.mark.parametrize("stage", ENTRIES)
def test_a_stage_depends_on_nothing_that_it_does_not_need(stage: str) -> None:
    code = {line for line in dependencies(stage) if line.startswith("tasks/")} - COMMANDS
    needed = HOUSE.needed_by(*ENTRIES[stage])
    assert code
    assert {line for line in code if not any(path.startswith(line) for path in needed)} == set()
    assert {line for line in code if not (PROJECT / line).exists()} == set()


@pytest.mark.parametrize("stage", ENTRIES)
def test_a_stage_depends_on_every_module_that_it_runs(stage: str) -> None:
    run = {path for path in HOUSE.needed_by(*ENTRIES[stage]) if not path.startswith(NOT_RUN[stage])}
    figures = {path for path in run if not path.startswith(PLUMBING) or path.startswith(FIGURES)}
    assert figures - modules_of(stage) == set()


def test_a_module_is_no_dependency_of_a_stage_that_never_imports_it() -> None:
    """But for those of a room that a stage depends on as a whole: how many is told here, so that it stays few."""
    idle = {stage: modules_of(stage) - HOUSE.needed_by(*ENTRIES[stage]) - COMMANDS for stage in ENTRIES}
    found = {stage: {path for path in paths if not path.endswith("__init__.py")} for stage, paths in idle.items()}
    in_a_simulation = [
        "tasks/learning/strategies/state.py",
        "tasks/store/records/site.py",
        "tasks/study/file.py",
        "tasks/study/round_terms.py",
    ]
    assert {stage: sorted(paths) for stage, paths in found.items() if paths} == {
        "simulate": in_a_simulation,
        "baselines": in_a_simulation,
        "report": ["tasks/simulation/experiments/robustness.py", "tasks/simulation/experiments/run.py"],
    }


def test_what_is_for_any_study_depends_on_all_tables() -> None:
    for stage in ("validate", "simulate", "baselines"):
        assert data_of(stage) == {"data/sites", "expectations"}, stage


def test_the_experiments_depend_on_their_own_study_s_tables_and_no_other_s() -> None:
    study = load_study(PROJECT / "studies" / f"{plan.STUDY}.yaml")
    sites = {f"data/sites/{site}" for site in study.sites}
    for stage in ("cohort", "experiments"):
        assert data_of(stage) == sites | {f"expectations/{table}.json" for table in study.data.tables}, stage
    assert data_of("validate_experiments") == sites | {"expectations"}, "a waiver may name any suite"


def test_nothing_is_computed_from_tables_that_were_not_checked() -> None:
    checks = {"results/validation.json", "results/validation_experiments.json"}
    reading = {stage for stage in STAGES if any(one.startswith("data/sites") for one in dependencies(stage))}
    found = {stage: checks & set(dependencies(stage)) for stage in reading - {"validate", "validate_experiments"}}
    assert found == {
        "simulate": {"results/validation.json"},
        "baselines": {"results/validation.json"},
        "cohort": {"results/validation_experiments.json"},
        "experiments": {"results/validation_experiments.json"},
    }
    assert STAGES["validate_experiments"]["cmd"].split()[3] == plan.STUDY


def data_of(stage: str) -> set[str]:
    """What a stage reads of tables and suites."""
    return {one for one in dependencies(stage) if one.startswith(("data/", "expectations"))}


def test_every_stage_is_held_to_it() -> None:
    assert set(STAGES) == set(ENTRIES)


# a stage that refuses


def outputs(stage: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    listed = [*stage.get("outs", []), *stage.get("metrics", [])]
    return [pair for entry in listed if isinstance(entry, dict) for pair in entry.items()]


def test_what_git_keeps_outlives_a_stage_that_refuses() -> None:
    kept = {path: how for stage in STAGES.values() for path, how in outputs(stage.get("do", stage)) if "cache" in how}
    assert len(kept) == 14
    assert all(how == {"cache": False, "persist": True} for how in kept.values())


@pytest.fixture(scope="module")
def cloned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stage of the report needs of this project, in a git and DVC repository of its own; read only."""
    tmp_path, stage = tmp_path_factory.mktemp("cloned"), STAGES["report"]
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"report": stage}}))
    for path in [*stage["deps"], *(path for path, _ in outputs(stage))]:
        source, target = PROJECT / path, tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    for command in (["git", "init", "-q"], ["git", "add", "."]):
        subprocess.run(command, cwd=tmp_path, check=True)
    repro(tmp_path, "init", "-q")
    for path in (tmp_path / "results/experiments").glob("*.json"):
        path.unlink()
    return tmp_path


@pytest.fixture
def clone(cloned: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(cloned, tmp_path, dirs_exist_ok=True))


def repro(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    own = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{own}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(PROJECT)}
    return subprocess.run([own / "dvc", *arguments], cwd=folder, env=environment, capture_output=True, timeout=300)


def missing(folder: Path) -> list[str]:
    """Files that git knows and that are gone."""
    told = subprocess.run(["git", "ls-files", "-d"], cwd=folder, check=True, capture_output=True, text=True)
    return [path for path in told.stdout.splitlines() if not path.startswith("results/experiments/")]


def test_a_refused_report_leaves_the_page_and_its_figures(clone: Path) -> None:
    tried = repro(clone, "repro", "-s", "report")
    assert tried.returncode != 0
    assert b"has no numbers of" in tried.stderr + tried.stdout
    assert missing(clone) == []


def test_without_persist_they_would_be_gone(clone: Path) -> None:
    text = (clone / "dvc.yaml").read_text()
    (clone / "dvc.yaml").write_text(text.replace("persist: true", "persist: false"))
    assert repro(clone, "repro", "-s", "report").returncode != 0
    assert len(missing(clone)) == 22
