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
from tests.pipeline_imports import needed_by

STAGES: dict[str, Any] = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]
#: What computes each stage, below its command line.
ENTRIES = {
    "validate": ("tasks.deploy.commands.data",),
    "simulate": ("tasks.deploy.commands.simulate",),
    "baselines": ("tasks.deploy.commands.simulate",),
    "validate_experiments": ("tasks.deploy.commands.data",),
    "cohort": ("tasks.simulation.experiments.run", "tasks.simulation.experiments.files"),
    "experiments": ("tasks.simulation.experiments.run", "tasks.simulation.experiments.files"),
    "exam": ("tasks.exam.comparing.archive", "tasks.exam.bank.items"),
    "report": (
        "tasks.simulation.experiments.findings",
        "tasks.simulation.experiments.gallery",
        "tasks.simulation.experiments.metrics",
        "tasks.simulation.experiments.files",
    ),
}
#: They name things, read and write files, or say what went wrong: no figure changes with them.
PLUMBING = {f"tasks/{name}.py" for name in ("errors", "files", "layout", "progress", "settings", "storage")}
#: They refuse what is too large, too deep or not allowed, and change nothing of what they let through.
PLUMBING |= {
    f"tasks/{name}.py"
    for name in (
        "bounds",
        "foreign_files",
        "inside",
        "json_file",
        "model_policy",
        "record_size",
        "spelling",
        "yaml_file",
    )
}
PLUMBING |= {f"tasks/data/checks/{name}.py" for name in ("library", "suite_faults", "suite_file", "value_faults")}
#: Modules that a stage imports and does not run, or of which it runs nothing that a figure depends on.
_VALIDATION = {f"tasks/data/checks/{name}.py" for name in ("engine", "parameters", "runner", "waivers")}
#: What a suite's expectations are tried on before its columns are believed.
_CHECKING_SUITES = {f"tasks/data/checks/{name}.py" for name in ("engine", "parameters")}
#: What a site follows of its hub in a round, and what it takes for it: where no hub opens rounds, nothing of it runs.
_ROUNDS = {f"tasks/{name}.py" for name in ("clock", "enrolment", "hub_signature", "round_terms")}
_ROUNDS |= {f"tasks/rounds/site/{name}.py" for name in ("global_models", "plans")}
_AT_A_SITE = (
    {f"tasks/rounds/site/{name}.py" for name in ("context", "guard", "validation")} | {"tasks/data/pin.py"} | _ROUNDS
)
_RECORDS = {"tasks/store/records.py", "tasks/study/privacy.py", "tasks/store/weights.py"}
_PAGES = needed_by("tasks.report.pages", "tasks.study.sections", "tasks.store.records")
_PREPARING = needed_by("tasks.data.cdisc", "tasks.exam.bank.practice") - needed_by("tasks.rounds.site.validation")
_SIMULATION = needed_by("tasks.simulation.runs")
_NOT_IN_A_CHECK = _RECORDS | _PREPARING | {"tasks/data/patients.py"} | _ROUNDS
NOT_RUN = {
    "validate": _NOT_IN_A_CHECK,
    "validate_experiments": _NOT_IN_A_CHECK,
    "simulate": _CHECKING_SUITES,
    "baselines": _CHECKING_SUITES,
    "cohort": _VALIDATION
    | _AT_A_SITE
    | (_SIMULATION - needed_by("tasks.simulation.data"))
    | _RECORDS
    | {"tasks/simulation/experiments/paired.py", "tasks/simulation/reference.py"},
    "experiments": _VALIDATION | _AT_A_SITE,
    "exam": {f"tasks/{name}.py" for name in ("exam/report_store", "exam/comparison_records", "report/store")} | _PAGES,
    "report": needed_by("tasks.simulation.runs", "tasks.simulation.reference") - {"tasks/privacy/accounting.py"},
}


def dependencies(stage: str) -> list[str]:
    content = STAGES[stage]
    return list(content.get("do", content)["deps"])


@pytest.mark.parametrize("stage", ENTRIES)
def test_a_stage_depends_on_nothing_that_it_does_not_need(stage: str) -> None:
    code = {dependency for dependency in dependencies(stage) if dependency.startswith("tasks/")}
    assert code
    assert code - needed_by(*ENTRIES[stage]) == set()


@pytest.mark.parametrize("stage", ENTRIES)
def test_a_stage_depends_on_every_module_that_it_runs(stage: str) -> None:
    assert needed_by(*ENTRIES[stage]) - PLUMBING - NOT_RUN[stage] - set(dependencies(stage)) == set()


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
    for stage in STAGES.keys() - {"validate", "validate_experiments"}:
        if any(one.startswith("data/sites") for one in dependencies(stage)):
            any_study = "data/sites" in dependencies(stage)
            own = "results/validation.json" if any_study else "results/validation_experiments.json"
            assert checks & set(dependencies(stage)) == {own}, stage
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


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What the stage of the report needs of this project, in a git and DVC repository of its own."""
    stage = STAGES["report"]
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
