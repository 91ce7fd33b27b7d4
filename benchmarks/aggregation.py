"""Averaging 13 and 200 updates of ten million parameters: speed, and peak memory in units of one model.

Each case runs in a child of its own, so that its peak is its own: `python -m benchmarks.average`. Flower's runs in a
virtual environment of the benchmark's own (build/bench-flower), and is left out where Flower cannot be installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tasks.store.settings import PROJECT

NUM_VALUES = 10_000_000
SITES, MANY_SITES = 13, 200
REPEATS = 5
FLOWER = "flwr==1.41.0"
_FLOWER_VENV = PROJECT / "build" / "bench-flower"
GOAL_SPEEDUP, GOAL_MODELS = 3.0, 3.0


@dataclass(frozen=True)
class Measured:
    """One case. `gigabytes_per_s` counts each update's bytes once; `peak_models` is beyond the empty process."""

    case: str
    sites: int
    seconds: float
    gigabytes_per_s: float
    reading_s: float
    peak_models: float


@dataclass(frozen=True)
class Aggregation:
    """All cases, and how many times as fast as Flower ours is in memory; None where Flower is not installed."""

    num_values: int
    cases: list[Measured]
    speedup_over_flower: float | None


def run(console: Console) -> Aggregation:
    """Measure and print."""
    with tempfile.TemporaryDirectory(dir=_fast_folder()) as folder:
        _write_updates(Path(folder))
        cases = [
            _measure("memory", SITES, folder),
            _measure("files", SITES, folder),
            _measure("hub", SITES, folder),
            _measure("hub", MANY_SITES, folder, repeats=1),
        ]
        if _has_flower(console):
            cases.append(_measure("flower", SITES, folder, python=_FLOWER_VENV / "bin" / "python"))
    by_case = {case.case: case for case in cases if case.sites == SITES}
    speedup = by_case["flower"].seconds / by_case["memory"].seconds if "flower" in by_case else None
    result = Aggregation(NUM_VALUES, cases, speedup)
    _show(result, console)
    return result


def _fast_folder() -> str | None:
    """Memory, where there is any: a disk would be all that is measured."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _write_updates(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    for number in range(SITES):
        save_file({"weight": torch.randn(NUM_VALUES, generator=generator)}, folder / f"{number}.safetensors")


def _measure(
    case: str, sites: int, folder: str, repeats: int = REPEATS, python: Path = Path(sys.executable)
) -> Measured:
    """The fastest of some runs: other programs only ever add to the time."""
    script = PROJECT / "benchmarks" / "average.py"
    command = [str(python), str(script), case, str(sites), folder, str(NUM_VALUES)]
    environ = {**os.environ, "PYTHONPATH": str(PROJECT), "FLWR_TELEMETRY_ENABLED": "0"}
    outputs = [subprocess.run(command, env=environ, capture_output=True, text=True, check=True) for _ in range(repeats)]
    found = [json.loads(output.stdout.splitlines()[-1]) for output in outputs]
    seconds = min(run["seconds"] for run in found)
    return Measured(
        case=case,
        sites=sites,
        seconds=seconds,
        gigabytes_per_s=4 * NUM_VALUES * sites / seconds / 1e9,
        reading_s=min(run["reading_s"] for run in found),
        peak_models=max(run["peak_bytes"] for run in found) / (4 * NUM_VALUES),
    )


def _has_flower(console: Console) -> bool:
    """Install Flower for the benchmark alone, once."""
    python = _FLOWER_VENV / "bin" / "python"
    try:
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", _FLOWER_VENV], check=True)
        if subprocess.run([python, "-c", "import flwr, safetensors"], capture_output=True).returncode:
            numpy = _pin("numpy")
            pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, FLOWER, "safetensors", numpy], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        console.print(f"[yellow]Flower is left out: it cannot be installed here ({type(error).__name__})[/yellow]")
        return False
    return True


def _pin(package: str) -> str:
    lines = (PROJECT / "constraints.txt").read_text().splitlines()
    return next(line for line in lines if line.startswith(f"{package}=="))


_WORDS = {
    "memory": "ours, in memory",
    "files": "ours, from files",
    "hub": "ours, as the hub: with sha256, norm, base model",
    "flower": "Flower's aggregate(), in memory",
}
#: Column -> digits.
_COLUMNS = {"seconds": 2, "gigabytes_per_s": 2, "ratio": 2, "peak_models": 1}


def _show(result: Aggregation, console: Console) -> None:
    table = Table(title=f"Averaging updates of {result.num_values / 1e6:.0f} million float32 parameters")
    for column in ("", "sites", "seconds", "GB/s", "/ reading alone", "peak, models"):
        table.add_column(column, justify="left" if column == "" else "right")
    for case in result.cases:
        values = asdict(case)
        values["ratio"] = case.seconds / case.reading_s
        table.add_row(
            _WORDS[case.case],
            str(case.sites),
            *(f"{values[key]:.{digits}f}" for key, digits in _COLUMNS.items()),
        )
    console.print(table)
    if result.speedup_over_flower is not None:
        console.print(f"{result.speedup_over_flower:.1f} times Flower's speed (goal: {GOAL_SPEEDUP:g})")
