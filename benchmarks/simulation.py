"""A simulated round of 13 sites beside Flower's and NVFlare's simulators; up to 1,000 sites; an idle `dvc repro`.

Each case runs in a child of its own: `python -m benchmarks.simulators`. Flower and NVFlare run in the benchmark's own
virtual environments (build/bench-flower, build/bench-nvflare), and are left out where they cannot be installed, or do
not end within `LIMIT_S`. Time per round is between rounds of one run; what is left of the run is starting and stopping.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Column, Table

from benchmarks.aggregation import _FLOWER_VENV, FLOWER, _has_flower, _pin
from benchmarks.pipeline import idle_repro
from benchmarks.privacy import NVFLARE, Goal, _environment
from benchmarks.simulators import PARTS, STUDY
from tasks.store.settings import PROJECT

MASKED_STUDY = "xanomeline_derm56"
ROUNDS = 8
#: Ours more than once, so that another program's load does not fall on the others alone.
TURNS = ("ours", "flower", "ours", "nvflare", "ours")
SITES, SITES_ROUNDS = (13, 100, 1000), 10
LIMIT_S = 300.0
#: Of the model with 100 hidden units and 22 inputs, by the study that trains it: float32 alone, int64 behind masks.
UPDATE_BYTES = {STUDY: 2401 * 4, MASKED_STUDY: 2401 * 8}
GOAL_ROUND_S, GOAL_REPRO_S = 0.020, 3.0
GOAL_LINEAR, GOAL_KEPT, GOAL_DIFFERENCE = 1.5, 0.25, 1e-4

_SIMULATORS = {"ours": "ours", "flower": "Flower", "nvflare": "NVFlare"}
_MODELS = {"logistic": "logistic", "mlp": "MLP, 16 hidden"}
#: In the environment of a child and of all that it starts: the child's own folder.
_MARK = "PHARMAFED_BENCH_CHILD"
_QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
_STUDIES = {STUDY: "raw updates, Adam", MASKED_STUDY: "distributed_dp, masks"}


@dataclass(frozen=True)
class Simulated:
    """One simulator with one model. `ratio` is over our seconds per round; `start_s` is the run without its rounds.

    `difference` is the largest between a final weight and ours.
    """

    simulator: str
    model: str
    round_s: float
    ratio: float
    start_s: float
    difference: float


@dataclass(frozen=True)
class Sites:
    """A round of so many sites. `peak_bytes` is beyond the arrays; `updates_bytes` are all sites' updates together."""

    study: str
    sites: int
    round_s: float
    site_s: float
    peak_bytes: int
    updates_bytes: int


@dataclass(frozen=True)
class Simulation:
    """All of it; `repro_s` is None where there is no pipeline that is up to date."""

    simulated: list[Simulated]
    sites: list[Sites]
    repro_s: float | None
    goals: list[Goal]


Runs = Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]


def run(console: Console) -> Simulation:
    """Measure and print."""
    pythons = {"ours": Path(sys.executable)} | _peers(console)
    with tempfile.TemporaryDirectory(prefix="pharmafed-bench-") as name:
        folder = Path(name)
        arrays = {study: _export(study, folder) for study in (STUDY, MASKED_STUDY)}
        simulated = _simulated(_take_turns(pythons, arrays[STUDY], console))
        sites = [_sites(study, count, arrays[study]) for study in arrays for count in SITES]
    repro_s = idle_repro(PROJECT, console)
    result = Simulation(simulated, sites, repro_s, _goals(simulated, sites, repro_s))
    _show(result, console)
    return result


def _peers(console: Console) -> dict[str, Path]:
    """The interpreters of the others, with torch, as far as they can be installed."""
    bases = {
        "flower": _FLOWER_VENV / "bin" / "python" if _has_flower(console) else None,
        "nvflare": _environment(NVFLARE, console),
    }
    torch = {"torch": _pin("torch")}
    more = {"flower": torch | {"ray": FLOWER.replace("==", "[simulation]==")}, "nvflare": torch}
    return {name: python for name, python in bases.items() if python and _add(python, more[name], console)}


