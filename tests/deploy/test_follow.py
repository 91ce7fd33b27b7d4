"""Following rounds: an Airflow that answers from a script, behind the real client, and a real object store."""

import io
import json
import re
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from rich.console import Console

from tasks.deploy import airflow_api, follow, watch
from tasks.deploy.airflow_api import AirflowApi, AirflowApiError
from tasks.errors import ConfigError, RoundError, StoreUnavailable
from tasks.rounds.hub.context import HubContext
from tasks.store import layout
from tasks.store.records.report import RoundMetrics
from tasks.store.records.round import RunRecord
from tasks.store.settings import PROJECT
from tasks.study.file import load_study

BEAT = "2026-01-02T03:04:05+00:00"


class Airflow:
    """Enough of Airflow for one DAG. Each step of `plot` is taken before one request for the run's state."""

    def __init__(self, dag):
        self.dag = {"dag_id": dag, "is_paused": False, "is_stale": False}
        self.silent, self.down, self.status = set(), False, None
        self.runs, self.tasks, self.plot, self.asked, self.errors = {}, {}, [], [], []

    def queue(self, run_id, conf, state="queued"):
        self.runs[run_id] = {"dag_run_id": run_id, "state": state, "conf": conf}
        self.tasks[run_id] = [{"task_id": "close_round", "state": None, "try_number": 0}]

    def finish(self, run_id, state="success", *, task="success", tries=1):
        self.runs[run_id]["state"] = state
        self.tasks[run_id] = [{"task_id": "close_round", "state": task, "try_number": tries}]

    @property
    def newest(self):
        return list(self.runs)[-1]

    def __call__(self, request):
        path = request.url.path.removeprefix("/api/v2/")
        self.asked.append((request.method, path))
        if re.fullmatch(r"dags/[^/]+/dagRuns/[^/]+", path) and self.plot:
            self.plot.pop(0)()
        if self.down:
            raise httpx.ConnectError("refused")
        if self.status:
            return httpx.Response(self.status, json={"detail": "database is locked"})
        return self.answer(request.method, path, request)

    def answer(self, method, path, request):
        if path == "/auth/token":
            return httpx.Response(201, json={"access_token": "token"})
        if path == "monitor/health":
            parts = ("scheduler", "dag_processor", "triggerer")
            said = {
                p: {"status": "unhealthy" if p in self.silent else "healthy", f"latest_{p}_heartbeat": BEAT}
                for p in parts
            }
            return httpx.Response(200, json=said)
        if path == "importErrors":
            return httpx.Response(200, json={"import_errors": self.errors, "total_entries": len(self.errors)})
        dag = f"dags/{self.dag['dag_id']}" if self.dag else "no dag"
        if path == dag:
            return httpx.Response(200, json=self.dag)
        if path == f"{dag}/dagRuns" and method == "POST":
            body = json.loads(request.content)
            if body["dag_run_id"] in self.runs:
                return httpx.Response(409, json={"detail": "exists"})
            self.queue(body["dag_run_id"], body["conf"])
            return httpx.Response(200, json=self.runs[self.newest])
        if path == f"{dag}/dagRuns":
            return httpx.Response(200, json={"dag_runs": [*reversed(self.runs.values())]})
        for run_id, run in self.runs.items():
            if path == f"{dag}/dagRuns/{run_id}":
                return httpx.Response(200, json=run)
            if path == f"{dag}/dagRuns/{run_id}/taskInstances":
                found = self.tasks[run_id]
                return httpx.Response(200, json={"task_instances": found, "total_entries": len(found)})
        return httpx.Response(404, json={"detail": "not found"})


