"""How long `dvc repro` takes to find that everything is up to date."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console


def idle_repro(project: Path, console: Console) -> float | None:
    """Seconds that `dvc repro` takes to find nothing to do; never runs a stage."""
    reason = "there is no dvc.lock" if not (project / "dvc.lock").exists() else _not_idle(project)
    if reason:
        console.print(f"[yellow]dvc repro is left out: {reason}; make repro[/yellow]")
        return None
    began = time.perf_counter()
    _dvc(project, "repro").check_returncode()
    return time.perf_counter() - began


def _not_idle(project: Path) -> str | None:
    """Why `dvc repro` would not end at once."""
    status = _dvc(project, "status", "--json")
    if status.returncode:
        return "dvc status fails; is another dvc at work?"
    return "it would run stages" if json.loads(status.stdout) else None


def _dvc(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    dvc = str(Path(sys.executable).with_name("dvc"))
    return subprocess.run([dvc, *arguments], cwd=project, capture_output=True, text=True)
