"""`python -m faults [--only WORDS]`: exit code 1 where ledgers and record disagree or a round is left open."""

from __future__ import annotations

import argparse
import signal
import sys

from rich.console import Console
from rich.table import Table

from faults.faults import all_faults
from faults.rounds import Outcome, suffer
from faults.world import SITES, running


def main() -> int:
    """One round for every fault, one after the other, on one deployment."""
    options = argparse.ArgumentParser(prog="python -m faults")
    options.add_argument("--only", default="", help="only the faults whose name or moment holds these words")
    only = options.parse_args().only
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    progress, outcomes = Console(stderr=True), list[Outcome]()
    with running() as world:
        chosen = [None, *(f for f in all_faults(world) if only in f"{f.name} {f.moment.name}")]
        if not world.has_own_disk:
            progress.print("the disk is not filled: mounting one of our own needs root")
        for number, fault in enumerate(chosen):
            outcomes.append(suffer(world, fault, f"fault-{number:02d}"))
            progress.print(f"{number + 1} of {len(chosen)}: {' | '.join(_cells(outcomes[-1]))}", highlight=False)
    table = Table(
        "fault", "when", "run", "round", "sites in", "paid", "agree", "seconds", title="Faults in a masked round"
    )
    for outcome in outcomes:
        table.add_row(*_cells(outcome))
    Console(width=140).print(table)
    return int(not all(outcome.agrees and outcome.record for outcome in outcomes))


def _cells(outcome: Outcome) -> list[str]:
    record, missing = outcome.record, set(outcome.contributed) ^ set(outcome.paid)
    agree = "yes" if outcome.agrees else f"no: {', '.join(sorted(missing | set(outcome.overpaid)))}"
    return [
        outcome.fault,
        outcome.moment,
        outcome.run_state,
        f"{record.server_round} {record.status}" if record else "open",
        f"{len(outcome.contributed)} of {len(SITES)}",
        str(len(outcome.paid)),
        agree,
        f"{outcome.seconds:.0f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
