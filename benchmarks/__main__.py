"""`python -m benchmarks`: prints tables and writes build/bench.json."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import aggregation, codecs, demo, exam, privacy, rounds, simulation
from tasks.store.settings import PROJECT

BENCHMARKS: dict[str, Callable[[Console], Any]] = {
    "aggregation": aggregation.run,
    "privacy": privacy.run,
    "codecs": codecs.run,
    "rounds": rounds.run,
    "simulation": simulation.run,
    "exam": exam.run,
    "demo": demo.run,
}
BY_DEFAULT = ("aggregation", "privacy", "codecs", "rounds", "simulation", "exam")
RESULTS = PROJECT / "build" / "bench.json"


def _machine() -> dict[str, object]:
    load = os.getloadavg()[0]
    return {"cores": os.cpu_count(), "platform": platform.platform(), "python": platform.python_version(), "load": load}


def _save(name: str, result: Any) -> None:
    """Keep what earlier runs of the other benchmarks wrote."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    values = asdict(result) if is_dataclass(result) and not isinstance(result, type) else result
    known[name] = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": _machine(), **values}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(known, indent=2) + "\n")


def main() -> int:
    """Run the benchmarks asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], help=f"default: {' '.join(BY_DEFAULT)}")
    parser.add_argument("--demo", action="store_true", help="only `make demo` from an empty clone: minutes")
    arguments = parser.parse_args()
    names = ["demo"] if arguments.demo else arguments.names or BY_DEFAULT
    console = Console()
    for name in names:
        _save(name, BENCHMARKS[name](console))
    console.print(f"written to {RESULTS.relative_to(Path.cwd()) if RESULTS.is_relative_to(Path.cwd()) else RESULTS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
