"""Triggering rounds through Airflow and following them: what `pharmafed round` shows while it waits."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from tasks.deploy.airflow_api import AirflowApi, AirflowApiError
from tasks.deploy.watch import POLL_SECONDS, Watch
from tasks.errors import ObjectMissing, RoundError
from tasks.learning.metrics import metrics_of
from tasks.report import words
from tasks.rounds.hub.context import HubContext
from tasks.store import layout
from tasks.store.records.report import RoundMetrics
from tasks.store.records.round import RunRecord

_NEXT_RUN_S = 30.0
STEPS = ("validate_data", "train_local", "privatize_and_upload")
_COLOURS = {
    "success": "green",
    "running": "cyan",
    "queued": "yellow",
    "scheduled": "yellow",
    "up_for_retry": "yellow",
    "failed": "red",
    "upstream_failed": "dark_orange",
}


@dataclass(frozen=True)
class DagRun:
    """One DAG run of a series: a round, or the try of one."""

    run_id: str
    state: str
    tasks: dict[str, str]
    by_hand: bool = False
    """Somebody, and no task, has set the state of the task that closes the round."""

    @property
    def finished(self) -> bool:
        """Whether Airflow is done with it."""
        return self.state in ("success", "failed")


def dag_id(study: str) -> str:
    """The DAG that runs a study's rounds."""
    return f"federated_round.{study}"


def run_rounds(
    api: AirflowApi, hub: HubContext, rounds: int, *, min_sites: int | None, note: str, console: Console
) -> list[RoundMetrics]:
    """Trigger `rounds` rounds and follow them to the end; gives the closed rounds, failed ones included.

    A service that does not run is named and waited for. Where the rounds cannot start now, nothing is queued.

    Raises:
        ConfigError: the DAG is paused or missing, or Airflow does not run. RoundError: a run ended without closing a
        round, was deleted or marked by hand, or nothing has gone on for ten minutes.
        KeyboardInterrupt: after saying what goes on by itself.
    """
    dag = dag_id(hub.name)
    series = f"cli__{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"
    closed: list[RoundMetrics] = []
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        watch = Watch(api, dag, live.console.print)
        watch.until_ready()
        try:
            watch.queued()
            _trigger(watch, api, dag, {"rounds": rounds, "min_sites": min_sites, "note": note}, series)
            for run in _runs(watch, api, hub, series, rounds):
                live.update(progress_table(run, len(closed) + 1, rounds, hub))
                if run.finished:
                    closed.append(_closed(watch, api, hub, run))
                    live.console.print(round_line(closed[-1]))
        except KeyboardInterrupt:
            rest = rounds - len(closed)
            what = f"The {rest} rounds that are left go on by themselves" if rest > 1 else "The round goes on by itself"
            live.console.print(f"Not followed any longer. {what}: {api.url}/dags/{dag}", soft_wrap=True)
            raise
    return closed


def _trigger(watch: Watch, api: AirflowApi, dag: str, conf: dict[str, Any], series: str) -> None:
    """Queue the first run, once: an answer may be lost on its way, and the run's name is this moment's."""

    def queue() -> None:
        try:
            api.trigger(dag, {**conf, "series": series}, series)
        except AirflowApiError as error:
            if error.status != httpx.codes.CONFLICT:
                raise

    watch.ask(queue)


def _runs(watch: Watch, api: AirflowApi, hub: HubContext, series: str, rounds: int) -> Iterator[DagRun]:
    """Each poll of the newest run of the series, until the last has finished or one has failed."""
    dag, seen = dag_id(hub.name), [series]
    while True:
        run = _run(watch, api, hub, seen[-1])
        watch.look(run)
        if run.state == "queued":
            _say_who_is_first(watch, api, dag, run.run_id)
        yield run
        if not run.finished:
            time.sleep(POLL_SECONDS)
        elif run.state == "failed" or len(seen) == rounds:
            return
        else:
            seen.append(_next_run(watch, api, dag, series, seen))


def _run(watch: Watch, api: AirflowApi, hub: HubContext, run_id: str) -> DagRun:
    dag = dag_id(hub.name)
    try:
        record = watch.ask(lambda: api.dag_run(dag, run_id))
        instances = watch.ask(lambda: api.task_instances(dag, run_id))
    except AirflowApiError as error:
        if error.status != httpx.codes.NOT_FOUND:
            raise
        fate = watch.ask(lambda: _fate(hub, run_id))
        raise RoundError(f"run {run_id} was deleted while it was followed. {fate}") from None
    tasks = {task["task_id"]: task["state"] or "" for task in instances}
    marked = {t["task_id"] for t in instances if t["state"] in ("success", "failed", "skipped") and not t["try_number"]}
    return DagRun(run_id, record["state"], tasks, by_hand="close_round" in marked)


def _say_who_is_first(watch: Watch, api: AirflowApi, dag: str, run_id: str) -> None:
    running = [r["dag_run_id"] for r in watch.ask(lambda: api.dag_runs(dag)) if r["state"] == "running"]
    if running and run_id not in running:  # it may have begun since it was asked for
        watch.note(f"queued: {running[0]} of this study runs first")


