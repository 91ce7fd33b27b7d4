"""What the DAG files share: defaults, the retry policy, where a site's tasks run, and who is told of a failure."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, ExceptionRetryPolicy, RetryAction, RetryRule, get_current_context
from airflow.sdk.exceptions import AirflowSkipException

from tasks.errors import ConfigError, RoundRefused
from tasks.foreign.spelling import nearest
from tasks.store.settings import project_dir
from tasks.study.file import readable_studies
from tasks.study.sections import Study

#: An object store or an Airflow that does not answer is worth waiting for, and so is a model, for longer: its provider
#: counts calls by the minute. Bad data, a spent budget, a refused key or a broken step is not.
#: A worker that was killed raises nothing, so the plain `retries` below bring its task back.
RETRY_POLICY = ExceptionRetryPolicy(
    rules=[
        RetryRule("tasks.errors.StoreUnavailable", RetryAction.RETRY, retry_delay=timedelta(seconds=5)),
        RetryRule("airflow.sdk.exceptions.AirflowRuntimeError", RetryAction.RETRY, retry_delay=timedelta(seconds=5)),
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


#: What of a trigger's conf is our own: `NextRound` passes it on.
_OWN = frozenset({"series"})
#: A scheduled round begins within so long of its time, or not at all.
LATEST_START = timedelta(hours=1)


def nightly(cron: str) -> CronTriggerTimetable:
    """From the next time on, UTC. A hub that was away for several times starts one run when it is back."""
    return CronTriggerTimetable(cron, timezone="UTC", run_immediately=timedelta(0))


def studies() -> dict[str, Study]:
    """The studies whose files can be read, by name; `dags/study_files.py` is an import error for the others."""
    return readable_studies(project_dir() / "studies")[0]


def asked() -> dict[str, Any]:
    """The parameters of this run, for its first task.

    Raises:
        ConfigError: the trigger's conf has a key that the DAG does not take, and would pass over.
    """
    context = get_current_context()
    known = context["dag"].params
    for key in (context["dag_run"].conf or {}).keys() - set(known) - _OWN:
        raise ConfigError(f"{context['dag'].dag_id} takes no parameter {key}; {nearest(key, known)}")
    return dict(context["params"])


def skip_if_late(*, tell: bool = False) -> None:
    """Skip a scheduled run that begins long after its time: no round is caught up on in the middle of a day.

    The hub was away, or a longer series was before it. Not one that was cleared: somebody wants it now.
    """
    run = get_current_context()["dag_run"]
    late = (run.start_date or run.run_after) - run.run_after
    if run.run_type == "scheduled" and not run.clear_number and late > LATEST_START:
        words = (
            f"this round was due at {run.run_after:%Y-%m-%d %H:%M} UTC and begins {late.total_seconds() / 3600:.0f} "
            "hours late: it is left out, and the next one runs at its time. Trigger one to have it now"
        )
        if tell:
            from tasks.report.notices import Notice, notify

            notify(Notice("round left out", run.dag_id, words))
        raise AirflowSkipException(words)


def at_site(site: str) -> dict[str, Any]:
    """Task arguments that send a task to its site: the site's own queue, and its executor where one is set.

    On one machine the hub's LocalExecutor runs everything and ignores the queue. With PHARMAFED_SITE_EXECUTOR set to
    EdgeExecutor, only the worker at the site that listens to `site-<site>` gets the task.
    """
    executor = os.environ.get("PHARMAFED_SITE_EXECUTOR")
    return {"queue": f"site-{site}", "owner": f"site {site}", **({"executor": executor} if executor else {})}


def in_round(site: str) -> dict[str, Any]:
    """The same for a task that the hub waits for: where it fails for good, the hub is told."""
    return {**at_site(site), "on_failure_callback": tell_hub}


def tell_hub(context: Any) -> None:
    """Airflow callback of a site's task: refuse its part in the round where the step itself could not.

    A step tells the hub of our own errors. What is left: an Airflow or a store that stayed away too long, a worker
    that was killed again and again.
    """
    from tasks.errors import PharmafedError, StoreUnavailable
    from tasks.rounds.site.context import SiteContext
    from tasks.rounds.site.running import refuse

    error, ti = context.get("exception"), context["ti"]
    if isinstance(error, PharmafedError) and not isinstance(error, StoreUnavailable):
        return
    server_round = ti.xcom_pull(task_ids="open_round")
    if server_round is None:
        return
    study, site = context["task"].op_args
    why = type(error).__name__ if isinstance(error, BaseException) else "its worker was killed"
    ctx = SiteContext.load(study, site, run_id=ti.run_id)
    refuse(ctx, server_round, ti.task_id.rpartition(".")[2], why)


def opened_round() -> int | None:
    """The number of the round that this run has opened; None when it could not open one."""
    return get_current_context()["ti"].xcom_pull(task_ids="open_round")


def the_round() -> int:
    """The same for a step that works on it. Raises RoundRefused: there is none, whatever colour `open_round` has."""
    server_round = opened_round()
    if server_round is None:
        raise RoundRefused("no round was opened in this run: see the log of open_round, and trigger a new run")
    return server_round


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
    from tasks.report.notices import Notice, notify, reason_of

    error, ti = context.get("exception"), context["ti"]
    notify(Notice("failure", ti.dag_id, f"{ti.task_id} in run {ti.run_id}: {reason_of(error)}"))


def tell_of_drift(context: Any) -> None:
    """The same for the task that looks for drift: an alarm of its own kind, with model, exam, run and numbers."""
    from tasks.errors import DriftFound
    from tasks.report.notices import Notice, notify

    error = context.get("exception")
    if isinstance(error, DriftFound):
        notify(Notice("drift", f"exam {context['params']['exam']}", str(error)))
    else:
        tell_of_failure(context)