class Clock:
    """Time that passes only where somebody waits."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for module in (watch, follow, airflow_api):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def hub(object_store, study_name):
    study = load_study(PROJECT / "studies" / "xanomeline_derm56.yaml")
    return HubContext(study.model_copy(update={"study": study_name}), object_store.store("hub"))


@pytest.fixture
def world(clock, hub, tmp_path, monkeypatch):
    monkeypatch.setenv("PHARMAFED_HOME", str(tmp_path))
    return World(Airflow(follow.dag_id(hub.name)), hub, clock)


class World:
    def __init__(self, airflow, hub, clock):
        self.airflow, self.hub, self.clock = airflow, hub, clock
        self.screen = io.StringIO()
        self.api = AirflowApi("http://airflow", "admin", "secret")
        self.api._client = httpx.Client(base_url="http://airflow", transport=httpx.MockTransport(airflow))

    def follow(self, rounds=1):
        console = Console(file=self.screen, width=500)
        return follow.run_rounds(self.api, self.hub, rounds, min_sites=None, note="", console=console)

    @property
    def said(self):
        return self.screen.getvalue()

    def open(self, number):
        """The run that is newest opens the round: record, and a plan of another study under this one's number."""
        run_id = self.airflow.newest
        record = RunRecord(study=self.hub.name, run_id=run_id, server_round=number)
        self.hub.store.create_record(layout.run(self.hub.name, run_id), record)
        self.hub.store.create(layout.plan(self.hub.name, number), b"{}")

    def close(self, number=1, message="13 of 13"):
        """The round is opened and closed, and its run ends well."""
        self.open(number)
        now = datetime.now(UTC)
        metrics = RoundMetrics(
            study=self.hub.name, server_round=number, run_id=self.airflow.newest, status="complete", message=message,
            mechanism="none", opened_at=now - timedelta(seconds=9), closed_at=now, seconds=9, total_rounds=20, sites=(),
            num_contributors=13, num_bytes=1, epsilon=None, epsilon_budget=None, delta=None, model_sha256=None,
        )  # fmt: skip
        self.hub.store.create_record(layout.round_metrics(self.hub.name, number), metrics)
        self.airflow.finish(self.airflow.newest)

    def set(self, **changes):
        """A step of the plot that changes Airflow."""
        return lambda: [setattr(self.airflow, name, value) for name, value in changes.items()]

    def wait(self, polls):
        """Steps of the plot in which nothing changes."""
        return [lambda: None] * polls

    @property
    def queued(self):
        return [path for method, path in self.airflow.asked if method == "POST" and path.endswith("dagRuns")]


def test_a_round_is_followed_to_its_record(world):
    world.airflow.plot = [*world.wait(3), world.close]
    [closed] = world.follow()
    assert (closed.server_round, closed.status) == (1, "complete")
    assert "round 1: 13 of 13" in world.said
    assert "wait" not in world.said
    assert len(world.queued) == 1


def test_an_api_server_that_restarts_is_named_waited_for_and_followed_again(world):
    airflow = world.airflow
    airflow.plot = [
        *world.wait(2),
        world.set(down=True),
        *world.wait(40),
        world.set(down=False),
        *world.wait(5),
        world.close,
    ]
    assert len(world.follow()) == 1
    assert world.said.count("the api-server does not answer") == 1
    assert (
        world.said.index("does not answer") < world.said.index("everything runs again") < world.said.index("round 1:")
    )
    assert world.clock.now >= 40


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_an_airflow_that_is_busy_or_broken_is_waited_for(world, status):
    world.airflow.plot = [world.set(status=status), *world.wait(20), world.set(status=None), world.close]
    assert len(world.follow()) == 1
    assert world.said.count("the api-server does not answer") == 1


def test_an_airflow_that_refuses_is_not_waited_for(world):
    world.airflow.plot = [world.set(status=403)]
    with pytest.raises(AirflowApiError, match="403"):
        world.follow()
    assert world.clock.now < 5


