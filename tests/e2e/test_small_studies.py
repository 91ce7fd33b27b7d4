"""Studies of few sites on a real Airflow: a killed worker, a slow site, own models, a spent budget, an audit, a draft.

Apart from `test_rounds`, so that the two run side by side.
"""

from __future__ import annotations

from datetime import datetime

import pytest

from tasks.learning.threads import one_thread
from tasks.privacy.noise.source import SeededNoise
from tasks.simulation.data import read_sites, split_sites
from tasks.simulation.rounds import simulate
from tasks.store import layout
from tasks.store.weights import to_bytes
from tests.e2e.conftest import UNSEEN, Federation

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module", autouse=True)
def slow_round(federation: Federation) -> None:
    """It waits for a slow site most of its time: beside the other tests."""
    federation.start("slow_site", run_id="slow")


def test_a_killed_worker_comes_back_and_the_round_is_complete(federation: Federation) -> None:
    assert federation.run("killed_once", run_id="killed") == "success"
    assert (federation.marks / "killed").exists()
    tries = [t["try_number"] for t in federation.deployment.api.task_instances("federated_round.killed_once", "killed")]
    assert sorted(tries)[-1] == 2
    assert federation.newest("killed_once").status == "complete"


def test_a_model_with_dropout_norm_frozen_layer_and_a_column_is_refused_in_one_sentence(federation: Federation) -> None:
    federation.start("own_model", run_id="right")  # meanwhile
    assert federation.run("wrong_model", run_id="wrong") == "failed"
    log = federation.deployment.api.log("federated_round.wrong_model", "wrong", "open_round")
    assert "model.path 'tests.own_models:EverythingWrong' gives (2, 1) for a batch of 2, and (2,) is needed" in log
    assert federation.hub("wrong_model").last_opened() == 0


def test_the_same_model_put_right_makes_the_bytes_of_the_simulation(federation: Federation) -> None:
    api, hub = federation.deployment.api, federation.hub("own_model")
    assert api.wait_for_run("federated_round.own_model", "right", 480)["state"] == "success"
    assert federation.newest("own_model").status == "complete"
    patients = split_sites(read_sites(hub.study, federation.project), hub.study.evaluation)
    with one_thread():
        (made,) = simulate(hub.study, patients, 1, noise=SeededNoise(bytes(32)))
    assert not {name for name in made.weights if name.startswith("first.")}, "frozen"
    assert hub.store.get(layout.model("own_model", 1)) == to_bytes(made.weights)


def test_a_study_that_was_drafted_from_tables_runs_without_a_line_of_code(federation: Federation) -> None:
    printed = federation.command("round", UNSEEN, "--rounds", "2")
    assert printed.count("6 of 6 contributed") == 2, "one round starts the next"
    assert "2 of 20" in printed
    metrics = federation.newest(UNSEEN)
    assert metrics.server_round == 2
    assert (metrics.status, len(metrics.sites), metrics.mechanism) == ("complete", 6, "distributed_dp")


def test_a_spent_budget_refuses_the_next_night_and_says_so(federation: Federation) -> None:
    assert federation.run("one_round", run_id="spends") == "success"
    assert federation.run("one_round", run_id="refused") == "failed"
    assert "BudgetExhausted" in federation.deployment.api.log("federated_round.one_round", "refused", "open_round")
    assert len(federation.hub("one_round").closed_rounds()) == 1


def test_the_audit_of_one_study_runs_and_the_others_are_skipped(federation: Federation) -> None:
    """On a study of one round, which takes seconds; `tests/privacy/audit` has what the audit finds."""
    api = federation.deployment.api
    api.wait_for_dag("privacy_audit")
    api.trigger("privacy_audit", {"study": "one_round", "seed": 1}, "audit")
    assert api.wait_for_run("privacy_audit", "audit", 480)["state"] == "success"
    states = {task["task_id"]: task["state"] for task in api.task_instances("privacy_audit", "audit")}
    assert states.pop("audit_one_round") == "success"
    assert set(states.values()) == {"skipped"}
    names = [key.rsplit("/", 1)[1] for key in federation.deployment.store("hub").keys("studies/one_round/audits/")]
    assert {"audit.html", "audit.json", "audit_roc.png"} <= set(names)


def test_a_slow_site_costs_the_deadline_once(federation: Federation) -> None:
    run = federation.deployment.api.wait_for_run("federated_round.slow_site", "slow", 480)
    assert run["state"] == "success"
    metrics = federation.newest("slow_site")
    assert metrics.message.startswith("3 of 4 contributed")
    assert 60 <= metrics.seconds < 2 * 60, metrics.seconds
    took = datetime.fromisoformat(run["end_date"]) - datetime.fromisoformat(run["start_date"])
    assert took.total_seconds() < 180
