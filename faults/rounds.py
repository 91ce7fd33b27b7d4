"""One masked round with a fault in it, and what record and ledgers say afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from faults.faults import Fault
from faults.world import DEADLINE_S, SITES, STUDY, World
from tasks.deploy.airflow_api import AirflowApiError
from tasks.errors import ObjectMissing, StoreUnavailable
from tasks.privacy.ledger.spent import spent
from tasks.store import layout
from tasks.store.records.report import RoundMetrics
from tasks.store.records.round import RunRecord

Answer = TypeVar("Answer")
DAG = f"federated_round.{STUDY}"
#: Beyond the round's deadline: for services to come back and for the hub to close.
_GRACE_S = 240.0
_POLL_S = 0.1


@dataclass(frozen=True)
class Outcome:
    """What became of a round. `paid`: sites whose ledger is one longer; `record` is None where it was not closed."""

    fault: str
    moment: str
    run_state: str
    record: RoundMetrics | None
    paid: tuple[str, ...]
    overpaid: tuple[str, ...]
    seconds: float

    @property
    def contributed(self) -> tuple[str, ...]:
        """Who is in, by the record."""
        return tuple(row.site for row in self.record.sites if row.contributed) if self.record else ()

    @property
    def agrees(self) -> bool:
        """Whether those have paid once who are in, and nobody else."""
        return not self.overpaid and set(self.paid) == set(self.contributed)


def suffer(world: World, fault: Fault | None, run_id: str) -> Outcome:
    """Trigger a round, strike at the moment, wait for its end; without a fault, a round as it should be."""
    before, started = _releases(world), time.monotonic()
    world.api.trigger(DAG, {"rounds": 1}, run_id)
    number = _wait(lambda: _round_of(world, run_id), 120, "the round is not opened")
    if fault is not None:
        _wait(lambda: fault.moment.has_come(world.hub, number), DEADLINE_S, f"{fault.moment.name} has not come")
        fault.strike(world)
    state = _wait(lambda: _ended(world, run_id), DEADLINE_S + _GRACE_S, "the run does not end", "still running")
    if fault is not None:
        fault.mend(world)
    record = _wait(lambda: (world.hub.closed_round(number),), 60, "the store does not answer")[0]
    after = _wait(lambda: _releases(world), 60, "the store does not answer")
    more = {site: after[site] - before[site] for site in SITES}
    return Outcome(
        fault=fault.name if fault else "none",
        moment=fault.moment.name if fault else "",
        run_state=state,
        record=record,
        paid=tuple(site for site, n in more.items() if n == 1),
        overpaid=tuple(site for site, n in more.items() if n not in (0, 1)),
        seconds=time.monotonic() - started,
    )


def _releases(world: World) -> dict[str, int]:
    ledgers = spent(world.hub.store, STUDY)
    found = {site: ledgers.get(site) for site in SITES}
    return {site: entry.spend.releases if entry else 0 for site, entry in found.items()}


def _round_of(world: World, run_id: str) -> int:
    try:
        return world.hub.store.get_record(layout.run(STUDY, run_id), RunRecord).server_round
    except ObjectMissing:
        return 0


def _ended(world: World, run_id: str) -> str:
    state = str(world.api.dag_run(DAG, run_id)["state"])
    return state if state in ("success", "failed") else ""


def _wait(look: Callable[[], Answer], seconds: float, what: str, otherwise: Answer | None = None) -> Answer:
    """The first true answer; what does not answer now is asked again."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if found := look():
                return found
        except (AirflowApiError, StoreUnavailable):
            pass
        time.sleep(_POLL_S)
    if otherwise is None:
        raise TimeoutError(f"{what} within {seconds:.0f} s")
    return otherwise
