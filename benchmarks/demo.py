"""`make demo` from an empty clone, with an empty virtual environment and a home of its own: seconds by phase."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tasks.store.settings import PROJECT

_PHASE = re.compile(r"^(?P<name>(?:install|demo): .+): (?P<seconds>\d+) s$", re.MULTILINE)

_NOT_INHERITED = {"VIRTUAL_ENV", "PYTHONPATH", "PHARMAFED_PROJECT", "MAKEFLAGS", "MAKELEVEL"}


@dataclass(frozen=True)
class Demo:
    """Seconds by phase, in order, and in all."""

    phases: dict[str, float]
    total_s: float


def run(console: Console) -> Demo:
    """Clone HEAD, run the demo, stop it. Downloads come from pip's usual index and cache."""
    with tempfile.TemporaryDirectory(prefix="pharmafed-demo-") as folder:
        clone = Path(folder) / "pharmafed"
        environ = os.environ | {"PHARMAFED_HOME": f"{folder}/home", "PHARMAFED_PORTS": "auto"}
        environ = {name: value for name, value in environ.items() if name not in _NOT_INHERITED}
        began = time.perf_counter()
        subprocess.run(["git", "clone", "--quiet", PROJECT, clone], check=True)
        cloned = time.perf_counter() - began
        try:
            phases = _make_demo(clone, environ, console)
        finally:
            subprocess.run([clone / ".venv" / "bin" / "pharmafed", "down"], env=environ, check=False)
        result = Demo({"git clone": cloned, **phases}, time.perf_counter() - began)
    _show(result, console)
    return result


def _make_demo(clone: Path, environ: dict[str, str], console: Console) -> dict[str, float]:
    console.print("Running `make demo` in an empty clone")
    done = subprocess.run(["make", "demo"], cwd=clone, env=environ, text=True, stdout=None, stderr=subprocess.PIPE)
    if done.returncode:
        raise RuntimeError(f"`make demo` ended with code {done.returncode}:\n{done.stderr[-3000:]}")
    return {match["name"]: float(match["seconds"]) for match in _PHASE.finditer(done.stderr)}


def _show(result: Demo, console: Console) -> None:
    table = Table("phase", "seconds", title="From an empty clone to the first report")
    for name, seconds in result.phases.items():
        table.add_row(name, f"{seconds:.1f}")
    table.add_row("together", f"{result.total_s:.1f}")
    console.print(table)
