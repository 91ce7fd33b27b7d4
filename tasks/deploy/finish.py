"""The last step of a round at the hub: close it, publish its report, tell whoever must know."""

from __future__ import annotations

import logging
from functools import partial

from tasks.errors import RoundRefused, StoreUnavailable
from tasks.report.notices import Notice, notices_of, notify, reason_of
from tasks.rounds.hub.close import close_round, require_model
from tasks.rounds.hub.context import HubContext
from tasks.rounds.page.build import build_report
from tasks.rounds.page.store import publish_report
from tasks.simulation.reference import baselines
from tasks.store.records.report import RoundMetrics

log = logging.getLogger(__name__)


def finish_round(study: str, server_round: int | None, run_id: str | None = None) -> str:
    """Close the round and publish its report; gives the line for the log.

    Raises:
        RoundRefused: there is no round to close. QuorumMissed: it made no model; its record and report are written.
    """
    if server_round is None:
        raise RoundRefused("the round was not opened: the reason is in the log of open_round")
    hub = HubContext.load(study, run_id or "")
    metrics = close_round(hub, server_round, run_id)
    _tell(hub, metrics)
    require_model(metrics)
    return f"round {server_round} of {study}: {metrics.status}, {metrics.message}"


def _tell(hub: HubContext, metrics: RoundMetrics) -> None:
    """Publish the report and send the notices. The pointer has moved: what breaks here is told, and stops no round."""

    def send() -> None:
        for notice in notices_of(metrics):
            notify(notice)

    for what, act in (("report", partial(publish, hub, metrics)), ("notices", send)):
        try:
            act()
        except StoreUnavailable:  # the whole step is tried again
            raise
        except Exception as error:  # of a library that draws, of a channel: the round is closed whatever it says
            log.exception("round %d of %s is closed, but not its %s", metrics.server_round, hub.name, what)
            text = f"round {metrics.server_round} is closed, but its {what} could not be made: {reason_of(error)}"
            notify(Notice("failure", hub.name, text))


def publish(hub: HubContext, now: RoundMetrics) -> None:
    """Write the report of a round that was just closed to the store and to this machine.

    It names the records of earlier rounds that cannot be read, and is made of the others.
    """
    records = hub.records()
    rounds = [*(metrics for metrics in records.rounds if metrics.server_round < now.server_round), now]
    for damage in records.damaged:
        log.error("%s", damage)
    files = build_report(hub.study, rounds, baselines(hub.study), records.damaged)
    publish_report(hub.store, hub.name, now.server_round, files)
