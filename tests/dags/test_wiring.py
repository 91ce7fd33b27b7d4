"""What the DAGs do at their edges: a broken study file, a conf that nobody takes, a late start, a task that dies."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk.exceptions import AirflowSkipException

from dags import wiring
from dags.federated_round import NextRound
from tasks.errors import ConfigError, RoundRefused, SiteStepFailed, StoreUnavailable
from tasks.report import notices as notify
from tasks.rounds.site import running
from tasks.rounds.site.context import SiteContext
from tasks.store.settings import PROJECT
from tests.conftest import SHIPPED, copy_shipped

DUE = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
Context = Callable[..., None]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy_shipped(tmp_path / "project")
    monkeypatch.setenv("PHARMAFED_PROJECT", str(tmp_path / "project"))
    return tmp_path / "project"


@pytest.fixture
def in_run(monkeypatch: pytest.MonkeyPatch) -> Context:
    """Puts the caller into a task of a run of this conf and these facts."""

    def enter(conf: dict[str, Any] | None = None, **facts: Any) -> None:
        run = {"conf": conf, "run_type": "manual", "run_after": DUE, "start_date": DUE, "clear_number": 0}
        dag = SimpleNamespace(dag_id="federated_round.x", params={"rounds": 1, "min_sites": None, "note": None})
        context = {"dag_run": SimpleNamespace(**{**run, **facts}), "dag": dag, "params": dag.params}
        monkeypatch.setattr(wiring, "get_current_context", lambda: context)

    return enter


# a study file that cannot be read


def test_a_broken_study_file_leaves_every_other_dag(project: Path) -> None:
    """The control is a0aaa6d: no study had a DAG, and `site_data_validation` was gone too."""
    broken = project / "studies" / "broken.yaml"
    broken.write_text("study: broken\nrounds: {total: -1}\n")
    bag = DagBag(str(PROJECT / "dags"))
    assert {f"federated_round.{study}" for study in SHIPPED} < set(bag.dags)
    assert {"site_data_validation", "privacy_audit", "llm_exam"} < set(bag.dags)
    ((where, error),) = bag.import_errors.items()
    assert where.endswith("study_files.py")
    assert f"{broken}:2: rounds.total" in error
    assert "broken" not in bag.dags["privacy_audit"].params.get_param("study").schema["enum"]


@pytest.mark.parametrize("text", ["", "{", "study: other\n", "\x00", "study: !!python/object:os.system x\n"])
def test_whatever_a_study_file_holds_the_others_stay(project: Path, text: str) -> None:
    (project / "studies" / "broken.yaml").write_text(text)
    assert set(wiring.studies()) == set(SHIPPED)


def test_somebody_is_told_of_an_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PROJECT / "dags" / "plugins"))
    import import_errors

    told: list[notify.Notice] = []
    monkeypatch.setattr(notify, "notify", told.append)
    hook = import_errors.ImportErrors().on_new_dag_import_error
    ours = "Traceback ...\ntasks.errors.ConfigError: /p/studies/a.yaml:2: rounds.total: too small\n"
    hook(filename="/x/dags/study_files.py", stacktrace=ours)
    hook(filename="/x/dags/other.py", stacktrace="Traceback ...\nValueError: 63 years old\n")
    assert [notice.text for notice in told] == [
        "/p/studies/a.yaml:2: rounds.total: too small",
        "it cannot be imported: see the import errors in Airflow's web UI",
    ]
    sys.modules.pop("import_errors")


# a conf with a key that nobody takes


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"round": 3}, "takes no parameter round; did you mean rounds?"),
        ({"min_site": 4, "rounds": 2}, "takes no parameter min_site; did you mean min_sites?"),
        ({"epsilon": 9}, "takes no parameter epsilon; there are: min_sites, note, rounds"),
    ],
)
def test_a_conf_that_would_be_passed_over_is_refused(in_run: Context, conf: dict[str, Any], words: str) -> None:
    in_run(conf)
    with pytest.raises(ConfigError, match=words.replace("?", r"\?")):
        wiring.asked()


@pytest.mark.parametrize("conf", [None, {}, {"rounds": 3}, {"rounds": 3, "series": "cli", "note": "x", "min_sites": 3}])
def test_a_conf_of_parameters_is_taken(in_run: Context, conf: dict[str, Any] | None) -> None:
    in_run(conf)
    assert wiring.asked().keys() == {"rounds", "min_sites", "note"}


# a late start


def test_a_night_that_was_missed_is_not_caught_up_on(in_run: Context) -> None:
    week = DUE + timedelta(days=7, hours=9)
    in_run(run_type="scheduled", start_date=week)
    with pytest.raises(AirflowSkipException, match="due at 2026-11-24 02:00 UTC and begins 177 hours late"):
        wiring.skip_if_late()
    for facts in (
        {"run_type": "scheduled", "start_date": DUE + timedelta(minutes=10)},
        {"run_type": "manual", "start_date": week},
        {"run_type": "operator_triggered", "start_date": week},
        {"run_type": "scheduled", "start_date": week, "clear_number": 1},  # somebody wants it now
    ):
        in_run(**facts)
        wiring.skip_if_late()


# the next run of a series


def test_a_series_goes_on_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run's name follows from the series: cleared, the task finds it there and starts no other."""
    started = []
    monkeypatch.setattr(TriggerDagRunOperator, "execute", lambda self, context: started.append(self.trigger_run_id))
    for run_id, conf, rounds in (
        ("manual__1", {"rounds": 3}, 3),
        ("manual__1", {"rounds": 3}, 3),
        ("next__manual__1__2_to_go", {"rounds": 2, "series": "manual__1"}, 2),
        ("m" * 250, {"rounds": 3}, 3),
    ):
        task = NextRound(task_id="next_round", trigger_dag_id="x", skip_when_already_exists=True)
        task.execute({"params": {"rounds": rounds}, "dag_run": SimpleNamespace(conf=conf), "run_id": run_id})
    assert started[:3] == ["next__manual__1__2_to_go", "next__manual__1__2_to_go", "next__manual__1__1_to_go"]
    assert len(started[3]) <= 250
    with pytest.raises(AirflowSkipException):
        task.execute({"params": {"rounds": 1}, "dag_run": SimpleNamespace(conf={}), "run_id": "manual__1"})


def test_a_task_without_a_round_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """`open_round` was marked as success by hand."""
    monkeypatch.setattr(wiring, "opened_round", lambda: None)
    with pytest.raises(RoundRefused, match="no round was opened in this run"):
        wiring.the_round()


# a task that has failed for good


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StoreUnavailable("away"), "StoreUnavailable"),
        (RuntimeError("701-1015 is 63 years old"), "RuntimeError"),
        (None, "its worker was killed"),
        (SiteStepFailed("the step has told the hub itself"), None),
    ],
)
def test_the_hub_is_told_of_a_task_that_fails_outside_its_step(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, reason: str | None
) -> None:
    told: list[tuple[Any, ...]] = []
    monkeypatch.setattr(running, "refuse", lambda *arguments: told.append(arguments))
    monkeypatch.setattr(SiteContext, "load", lambda study, site, run_id: (study, site, run_id))
    ti = SimpleNamespace(task_id="site_701.train_local", run_id="night", xcom_pull=lambda task_ids: 3)
    wiring.tell_hub({"exception": error, "ti": ti, "task": SimpleNamespace(op_args=("derm", "701"))})
    assert told == ([(("derm", "701", "night"), 3, "train_local", reason)] if reason else [])