def _next_run(watch: Watch, api: AirflowApi, dag: str, series: str, seen: list[str]) -> str:
    """The run that the last one has started; it is there before that one ends."""
    until = time.monotonic() + _NEXT_RUN_S
    while True:
        runs = watch.ask(lambda: api.dag_runs(dag, limit=100))
        own = [r["dag_run_id"] for r in runs if (r.get("conf") or {}).get("series") == series]
        new = [run_id for run_id in own if run_id not in seen]
        if new:
            return str(new[0])
        if time.monotonic() > until:
            raise RoundError(f"{seen[-1]} started no next round: see its task next_round at {api.url}/dags/{dag}")
        time.sleep(POLL_SECONDS)


def _closed(watch: Watch, api: AirflowApi, hub: HubContext, run: DagRun) -> RoundMetrics:
    metrics = watch.ask(lambda: hub.closed_by(run.run_id))
    if metrics is not None:
        return metrics
    if run.by_hand:
        fate = watch.ask(lambda: _fate(hub, run.run_id))
        raise RoundError(f"run {run.run_id} was marked {run.state} by hand before it closed a round. {fate}")
    why = watch.ask(lambda: _why(api, dag_id(hub.name), run))
    raise RoundError(f"{run.run_id} ended {run.state} before a round was closed: {why}")


def _fate(hub: HubContext, run_id: str) -> str:
    """What has become of the round of a run that is gone."""
    try:
        number = hub.store.get_record(layout.run(hub.name, run_id), RunRecord).server_round
    except ObjectMissing:
        return "It had opened no round, and nothing was paid"
    closed = hub.closed_round(number)
    if closed:
        return f"Its round {number} is closed: {closed.message}"
    until = hub.plan(number).deadline
    return (
        f"Its round {number} stays open until {until:%H:%M} UTC: a run that is triggered before then takes it up, "
        "with what was paid for it; a later one opens the next round"
    )


def _why(api: AirflowApi, dag: str, run: DagRun) -> str:
    """The first failed task, and the error that its log ends with."""
    failed = [task for task, state in run.tasks.items() if state == "failed"]
    if not failed:
        return "no task failed; see the run in the web UI"
    first = "open_round" if "open_round" in failed else failed[0]
    lines = [line for line in api.log(dag, run.run_id, first).splitlines() if "exc_value" in line]
    detail = lines[-1].split("'exc_value': ")[-1].split(", 'exc_notes'")[0] if lines else "see its log in the web UI"
    return f"{first}: {detail}"


def progress_table(run: DagRun, number: int, rounds: int, hub: HubContext) -> Table:
    """One row a site, one column a step, coloured by state."""
    steps = Counter(run.tasks.values())
    title = f"round {number} of {rounds}: {steps['success']} of {len(run.tasks)} tasks done"
    table = Table("site", *STEPS, "validate_global", title=title, title_justify="left")
    for site in hub.study.sites:
        cells = [run.tasks.get(f"site_{site}.{step}", "") for step in STEPS]
        cells.append(run.tasks.get(f"validation.site_{site}", ""))
        table.add_row(site, *(f"[{_COLOURS.get(state, 'dim')}]{state or 'waiting'}[/]" for state in cells))
    return table


def round_line(metrics: RoundMetrics) -> str:
    """One line for a closed round, amber when a site is missing."""
    colour = {"complete": "green", "partial": "dark_orange", "failed": "red"}[metrics.status]
    return f"[{colour}]round {metrics.server_round}: {escape(metrics.message)}[/] ({metrics.seconds:.1f} s)"


def result_table(rounds: list[RoundMetrics]) -> Table:
    """What the rounds brought: the task's first two figures, epsilon, sites, seconds."""
    shown = metrics_of(rounds[-1].task)[:2] if rounds else ()
    table = Table("round", *(metric.label for metric in shown), "epsilon spent", "sites in", "seconds", title="Rounds")
    for metrics in rounds:
        table.add_row(
            f"{metrics.server_round} of {metrics.total_rounds}",
            *(_figure(metrics.pooled.get(each.name), metrics.figures.get(each.name)) for each in shown),
            _spent(metrics),
            f"{metrics.num_contributors} of {len(metrics.sites)}",
            f"{metrics.seconds:.1f}",
        )
    return table


def _spent(metrics: RoundMetrics) -> str:
    if not metrics.promises:
        return "[red]no privacy[/]"
    return f"{words.spend(metrics.epsilon)} of {words.spend(metrics.epsilon_budget)}"


def _figure(pooled: float | None, reported: float | None) -> str:
    value = pooled if pooled is not None else reported
    return "suppressed" if value is None else f"{value:.3f}"


def require_models(rounds: list[RoundMetrics]) -> None:
    """Make the command fail when a round made no model. Raises RoundError."""
    failed = [metrics for metrics in rounds if metrics.status == "failed"]
    if failed:
        raise RoundError(f"round {failed[0].server_round} made no model: {failed[0].message}")