def _add(python: Path, packages: Mapping[str, str], console: Console) -> bool:
    """Install what cannot be imported there yet."""
    imports = ", ".join(packages)
    try:
        if subprocess.run([python, "-c", f"import {imports}"], capture_output=True).returncode:
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", _pin("numpy")]
            subprocess.run([*pip, *packages.values()], check=True, capture_output=True, timeout=LIMIT_S)
    except (OSError, subprocess.SubprocessError) as error:
        console.print(f"[yellow]{imports} cannot be installed in {python} ({type(error).__name__}): left out[/yellow]")
        return False
    return True


def _export(study: str, folder: Path) -> Path:
    """The sites' arrays as a file that every environment reads."""
    from tasks.simulation.data import read_sites, split_sites
    from tasks.study.file import load_study

    own = load_study(PROJECT / "studies" / f"{study}.yaml")
    patients = split_sites(read_sites(own), own.evaluation)
    path = folder / f"{study}.npz"
    named = {f"{part}.{i}": getattr(p, part) for i, p in enumerate(patients.values()) for part in PARTS}
    np.savez(path, **{name: values.numpy() for name, values in named.items()})
    return path


def _take_turns(pythons: Mapping[str, Path], arrays: Path, console: Console) -> Runs:
    """Every run by simulator and model; a simulator that fails or takes too long is left out for good."""
    runs: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    left_out: set[str] = set()
    for model, name in product(_MODELS, TURNS):
        if name not in pythons or name in left_out:
            continue
        try:
            runs.setdefault((name, model), []).append(_measure(pythons[name], name, model, ROUNDS, arrays))
        except (subprocess.SubprocessError, OSError) as error:
            if name == "ours":
                raise
            left_out.add(name)
            console.print(f"[yellow]{_SIMULATORS[name]} is left out: {error}[/yellow]")
    return {key: found for key, found in runs.items() if key[0] not in left_out}


def _measure(python: Path, case: str, what: str, rounds: int, arrays: Path) -> Mapping[str, Any]:
    """One child, in a folder of its own.

    Raises:
        SubprocessError: it fails, or takes longer than LIMIT_S.
    """
    with tempfile.TemporaryDirectory(prefix="pharmafed-bench-") as name:
        folder = Path(name)
        own = folder / arrays.name
        own.symlink_to(arrays)
        command = [str(python), "-m", "benchmarks.simulators", case, what, str(rounds), str(own), str(folder / "out")]
        environ = {**os.environ, **_QUIET, "PYTHONPATH": str(PROJECT), _MARK: name}
        try:
            with (folder / "log").open("wb") as log:
                ended = subprocess.run(command, env=environ, cwd=folder, stdout=log, stderr=log, timeout=LIMIT_S)
        finally:
            _end_all(name)
        if ended.returncode:
            last = (folder / "log").read_text(errors="replace").strip().splitlines()[-1:]
            raise subprocess.SubprocessError(f"it ended with {ended.returncode}: {''.join(last)}")
        measured: Mapping[str, Any] = json.loads((folder / "out").read_text())
        return measured


