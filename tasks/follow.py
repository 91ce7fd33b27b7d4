"""Triggering rounds through Airflow and following them: what `pharmafed round` shows while it waits."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tasks.deploy.airflow_api import AirflowApi
from tasks.errors import RoundError
from tasks.hub.context import HubContext
from tasks.records import RoundMetrics
from tasks.report import words

POLL_SECONDS = 1.0
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
class Run:
    """One DAG run of a series: a round, or the try of one."""

    run_id: str
    state: str
    tasks: dict[str, str]

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

    Raises:
        ConfigError: Airflow does not answer, or has no such DAG. RoundError: a run ended without closing a round.
    """
    dag = dag_id(hub.name)
    api.wait_for_dag(dag)
    series = f"cli__{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"
    conf = {"rounds": rounds, "min_sites": min_sites, "note": note, "series": series}
    api.trigger(dag, conf, series)
    closed: list[RoundMetrics] = []
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        for run in _runs(api, dag, series, rounds):
            live.update(progress_table(run, len(closed) + 1, rounds, hub))
            if not run.finished:
                continue
            metrics = hub.closed_by(run.run_id)
            if metrics is None:
                raise RoundError(f"{run.run_id} ended {run.state} before a round was closed: {_why(api, dag, run)}")
            closed.append(metrics)
            live.console.print(round_line(metrics))
    return closed


def _runs(api: AirflowApi, dag: str, series: str, rounds: int) -> Iterator[Run]:
    """Each poll of the newest run of the series, until the last has finished or one has failed."""
    seen: set[str] = set()
    while len(seen) < rounds:
        own = [r for r in api.dag_runs(dag) if (r.get("conf") or {}).get("series") == series]
        for record in sorted(own, key=lambda r: str(r["queued_at"])):
            if record["dag_run_id"] in seen:
                continue
            run = _run(api, dag, record)
            yield run
            if run.finished:
                seen.add(run.run_id)
                if run.state == "failed":
                    return
            break
        time.sleep(POLL_SECONDS)


def _run(api: AirflowApi, dag: str, record: dict[str, Any]) -> Run:
    tasks = {t["task_id"]: t["state"] or "" for t in api.task_instances(dag, record["dag_run_id"])}
    return Run(record["dag_run_id"], record["state"], tasks)


def _why(api: AirflowApi, dag: str, run: Run) -> str:
    """The first failed task, and the error that its log ends with."""
    failed = [task for task, state in run.tasks.items() if state == "failed"]
    if not failed:
        return "no task failed; see the run in the web UI"
    first = "open_round" if "open_round" in failed else failed[0]
    lines = [line for line in api.log(dag, run.run_id, first).splitlines() if "exc_value" in line]
    detail = lines[-1].split("'exc_value': ")[-1].split(", 'exc_notes'")[0] if lines else "see its log in the web UI"
    return f"{first}: {detail}"


def progress_table(run: Run, number: int, rounds: int, hub: HubContext) -> Table:
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
    return f"[{colour}]round {metrics.server_round}: {metrics.message}[/] ({metrics.seconds:.1f} s)"


def result_table(rounds: list[RoundMetrics]) -> Table:
    """What the rounds brought: AUC, log-loss, epsilon, sites, seconds."""
    table = Table("round", "AUC", "log-loss", "epsilon spent", "sites in", "seconds", title="Rounds")
    for metrics in rounds:
        table.add_row(
            f"{metrics.server_round} of {metrics.total_rounds}",
            _figure(metrics.pooled_auc, metrics.auc),
            _figure(metrics.pooled_log_loss, metrics.log_loss),
            _spent(metrics),
            f"{metrics.num_contributors} of {len(metrics.sites)}",
            f"{metrics.seconds:.1f}",
        )
    return table


def _spent(metrics: RoundMetrics) -> str:
    if metrics.mechanism == "none":
        return "[red]no privacy[/]"
    return f"{words.spend(metrics.epsilon)} of {words.spend(metrics.epsilon_budget)}"


def _figure(pooled: float | None, reported: float | None) -> str:
    value = pooled if pooled is not None else reported
    return "suppressed" if value is None else f"{value:.3f}"


def require_closed(rounds: list[RoundMetrics]) -> None:
    """Make the command fail when a round made no model. Raises RoundError."""
    failed = [metrics for metrics in rounds if metrics.status == "failed"]
    if failed:
        raise RoundError(f"round {failed[0].server_round} made no model: {failed[0].message}")