@pytest.mark.parametrize(("part", "name"), [("scheduler", "scheduler"), ("dag_processor", "dag processor")])
def test_a_part_that_does_not_run_is_named_with_its_last_sign_of_life(world, part, name):
    world.airflow.plot = [
        world.set(silent={part}),
        *world.wait(30),
        world.set(silent=set()),
        *world.wait(9),
        world.close,
    ]
    assert len(world.follow()) == 1
    assert world.said.count(f"the {name} does not run (its last sign of life: 03:04:05 UTC): `pharmafed status`") == 1
    assert world.said.count("everything runs again") == 1


def test_a_scheduler_that_is_gone_is_not_waited_for_for_ever(world):
    world.airflow.plot = [world.set(silent={"scheduler"})]
    with pytest.raises(RoundError) as caught:
        world.follow()
    assert watch.PATIENCE_S <= world.clock.now <= watch.PATIENCE_S + 60
    assert str(caught.value) == (
        "not followed any longer, since nothing has gone on for 10 minutes. The scheduler does not run (its last "
        "sign of life: 03:04:05 UTC): `pharmafed status` shows more, and a supervisor that runs starts it again by "
        "itself. What was queued goes on by itself after that"
    )


def test_an_api_server_that_is_gone_is_not_waited_for_for_ever(world):
    world.airflow.plot = [world.set(down=True)]
    with pytest.raises(RoundError, match="The api-server does not answer"):
        world.follow()
    assert watch.PATIENCE_S <= world.clock.now <= watch.PATIENCE_S + 60


def test_a_round_that_goes_on_in_spite_of_a_lost_part_is_followed(world):
    """The dag processor is not needed by a run that is under way: each change of its tasks counts."""
    ticks = 2 * int(watch.PATIENCE_S)

    def change():
        done = world.airflow.tasks[world.airflow.newest]
        done.append({"task_id": f"t{len(done)}", "state": "success", "try_number": 1})

    steps = [change if tick % 300 == 0 else (lambda: None) for tick in range(ticks)]
    world.airflow.plot = [world.set(silent={"dag_processor"}), *steps, world.close]
    assert len(world.follow()) == 1
    assert world.clock.now > watch.PATIENCE_S * 2 - 60


def test_a_paused_dag_queues_nothing_and_says_how_to_go_on(world):
    world.airflow.dag["is_paused"] = True
    with pytest.raises(ConfigError) as caught:
        world.follow()
    dag = follow.dag_id(world.hub.name)
    assert str(caught.value) == (
        f"nothing was queued. The DAG {dag} is paused, so Airflow starts nothing of it: "
        f"switch it on beside its name at http://airflow/dags/{dag}"
    )
    assert (world.queued, world.clock.now) == ([], 0)


def test_a_dag_that_is_paused_while_it_is_followed_is_told_and_taken_up_again(world):
    pause = lambda to: lambda: world.airflow.dag.update(is_paused=to)  # noqa: E731
    world.airflow.plot = [pause(True), *world.wait(30), pause(False), *world.wait(9), world.close]
    assert len(world.follow()) == 1
    assert world.said.count("is paused, so Airflow starts nothing of it: switch it on") == 1
    assert world.said.index("is paused") < world.said.index("everything runs again")


@pytest.mark.parametrize("gone", ["stale", "deleted"])
def test_a_dag_that_an_import_error_has_removed_is_told_with_its_file_and_nothing_is_queued(world, gone):
    world.airflow.errors = [
        {"filename": "federated_round.py", "stack_trace": "Traceback\nConfigError: derm.yaml:7: x\n"}
    ]
    if gone == "stale":
        world.airflow.dag["is_stale"] = True
    else:
        world.airflow.dag = None
    with pytest.raises(ConfigError, match=r"federated_round\.py: ConfigError: derm\.yaml:7"):
        world.follow()
    assert world.queued == []
    assert world.said.count("has no DAG") == 1
    assert watch.START_PATIENCE_S <= world.clock.now <= watch.START_PATIENCE_S + 5


