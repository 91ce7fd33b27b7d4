"""One warm federated round on a real Airflow and a real object store: how long, and where the time goes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from tasks.deploy import airflow, local, processes
from tasks.deploy.airflow_api import AirflowApi
from tasks.deploy.enrol import enrol_local_sites
from tasks.deploy.services import SERVICES
from tasks.deploy.state import SUPERVISOR
from tasks.store.settings import PROJECT
from tasks.study.file import load_studies

STUDY = "xanomeline_nocomp24"
DAG = f"federated_round.{STUDY}"
RUNS = 6
RUN_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Round:
    """One DAG run. `cpu_s` is processor seconds by service, its tasks' included; `waiting_s` is queueing, summed."""

    seconds: float
    task_instances: int
    running_s: float
    waiting_s: float
    cpu_s: Mapping[str, float]


@dataclass(frozen=True)
class Rounds:
    """The first run is left out: it warms up what the next ones find ready."""

    study: str
    first_s: float
    median_s: float
    start_s: float
    rounds: list[Round]


def run(console: Console) -> Rounds:
    """Start a deployment of its own on free ports, run the rounds one by one, stop it again."""
    studies = load_studies(PROJECT / "studies")
    sites = {name: list(study.sites) for name, study in studies.items()}
    with tempfile.TemporaryDirectory(prefix="pharmafed-bench-") as folder:
        home = Path(folder) / "home"
        try:
            up = local.up(home, PROJECT, sites, enrol=enrol_local_sites, auto_ports=True, console=console)
            with AirflowApi(up.addresses.airflow_url, **airflow.ui_login(home)) as api:
                api.wait_for_dag(DAG)
                runs = [_one_round(api, home) for _ in range(RUNS)]
        finally:
            local.down(home)
    result = Rounds(STUDY, runs[0].seconds, median(run.seconds for run in runs[1:]), up.seconds, runs[1:])
    _show(result, console)
    return result


def _one_round(api: AirflowApi, home: Path) -> Round:
    before = _cpu_seconds(home)
    run_id = api.trigger(DAG)["dag_run_id"]
    ended = api.wait_for_run(DAG, run_id, RUN_TIMEOUT_S)
    after = _cpu_seconds(home)
    found = api.task_instances(DAG, run_id)
    if ended["state"] != "success":
        raise RuntimeError(_failure(api, run_id, [i for i in found if i["state"] == "failed"]))
    instances = [instance for instance in found if instance["start_date"]]
    return Round(
        seconds=_between(ended, "start_date", "end_date"),
        task_instances=len(instances),
        running_s=sum(_between(instance, "start_date", "end_date") for instance in instances),
        waiting_s=sum(_between(i, "queued_when", "start_date") for i in instances if i["queued_when"]),
        cpu_s={service: after[service] - before.get(service, 0.0) for service in after},
    )


def _failure(api: AirflowApi, run_id: str, failed: list[dict[str, Any]]) -> str:
    """What failed, with the end of the first one's log: a failed round's seconds would mean nothing."""
    log = api.log(DAG, run_id, failed[0]["task_id"], failed[0]["try_number"])[-2000:] if failed else ""
    return f"run {run_id} failed at {', '.join(i['task_id'] for i in failed) or 'no task'}\n{log}"


def _between(record: Mapping[str, Any], start: str, end: str) -> float:
    return (datetime.fromisoformat(record[end]) - datetime.fromisoformat(record[start])).total_seconds()


def _cpu_seconds(home: Path) -> dict[str, float]:
    """Processor seconds so far by service; a task that has ended counts with the process that forked it."""
    found = {}
    for service in (*SERVICES, SUPERVISOR):
        found[service] = sum(_cpu_of(process) for process in processes.family(home, service))
    return found


def _cpu_of(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)


def _show(result: Rounds, console: Console) -> None:
    console.print(
        f"One warm round of {result.study}: median {result.median_s:.1f} s of {len(result.rounds)} "
        f"({', '.join(f'{r.seconds:.1f}' for r in result.rounds)}); the first took {result.first_s:.1f} s, "
        f"the deployment's start {result.start_s:.0f} s"
    )
    middle = sorted(result.rounds, key=lambda r: r.seconds)[len(result.rounds) // 2]
    console.print(
        f"{middle.task_instances} task instances ran {middle.running_s:.1f} s in all, "
        f"after {middle.waiting_s:.1f} s in the queue"
    )
    table = Table("processes", "CPU seconds", "share", title="Where a round's processor time goes")
    total = sum(middle.cpu_s.values())
    for service, seconds in sorted(middle.cpu_s.items(), key=lambda item: -item[1]):
        name = "scheduler and the tasks it forks" if service == "scheduler" else service
        table.add_row(name, f"{seconds:.2f}", f"{seconds / total:.0%}")
    table.add_row("together", f"{total:.2f}", f"{total / middle.seconds:.1f} cores busy")
    console.print(table)
