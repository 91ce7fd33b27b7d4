"""The examination's DAG on a real Airflow: what drifted is found and listed, what chance may bring is not called drift.

The tests run in the order of the file: each run is compared with the one before it.
"""

from __future__ import annotations

import re

import pytest

from tasks.exam.bank.records import ExamRun
from tasks.exam.comparing.comparison_records import RunComparison
from tasks.exam.scoring.score_records import Scores
from tests.e2e.conftest import Federation
from tests.e2e.examination import CHANCE, DRIFT, MODEL

pytestmark = pytest.mark.e2e
DAG = "llm_exam"


def sit(federation: Federation, run_id: str, **params: object) -> tuple[str, dict[str, str]]:
    """Trigger the DAG; state of the run, and of each of its tasks."""
    api = federation.deployment.api
    api.wait_for_dag(DAG)
    api.trigger(DAG, {"exam": federation.exam, "models": [MODEL], "languages": ["ja"], **params}, run_id)
    state = str(api.wait_for_run(DAG, run_id, 480)["state"])
    return state, {task["task_id"]: task["state"] for task in api.task_instances(DAG, run_id)}


def published(federation: Federation, model: str = MODEL) -> list[str]:
    """The runs in the object store, oldest first."""
    store = federation.deployment.store("hub")
    runs = [key for key in store.keys(f"exams/{federation.exam}/") if key.endswith("/run.json")]
    found = {key.removesuffix("run.json"): ExamRun.model_validate_json(store.get(key)) for key in runs}
    return [key for key, run in sorted(found.items()) if run.settings.model == model]


def test_a_first_examination_passes_and_is_compared_with_nothing(federation: Federation) -> None:
    state, tasks = sit(federation, "sat_first")
    assert state == "success", tasks
    store, (prefix,) = federation.deployment.store("hub"), published(federation)
    scores = Scores.model_validate_json(store.get(f"{prefix}scores.json"))
    listed = any(one.name == "contraindicated" and one.lines for one in scores.criteria)
    points = next(one for one in scores.criteria if one.name == "points")
    assert (scores.passed, points.passed) == (True, True), [one.note for one in scores.criteria]
    assert [one.passed for one in scores.criteria] == [True, True, True if listed else None]
    assert scores.overall.correct == scores.overall.entered
    assert len(scores.coverage.missing) == 0
    assert not store.exists(f"{prefix}comparison.json")
    assert "<html" in store.get(f"{prefix}report.html").decode()[:200].lower()


def test_a_drift_of_twenty_items_turns_the_run_red_and_is_listed(federation: Federation) -> None:
    state, tasks = sit(federation, "sat_drifted")
    assert state == "failed"
    assert {name: found for name, found in tasks.items() if found != "success"} == {"one_arm.check_drift": "failed"}
    log = federation.deployment.api.log(DAG, "sat_drifted", "one_arm.check_drift", map_index=0)
    assert f"{DRIFT} items lost and 0 gained" in log
    store, (*_, prefix) = federation.deployment.store("hub"), published(federation)
    comparison = RunComparison.model_validate_json(store.get(f"{prefix}comparison.json"))
    assert comparison.decision.verdict == "drift"
    assert sorted(flip.number for flip in comparison.lost) == federation.drifting
    report = store.get(f"{prefix}report.html").decode()
    assert "<strong>Drift: worse</strong>" in report
    flips = re.findall(r'<tr><td><a href="#item-(\d+)">.*?<span class="tag bad">lost</span>', report)
    assert [int(number) for number in flips] == federation.drifting


def test_a_change_of_five_items_is_no_drift(federation: Federation) -> None:
    state, tasks = sit(federation, "sat_steady")
    assert state == "success", tasks
    store, (*_, prefix) = federation.deployment.store("hub"), published(federation)
    comparison = RunComparison.model_validate_json(store.get(f"{prefix}comparison.json"))
    assert comparison.decision.verdict == "no drift"
    assert (len(comparison.lost), len(comparison.gained)) == (CHANCE, 0)


def test_the_bundled_model_sits_two_of_our_items(federation: Federation) -> None:
    """It needs no key and no network. Twenty items and more are for a deployment: it writes ten tokens a second."""
    state, tasks = sit(
        federation, "sat_bundled", exam="practice", models=["pharmafed/smollm2"], languages=["en"], limit=2
    )
    assert state == "success", tasks
    store = federation.deployment.store("hub")
    (key,) = [key for key in store.keys("exams/practice/pharmafed--smollm2/") if key.endswith("/scores.json")]
    scores = Scores.model_validate_json(store.get(key))
    assert scores.usage.responses == 2
    assert scores.usage.cost == 0


def test_an_unreachable_model_leaves_its_tasks_red_and_no_report(federation: Federation) -> None:
    state, tasks = sit(federation, "sat_refused", models=["openai-api/nobody/model"])
    assert state == "failed"
    assert tasks["one_arm.evaluate"] == "failed"
    assert "NOBODY_API_KEY" in federation.deployment.api.log(DAG, "sat_refused", "one_arm.evaluate", map_index=0)
    assert published(federation, "openai-api/nobody/model") == []