def test_brackets_in_what_others_wrote_are_printed_as_they_are(world):
    """A run's name, an error's text, a round's message: `[/]` would end a colour that nobody began."""
    world.airflow.errors = [{"filename": "a[/b].py", "stack_trace": "KeyError: ['[/red]']\n"}]
    world.airflow.queue("my[/]run", {}, state="running")
    go = lambda to: lambda: world.airflow.dag.update(is_stale=to)  # noqa: E731
    close = lambda: world.close(message="13 of 13 [/yellow]")  # noqa: E731
    world.airflow.plot = [go(True), *world.wait(12), go(False), *world.wait(12), close]
    world.follow()
    for text in ("mend a[/b].py: KeyError: ['[/red]']", "queued: my[/]run of", "13 of 13 [/yellow] (9.0 s)"):
        assert text in world.said


def test_a_dag_that_has_not_been_read_yet_is_waited_for(world, monkeypatch):
    dag, world.airflow.dag = world.airflow.dag, None
    sleep = world.clock.sleep

    def read(seconds):
        sleep(seconds)
        if world.clock.now > 20:
            world.airflow.dag = dag

    monkeypatch.setattr(world.clock, "sleep", read)
    world.airflow.plot = [world.close]
    assert len(world.follow()) == 1


def test_a_dag_that_goes_while_it_is_followed_is_told(world):
    world.airflow.plot = [lambda: world.airflow.dag.update(is_stale=True)]
    with pytest.raises(RoundError, match=r"Airflow has no DAG .* any more: put its study file back, or mend it"):
        world.follow()
    assert world.said.count("any more") == 1


def test_nothing_is_queued_while_the_scheduler_does_not_run(world):
    world.airflow.silent = {"scheduler"}
    with pytest.raises(ConfigError, match=r"^nothing was queued\. The scheduler does not run"):
        world.follow()
    assert world.queued == []
    assert watch.START_PATIENCE_S <= world.clock.now <= watch.START_PATIENCE_S + 10


def test_a_service_that_comes_up_meanwhile_is_waited_for_before_anything_is_queued(world, monkeypatch):
    world.airflow.silent = {"scheduler"}
    sleep = world.clock.sleep

    def recover(seconds):
        sleep(seconds)
        if world.clock.now >= 30:
            world.airflow.silent = set()
            assert world.queued == [] or world.clock.now > 30

    monkeypatch.setattr(world.clock, "sleep", recover)
    world.airflow.plot = [world.close]
    assert len(world.follow()) == 1
    assert "everything runs again" in world.said


def test_a_queued_run_whose_answer_was_lost_is_not_queued_twice(world):
    answer, lost = world.airflow.answer, []

    def lose_first(method, path, request):
        given = answer(method, path, request)
        if method == "POST" and path.endswith("dagRuns") and not lost:
            lost.append(path)
            raise httpx.ReadTimeout("no answer")
        return given

    world.airflow.answer = lose_first
    world.airflow.plot = [world.close]
    assert len(world.follow()) == 1
    assert (len(world.queued), len(world.airflow.runs)) == (2, 1)


def test_a_deleted_run_is_told_at_once(world):
    world.airflow.plot = [*world.wait(3), world.airflow.runs.clear]
    with pytest.raises(
        RoundError, match=r"^run cli__\S+ was deleted .*\. It had opened no round, and nothing was paid$"
    ):
        world.follow()
    assert world.clock.now < 10


@pytest.mark.parametrize("state", ["success", "failed"])
@pytest.mark.parametrize("task", ["success", "skipped", "failed"])
def test_a_run_that_was_marked_by_hand_is_told_as_that(world, state, task):
    world.airflow.plot = [
        *world.wait(3),
        lambda: world.airflow.finish(world.airflow.newest, state, task=task, tries=0),
    ]
    with pytest.raises(
        RoundError, match=rf"was marked {state} by hand before it closed a round\. It had opened no round"
    ):
        world.follow()


