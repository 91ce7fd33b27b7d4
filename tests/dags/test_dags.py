"""Every DAG is held to tags, owner, docs, retries and no import error."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import get_parsing_context
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse
from jsonschema import Draft202012Validator

from dags.federated_round import AT_HUB, AT_SITE, build_dag
from dags.llm_exam import POOL
from dags.wiring import RETRY_POLICY, sites_to_wire, tell_of_drift, tell_of_failure
from tasks.errors import (
    BudgetExhausted,
    DataError,
    DriftFound,
    ModelRefused,
    ModelUnavailable,
    RunIncomplete,
    SiteStepFailed,
    StoreUnavailable,
    ValidationFailed,
)
from tasks.report import notices as notify
from tasks.store.settings import PROJECT
from tasks.study.channels import CHANNELS, CKKS, Channel
from tasks.study.file import load_study
from tests.conftest import SHIPPED, copy_shipped

MASKED, PLAIN = (f"federated_round.{study}" for study in SHIPPED)
#: Tasks of each DAG; a masked round has two more at the hub and one more at each of 13 sites.
NUM_TASKS = {"site_data_validation": 13, "privacy_audit": len(SHIPPED), "llm_exam": 3, PLAIN: 57, MASKED: 57 + 2 + 13}
DAG_IDS = set(NUM_TASKS)
#: Only numbers, verdicts, and names of models and languages go through XCom.
PUSHING = ("open_round", "next_round", "plan_arms")


@pytest.fixture(scope="module", autouse=True)
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The DAGs of the project's own studies, whichever others lie beside them."""
    project = tmp_path_factory.mktemp("shipped") / "project"
    copy_shipped(project)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHARMAFED_PROJECT", str(project))
        yield


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
        assert not task.do_xcom_push or task.task_id in PUSHING, task.task_id


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


def test_an_encrypted_round_has_no_roster_and_opens_a_sum() -> None:
    """Wired from its phases: no study that ships has this channel."""
    study = load_study(PROJECT / "studies" / "xanomeline_nocomp24.yaml").model_copy(update={"channel": CKKS})
    tasks = build_dag(study).task_dict
    groups = [name.removesuffix(".unmask") for name in tasks if name.endswith(".unmask")]
    assert len(groups) == len(study.sites) == 13
    assert "freeze_roster" not in tasks
    assert tasks["select_updates"].upstream_task_ids == {f"{group}.privatize_and_upload" for group in groups}
    assert tasks["aggregate"].upstream_task_ids == {f"{group}.unmask" for group in groups}
    for group in groups:
        assert tasks[f"{group}.train_local"].upstream_task_ids == {f"{group}.validate_data"}
        assert tasks[f"{group}.privatize_and_upload"].upstream_task_ids == {f"{group}.train_local"}
        assert tasks[f"{group}.unmask"].upstream_task_ids == {f"{group}.privatize_and_upload", "select_updates"}


@pytest.mark.parametrize("channel", CHANNELS.values(), ids=CHANNELS)
def test_a_task_of_every_phase_can_be_wired(channel: Channel) -> None:
    assert set(channel.site_steps) <= set(AT_SITE)
    assert {phase.hub for phase in channel.phases} <= {*AT_HUB, "aggregate"}
    assert all(task.function.__name__ == name for name, task in (AT_SITE | AT_HUB).items())


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
    for study in SHIPPED:
        pushing = [t.task_id for t in bag.dags[f"federated_round.{study}"].tasks if t.do_xcom_push]
        assert pushing == ["open_round"]


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (StoreUnavailable("away"), "retry"),
        (AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"message": "refused"})), "retry"),
        (ValidationFailed("bad"), "fail"),
        (BudgetExhausted("spent"), "fail"),
        (SiteStepFailed("broken"), "fail"),
        (ModelUnavailable("busy"), "retry"),
        (ModelRefused("wrong key"), "fail"),
        (RunIncomplete("broken"), "fail"),
        (DriftFound("worse"), "fail"),
        (DataError("edited"), "fail"),
        (ValueError("unknown"), "fail"),
    ],
)
def test_only_a_lost_connection_is_retried(error: Exception, action: str) -> None:
    assert RETRY_POLICY.evaluate(error, 1, 3).action.value == action


def test_a_busy_model_is_left_alone_for_minutes() -> None:
    decision = RETRY_POLICY.evaluate(ModelUnavailable("busy"), 1, 3)
    assert decision.retry_delay == timedelta(minutes=5)


