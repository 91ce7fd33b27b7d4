"""What the DAG files share: defaults, the retry policy, where a site's tasks run, and who is told of a failure."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, ExceptionRetryPolicy, RetryAction, RetryRule, get_current_context

from tasks.foreign_files import listed
from tasks.settings import project_dir

#: An object store that does not answer is worth waiting for, and so is a model, for longer: its provider counts calls
#: by the minute. Bad data, a spent budget, a refused key or a broken step is not.
#: A worker that was killed raises nothing, so the plain `retries` below bring its task back.
RETRY_POLICY = ExceptionRetryPolicy(
    rules=[
        RetryRule("tasks.errors.StoreUnavailable", RetryAction.RETRY, retry_delay=timedelta(seconds=5)),
        RetryRule("tasks.errors.ModelUnavailable", RetryAction.RETRY, retry_delay=timedelta(minutes=5)),
        RetryRule("builtins.Exception", RetryAction.FAIL),
    ]
)

DEFAULTS: dict[str, Any] = {
    "owner": "hub",
    "retries": 12,
    "retry_delay": timedelta(seconds=2),
    "retry_policy": RETRY_POLICY,
    "do_xcom_push": False,
}


def nightly(cron: str) -> CronTriggerTimetable:
    """From the next time on, UTC: a hub that was started in the morning does not catch up on last night's round."""
    return CronTriggerTimetable(cron, timezone="UTC", run_immediately=timedelta(0))


def study_names() -> list[str]:
    """The studies that this project holds, by file name."""
    return [path.stem for path in listed(project_dir() / "studies", "*.yaml")]


def at_site(site: str) -> dict[str, Any]:
    """Task arguments that send a task to its site: the site's own queue, and its executor where one is set.

    On one machine the hub's LocalExecutor runs everything and ignores the queue. With PHARMAFED_SITE_EXECUTOR set to
    EdgeExecutor, only the worker at the site that listens to `site-<site>` gets the task.
    """
    executor = os.environ.get("PHARMAFED_SITE_EXECUTOR")
    return {"queue": f"site-{site}", "owner": f"site {site}", **({"executor": executor} if executor else {})}


def opened_round() -> int | None:
    """The number of the round that this run has opened; None when it could not open one."""
    return get_current_context()["ti"].xcom_pull(task_ids="open_round")


def sites_to_wire(sites: Iterable[str], task_id: str | None) -> list[str]:
    """The sites whose tasks a parse of the DAG file needs.

    Airflow parses the file again in the process of every task (`task_id` is then set). Such a process runs its one
    task and knows the rest from the scheduler, so it builds that task's site only: a tenth of the work, 57 times.
    """
    own = [site for site in sites if task_id is not None and site_group(site) in task_id.split(".")]
    return own or list(sites)[: 1 if task_id else None]


def site_group(site: str) -> str:
    """What a site's tasks and task groups are called."""
    return f"site_{site}"


def without_templates(dag: DAG) -> DAG:
    """No task here has anything to render, and an empty list of fields saves each a request to the API server."""
    for each in dag.tasks:
        each.template_fields = ()
    return dag


def tell_of_failure(context: Any) -> None:
    """Airflow callback: hand a failed task to the deployment's notifiers, naming our own errors only."""
    from tasks.notify import Notice, notify, reason_of

    error, ti = context.get("exception"), context["ti"]
    notify(Notice("failure", ti.dag_id, f"{ti.task_id} in run {ti.run_id}: {reason_of(error)}"))


def tell_of_drift(context: Any) -> None:
    """The same for the task that looks for drift: an alarm of its own kind, with model, exam, run and numbers."""
    from tasks.errors import DriftFound
    from tasks.notify import Notice, notify

    error = context.get("exception")
    if isinstance(error, DriftFound):
        notify(Notice("drift", f"exam {context['params']['exam']}", str(error)))
    else:
        tell_of_failure(context)
