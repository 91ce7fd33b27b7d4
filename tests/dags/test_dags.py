"""Every DAG is held to tags, owner, docs, retries and no import error."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import get_parsing_context

from dags.wiring import RETRY_POLICY, sites_to_wire
from tasks.errors import BudgetExhausted, SiteStepFailed, StoreUnavailable, ValidationFailed
from tasks.settings import PROJECT

STUDIES = ("xanomeline_derm56", "xanomeline_nocomp24")
MASKED, PLAIN = (f"federated_round.{study}" for study in STUDIES)
#: Tasks of each DAG; a masked round has two more at the hub and one more at each of 13 sites.
NUM_TASKS = {"site_data_validation": 13, "privacy_audit": len(STUDIES), PLAIN: 57, MASKED: 57 + 2 + 13}
DAG_IDS = set(NUM_TASKS)


@pytest.fixture(scope="module")
def bag() -> DagBag:
    return DagBag(str(PROJECT / "dags"))


def test_every_dag_is_imported_without_an_error(bag: DagBag) -> None:
    assert bag.import_errors == {}
    assert set(bag.dags) == DAG_IDS


@pytest.mark.parametrize("dag_id", sorted(DAG_IDS))
def test_every_dag_has_docs_tags_owner_and_one_run_at_once(bag: DagBag, dag_id: str) -> None:
    dag = bag.dags[dag_id]
    assert "**Does not**" in dag.doc_md
    assert dag.tags
    assert dag.description
    assert dag.max_active_runs == 1
    assert not dag.catchup


@pytest.mark.parametrize("dag_id", sorted(DAG_IDS))
def test_every_task_has_docs_owner_retries_and_the_policy(bag: DagBag, dag_id: str) -> None:
    tasks = bag.dags[dag_id].tasks
    assert len(tasks) == NUM_TASKS[dag_id]
    for task in tasks:
        assert task.doc_md, task.task_id
        assert task.owner.startswith(("hub", "site ")), task.task_id
        assert task.retries >= (1 if dag_id == "privacy_audit" else 3), task.task_id
        assert task.retry_policy is RETRY_POLICY, task.task_id
        assert not task.do_xcom_push or task.task_id in ("open_round", "all_sites_in", "next_round"), task.task_id


def test_a_sites_tasks_go_to_its_own_queue(bag: DagBag) -> None:
    for dag_id, tasks_of_a_site in ((MASKED, 5), (PLAIN, 4)):
        at_sites = [t for t in bag.dags[dag_id].tasks if "site_" in t.task_id]
        assert len(at_sites) == 13 * tasks_of_a_site
        for task in at_sites:
            assert f"site_{task.queue.removeprefix('site-')}" in task.task_id.split(".")


def test_a_masked_round_goes_in_phases(bag: DagBag) -> None:
    """Nobody masks before the roster is fixed, and nobody helps to open a sum before the hub has said whose."""
    tasks = bag.dags[MASKED].task_dict
    groups = [name.removesuffix(".unmask") for name in tasks if name.endswith(".unmask")]
    assert len(groups) == 13
    assert tasks["freeze_roster"].upstream_task_ids == {f"{group}.train_local" for group in groups}
    assert tasks["select_updates"].upstream_task_ids == {f"{group}.privatize_and_upload" for group in groups}
    assert tasks["aggregate"].upstream_task_ids == {f"{group}.unmask" for group in groups}
    for group in groups:
        assert tasks[f"{group}.privatize_and_upload"].upstream_task_ids == {f"{group}.train_local", "freeze_roster"}
        assert tasks[f"{group}.unmask"].upstream_task_ids == {f"{group}.privatize_and_upload", "select_updates"}
    for name in ("freeze_roster", "select_updates", "aggregate"):
        assert tasks[name].trigger_rule == "one_success", "a lost site does not stop the round"


def test_a_plain_round_has_no_masks(bag: DagBag) -> None:
    tasks = bag.dags[PLAIN].task_dict
    assert not {"freeze_roster", "select_updates"} & set(tasks)
    assert not [name for name in tasks if name.endswith(".unmask")]
    uploads = {name for name in tasks if name.endswith(".privatize_and_upload")}
    assert len(uploads) == 13
    assert tasks["aggregate"].upstream_task_ids == uploads


def test_edge_workers_get_the_tasks_where_a_deployment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from dags.wiring import at_site

    assert "executor" not in at_site("701")
    monkeypatch.setenv("PHARMAFED_SITE_EXECUTOR", "EdgeExecutor")
    assert at_site("701")["executor"] == "EdgeExecutor"


def test_nothing_large_or_private_goes_through_xcom(bag: DagBag) -> None:
    """Only the round's number does."""
    for study in STUDIES:
        pushing = [t.task_id for t in bag.dags[f"federated_round.{study}"].tasks if t.do_xcom_push]
        assert pushing == ["open_round"]


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (StoreUnavailable("away"), "retry"),
        (ValidationFailed("bad"), "fail"),
        (BudgetExhausted("spent"), "fail"),
        (SiteStepFailed("broken"), "fail"),
        (ValueError("unknown"), "fail"),
    ],
)
def test_only_a_lost_connection_is_retried(error: Exception, action: str) -> None:
    assert RETRY_POLICY.evaluate(error, 1, 3).action.value == action


def test_a_tasks_process_builds_its_own_site_only() -> None:
    sites = ["701", "703", "pool"]
    assert sites_to_wire(sites, None) == sites
    assert sites_to_wire(sites, "site_703.train_local") == ["703"]
    assert sites_to_wire(sites, "validation.site_pool") == ["pool"]
    assert sites_to_wire(sites, "close_round") == ["701"]
    assert get_parsing_context().task_id is None


@pytest.mark.parametrize("name", ["federated_round.py", "privacy_audit.py", "site_data_validation.py"])
def test_a_dag_file_imports_nothing_heavy(name: str) -> None:
    """At the top of a DAG file: no torch, pandas, boto3 or Great Expectations, which every parse would pay for."""
    tree = ast.parse((PROJECT / "dags" / name).read_text())
    top = {a.name.split(".")[0] for n in tree.body if isinstance(n, ast.Import) for a in n.names}
    top |= {(n.module or "").split(".")[0] for n in tree.body if isinstance(n, ast.ImportFrom)}
    assert top <= {"__future__", "airflow", "dags", "tasks"}
    code = f"import sys; sys.path.insert(0, {str(PROJECT)!r}); import dags.{name[:-3]}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT)
    heavy = {"torch", "pandas", "boto3", "great_expectations", "matplotlib"}
    assert not heavy & set(done.stdout.split())


def test_the_catalogue_is_up_to_date(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dags.catalogue", "--check"]
    done = subprocess.run(command, cwd=PROJECT, env={**os.environ, "AIRFLOW_HOME": str(tmp_path)}, capture_output=True)
    assert done.returncode == 0, done.stderr[-500:]