def test_the_exam_is_a_process_for_each_arm_in_a_pool(bag: DagBag) -> None:
    """Nobody looks for drift in a run that is not evaluated, and one model's failure stops no other."""
    dag = bag.dags["llm_exam"]
    ask, look = dag.task_dict["one_arm.evaluate"], dag.task_dict["one_arm.check_drift"]
    assert ask.pool == POOL
    assert ask.get_closest_mapped_task_group() is look.get_closest_mapped_task_group() is not None
    assert (look.upstream_task_ids, look.trigger_rule) == ({"plan_arms", "one_arm.evaluate"}, "all_success")
    assert [outlet.name for outlet in ask.outlets] == ["llm_exam"]
    assert look.on_failure_callback == [tell_of_drift]


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("exam", ["practice", "107"], ["", "../x", 107, "a b"]),
        ("models", [["openai/gpt-4o", "pharmafed/smollm2"]], [[], ["gpt"], [".."], "openai/x", [1]]),
        ("languages", [["ja"], ["ja", "en"]], [[], ["fr"], "ja"]),
        ("epochs", [1, 5], [0, 101, 1.5, "1"]),
        ("limit", [None, 20], [0, -1, "20"]),
        ("temperature", [None, 0, 0.7, 1], [-0.1, "0", 3]),
        ("images", [None, True, False], ["", 1, "yes"]),
        ("prompt", ["", "v1", "short"], [None, "../v1", "a/b", 1]),
        ("max_tokens", [None, 1, 4096], [0, -1, 1.5, "20"]),
        (
            "baseline",
            ["", "openai--x/ja/20260101T000000Z"],
            [None, 1, "/etc/x", "../x/ja/r", "x/../r", "x/ja/..", "x/ja", "x/ja/r/more", "/x/ja/r"],
        ),
    ],
)
def test_the_exams_parameters_have_types(bag: DagBag, name: str, good: list[Any], bad: list[Any]) -> None:
    schema = bag.dags["llm_exam"].params.get_param(name).schema
    validator = Draft202012Validator(schema)
    assert all(validator.is_valid(value) for value in good)
    assert not any(validator.is_valid(value) for value in bad)


@pytest.mark.parametrize(
    ("error", "title"),
    [
        (DriftFound("openai/x on exam 107 is worse"), "pharmafed: drift in exam 107"),
        (DataError("run.json is missing"), "pharmafed: failure in llm_exam"),
        (ValueError("secret"), "pharmafed: failure in llm_exam"),
    ],
)
def test_an_alarm_of_drift_is_not_a_failure(error: Exception, title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[notify.Notice] = []
    monkeypatch.setattr(notify, "notify", told.append)
    ti = SimpleNamespace(dag_id="llm_exam", task_id="one_arm.check_drift", run_id="manual")
    tell_of_drift({"exception": error, "ti": ti, "params": {"exam": "107"}})
    assert [notice.title for notice in told] == [title]
    assert (str(error) in told[0].text) == isinstance(error, DriftFound | DataError)


def test_a_notice_quotes_no_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[notify.Notice] = []
    monkeypatch.setattr(notify, "notify", told.append)
    error = ModelRefused("openai/x failed with status 401: user@corp, key sk-ab***yz. Check the key")
    error.add_note("openai/x failed with status 401 (refused). Check the key")
    ti = SimpleNamespace(dag_id="llm_exam", task_id="one_arm.evaluate", run_id="manual")
    tell_of_failure({"exception": error, "ti": ti})
    assert told[0].text.endswith(": openai/x failed with status 401 (refused). Check the key")


def test_a_tasks_process_builds_its_own_site_only() -> None:
    sites = ["701", "703", "pool"]
    assert sites_to_wire(sites, None) == sites
    assert sites_to_wire(sites, "site_703.train_local") == ["703"]
    assert sites_to_wire(sites, "validation.site_pool") == ["pool"]
    assert sites_to_wire(sites, "close_round") == ["701"]
    assert get_parsing_context().task_id is None


@pytest.mark.parametrize(
    "name", ["federated_round.py", "llm_exam.py", "privacy_audit.py", "site_data_validation.py", "study_files.py"]
)
def test_a_dag_file_imports_nothing_heavy(name: str) -> None:
    """At the top of a DAG file: nothing like torch, boto3 or inspect-ai, which every parse would pay for."""
    tree = ast.parse((PROJECT / "dags" / name).read_text())
    top = {a.name.split(".")[0] for n in tree.body if isinstance(n, ast.Import) for a in n.names}
    top |= {(n.module or "").split(".")[0] for n in tree.body if isinstance(n, ast.ImportFrom)}
    assert top <= {"__future__", "typing", "airflow", "dags", "tasks"}
    code = f"import sys; sys.path.insert(0, {str(PROJECT)!r}); import dags.{name[:-3]}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT)
    heavy = {"torch", "pandas", "boto3", "great_expectations", "matplotlib", "inspect_ai", "openai", "transformers"}
    assert not heavy & set(done.stdout.split())


def test_the_catalogue_is_up_to_date(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dags.catalogue", "--check"]
    done = subprocess.run(command, cwd=PROJECT, env={**os.environ, "AIRFLOW_HOME": str(tmp_path)}, capture_output=True)
    assert done.returncode == 0, done.stderr[-500:]
