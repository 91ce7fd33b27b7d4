"""`python -m fuzz [--inputs N] [--parser NAME] [--seed S]`: exit code 1 when something was found."""

from __future__ import annotations

import argparse
import sys
import warnings

from rich.console import Console
from rich.table import Table

from fuzz.parsers import parsers
from fuzz.run import Tally, throw
from fuzz.world import make


def main() -> int:
    """Throw, show progress, print the table."""
    options = argparse.ArgumentParser(prog="python -m fuzz")
    options.add_argument("--inputs", type=int, default=1_000_000, help="inputs a parser")
    options.add_argument("--parser", default="", help="only the parser of this name")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    chosen = {name: parser for name, parser in parsers(make()).items() if given.parser in ("", name)}
    if not chosen:
        options.error(f"no parser {given.parser!r}")
    warnings.simplefilter("ignore")  # of certificates that the library will refuse one day
    console, tallies = Console(stderr=True), dict[str, Tally]()
    for name, parser in chosen.items():
        for tally in throw(name, parser, given.inputs, seed=given.seed):
            tallies[name] = tally
            console.print(f"{name}: {tally.inputs:,} inputs, {len(tally.findings)} findings")
    Console().print(_table(tallies))
    for tally in tallies.values():
        print("".join(f"{finding}\n" for finding in tally.findings), end="")
    return int(any(tally.findings for tally in tallies.values()))


def _table(tallies: dict[str, Tally]) -> Table:
    table = Table("parser", "inputs", "values", "refusals", "findings", "slowest, ms", title="Malformed input")
    for name, tally in tallies.items():
        figures = (tally.inputs, tally.values, tally.refusals, len(tally.findings))
        table.add_row(name, *(f"{figure:,}" for figure in figures), f"{tally.slowest * 1000:.1f}")
    return table


if __name__ == "__main__":
    sys.exit(main())