def _end_all(mark: str) -> None:
    """End what a child has left behind: simulators start processes in sessions of their own, but pass on this mark."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(_MARK) == mark:
                process.kill()
        except psutil.Error:
            continue


def _simulated(runs: Runs) -> list[Simulated]:
    round_s = {key: median(s for run in found for s in run["rounds"]) for key, found in runs.items()}
    return [
        Simulated(
            simulator=name,
            model=model,
            round_s=round_s[name, model],
            ratio=round_s[name, model] / round_s["ours", model],
            start_s=median(run["seconds"] for run in found) - ROUNDS * round_s[name, model],
            difference=_difference(found[0]["final"], runs["ours", model][0]["final"]),
        )
        for (name, model), found in runs.items()
    ]


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    return max(float(np.abs(np.subtract(one[name], other[name])).max()) for name in other)


def _sites(study: str, sites: int, arrays: Path) -> Sites:
    measured = _measure(Path(sys.executable), str(sites), study, SITES_ROUNDS, arrays)
    return Sites(
        study=study,
        sites=sites,
        round_s=measured["seconds"],
        site_s=measured["seconds"] / sites,
        peak_bytes=measured["peak_bytes"],
        updates_bytes=sites * UPDATE_BYTES[study],
    )


def _goals(simulated: Sequence[Simulated], sites: Sequence[Sites], repro_s: float | None) -> list[Goal]:
    ours = [case for case in simulated if case.simulator == "ours"]
    difference = max(case.difference for case in simulated)
    compared = None if all(case.simulator == "ours" for case in simulated) else difference
    by_count = {(case.study, case.sites): case for case in sites}
    fewest, most = min(SITES), max(SITES)
    growth = max(by_count[study, most].site_s / by_count[study, fewest].site_s for study in _STUDIES)
    kept = max(case.peak_bytes / case.updates_bytes for case in sites if case.sites == most)
    return [
        *(_goal(f"{_MODELS[c.model]}: a round within {GOAL_ROUND_S:g} s", c.round_s, GOAL_ROUND_S) for c in ours),
        _goal(f"all simulators end with the same weights, within {GOAL_DIFFERENCE:g}", compared, GOAL_DIFFERENCE),
        _goal(f"a site of {most} takes at most {GOAL_LINEAR:g} times as long as one of {fewest}", growth, GOAL_LINEAR),
        _goal(f"{most} sites: a peak of at most {GOAL_KEPT:g} of what all their updates take", kept, GOAL_KEPT),
        _goal(f"dvc repro finds nothing to do within {GOAL_REPRO_S:g} s", repro_s, GOAL_REPRO_S),
    ]


def _goal(text: str, value: float | None, at_most: float) -> Goal:
    return Goal(text, value, None if value is None else value <= at_most)


def _show(result: Simulation, console: Console) -> None:
    console.print(_simulated_table(sorted(result.simulated, key=lambda case: case.model)))
    console.print(f"ours: one process on one core; {os.cpu_count()} cores here, and the others use them all")
    console.print(_sites_table(result.sites))
    for goal in result.goals:
        value = "" if goal.value is None else f"{goal.value:.3g}"
        word = {True: "[green]met[/green]", False: "[red]missed[/red]", None: "[yellow]not measured[/yellow]"}
        console.print(f"goal: {goal.text}: {value} {word[goal.met]}")


def _simulated_table(simulated: Sequence[Simulated]) -> Table:
    columns = ("ms a round", "x ours", "start+stop, s", "weights off by")
    table = _table(f"A simulated round of 13 sites, {ROUNDS} rounds", ("", "model"), columns)
    for case in simulated:
        table.add_row(
            _SIMULATORS[case.simulator],
            _MODELS[case.model],
            f"{case.round_s * 1000:.1f}",
            f"{case.ratio:.1f}",
            f"{case.start_s:.1f}",
            f"{case.difference:.1e}",
        )
    return table


def _sites_table(sites: Sequence[Sites]) -> Table:
    title = f"More sites, the same patients dealt again: MLP, 100 hidden units, {SITES_ROUNDS} rounds"
    table = _table(title, ("",), ("sites", "s a round", "ms a site", "peak, MB", "all updates, MB"))
    for case in sites:
        table.add_row(
            _STUDIES[case.study],
            str(case.sites),
            f"{case.round_s:.3f}",
            f"{case.site_s * 1000:.2f}",
            f"{case.peak_bytes / 1e6:.2f}",
            f"{case.updates_bytes / 1e6:.2f}",
        )
    return table


def _table(title: str, words: Sequence[str], numbers: Sequence[str]) -> Table:
    columns = [Column(word) for word in words] + [Column(number, justify="right") for number in numbers]
    return Table(*columns, title=title)