def test_a_run_that_fails_by_itself_is_not_told_as_marked(world):
    world.airflow.plot = [lambda: world.airflow.finish(world.airflow.newest, "failed", task="upstream_failed", tries=0)]
    with pytest.raises(RoundError, match=r"ended failed before a round was closed: no task failed"):
        world.follow()


def test_a_deleted_run_whose_round_was_closed_says_so(world):
    def close_and_delete():
        world.close(4)
        world.airflow.runs.clear()

    world.airflow.plot = [close_and_delete]
    with pytest.raises(RoundError, match=r"was deleted while it was followed\. Its round 4 is closed: 13 of 13"):
        world.follow()


def test_a_series_goes_from_run_to_run(world):
    def close_and_go_on(number):
        def step():
            world.close(number)
            conf = world.airflow.runs[world.airflow.newest]["conf"]
            world.airflow.queue(f"next_{number}", conf)

        return step

    world.airflow.plot = [close_and_go_on(1), *world.wait(2), close_and_go_on(2), lambda: world.close(3)]
    assert [metrics.server_round for metrics in world.follow(rounds=3)] == [1, 2, 3]


def test_a_series_that_nothing_continues_ends_with_a_sentence(world):
    world.airflow.plot = [world.close]
    with pytest.raises(
        RoundError, match=r"cli__\S+ started no next round: see its task next_round at http://airflow/dags"
    ):
        world.follow(rounds=2)
    assert world.clock.now < 60


def test_a_run_that_waits_for_another_says_so_once(world):
    world.airflow.queue("scheduled__tonight", {}, state="running")
    world.airflow.plot = [*world.wait(20), world.close]
    world.follow()
    assert world.said.count("queued: scheduled__tonight of this study runs first") == 1


def test_a_run_that_begins_while_it_is_asked_for_does_not_wait_for_itself(world):
    answer = world.airflow.answer

    def begin(method, path, request):
        if method == "GET" and path.endswith("dagRuns") and world.airflow.runs:
            world.airflow.runs[world.airflow.newest]["state"] = "running"
        return answer(method, path, request)

    world.airflow.answer = begin
    world.airflow.plot = [*world.wait(2), world.close]
    world.follow()
    assert "runs first" not in world.said


def test_a_store_that_does_not_answer_is_waited_for(world, monkeypatch):
    closed_by, failures = HubContext.closed_by, iter([1] * 5)

    def unavailable(hub, run_id):
        if next(failures, None):
            raise StoreUnavailable("seaweedfs restarts")
        return closed_by(hub, run_id)

    monkeypatch.setattr(HubContext, "closed_by", unavailable)
    world.airflow.plot = [world.close]
    assert len(world.follow()) == 1
    assert world.said.count("the object store does not answer") == 1


def test_ctrl_c_says_what_goes_on_by_itself(world):
    def interrupt():
        raise KeyboardInterrupt

    world.airflow.plot = [*world.wait(3), interrupt]
    with pytest.raises(KeyboardInterrupt):
        world.follow(rounds=2)
    assert "Not followed any longer. The 2 rounds that are left go on by themselves: http://airflow/dags/" in world.said
    assert len(world.airflow.runs) == 1


def test_ctrl_c_before_anything_is_queued_promises_nothing(world, monkeypatch):
    world.airflow.silent = {"scheduler"}
    monkeypatch.setattr(world.clock, "sleep", lambda seconds: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        world.follow()
    assert "by itself:" not in world.said
    assert world.queued == []


def test_a_full_disk_is_named_beside_what_it_has_stopped(world, monkeypatch):
    monkeypatch.setattr(watch.disk, "is_full", lambda home: True)
    world.airflow.plot = [
        world.set(silent={"scheduler"}),
        *world.wait(9),
        world.set(silent=set()),
        *world.wait(9),
        world.close,
    ]
    world.follow()
    assert re.search(r"the disk is full: only .* are free under .*; free some space there", world.said)
