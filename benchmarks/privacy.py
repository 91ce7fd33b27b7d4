"""Sanitising an update of ten million parameters, hiding it from the hub, and verifying what was spent.

Each case runs in a child of its own, so that its peak is its own: `python -m benchmarks.sanitise`. The cases take
turns, so that another program's load falls on all of them, and the fastest run of each counts. NVFlare's SVTPrivacy
and TenSEAL's CKKS run in virtual environments of the benchmark's own (build/bench-nvflare, build/bench-tenseal), with
our numpy, and are left out where they cannot be installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.sanitise import DELTA, EPSILON, GAMMA, ROUNDS, SITES, SVT_FRACTION, TAU, UPDATE_SD
from tasks.store.settings import PROJECT

NUM_VALUES, CKKS_VALUES, ENTRIES = 10_000_000, 1_000_000, 10_000
REPEATS = 5
NVFLARE, TENSEAL = "nvflare==2.9.0", "tenseal==0.3.18"
GOAL_GAUSSIAN, GOAL_SVT = 2.0, 1.0
GOAL_MASK_S, GOAL_MASK_BYTES, GOAL_LEDGER_S = 1.5, 8.0, 1.0

_MECHANISMS = {
    "none": "none (a copy)",
    "local_dp": "local_dp",
    "distributed_dp": "distributed_dp",
    "gaussian_update": "gaussian_update",
    "svt": f"svt {SVT_FRACTION:.0%}",
    "nvflare": f"NVFlare's SVTPrivacy {SVT_FRACTION:.0%}",
}
_SUMS = {"masks": "ours, masks", "ckks": "TenSEAL, CKKS"}


@dataclass(frozen=True)
class Sanitised:
    """One mechanism. `peak_updates` is in float32 updates, beyond the update itself and the empty process.

    `speedup` is over NVFlare, None where it is not installed; `released` the share of components that leave the site.
    """

    case: str
    seconds: float
    cpu_s: float
    parameters_per_s: float
    speedup: float | None
    peak_updates: float
    released: float


@dataclass(frozen=True)
class Summed:
    """One way of hiding values from the hub: one site hides its own, the hub adds 13 sites' and opens the sum."""

    case: str
    num_values: int
    hide_s: float
    add_s: float
    open_s: float
    bytes_per_value: float

    @property
    def seconds_per_million(self) -> float:
        """All three steps."""
        return (self.hide_s + self.add_s + self.open_s) / self.num_values * 1e6


@dataclass(frozen=True)
class Goal:
    """`met` is None where the other side of the comparison is not installed."""

    text: str
    value: float | None
    met: bool | None


@dataclass(frozen=True)
class Privacy:
    """All cases. `nvflare_epsilon`: its setting, and what its accountant puts down for one round."""

    num_values: int
    sanitised: list[Sanitised]
    summed: list[Summed]
    ledger_entries: int
    ledger_s: float
    nvflare_epsilon: tuple[float, float] | None
    goals: list[Goal]


Runs = Mapping[str, Sequence[Mapping[str, Any]]]


def run(console: Console) -> Privacy:
    """Measure and print."""
    ours = Path(sys.executable)
    nvflare = _environment(NVFLARE, console)
    tenseal = _environment(TENSEAL, console)
    with tempfile.TemporaryDirectory() as folder:
        _write_ledger(Path(folder))
        cases = [(name, ours, NUM_VALUES) for name in (*_MECHANISMS, "masks", "ledger") if name != "nvflare"]
        cases += [("nvflare", nvflare, NUM_VALUES)] if nvflare else []
        cases += [("ckks", tenseal, CKKS_VALUES)] if tenseal else []
        runs: dict[str, list[Mapping[str, Any]]] = {name: [] for name, _, _ in cases}
        for _ in range(REPEATS):
            for name, python, size in cases:
                runs[name].append(_measure(name, python, size, Path(folder) / "ledger.json"))
    result = _result(runs)
    _show(result, console)
    return result


def _environment(requirement: str, console: Console) -> Path | None:
    """The interpreter of an environment with this package, made once, or None where it cannot be installed."""
    name = requirement.partition("==")[0]
    folder = PROJECT / "build" / f"bench-{name}"
    python = folder / "bin" / "python"
    try:
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True)
        if subprocess.run([python, "-c", f"import {name}"], capture_output=True).returncode:
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, requirement, f"numpy=={np.__version__}"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        console.print(f"[yellow]{requirement} is left out: it cannot be installed ({type(error).__name__})[/yellow]")
        return None
    return python


def _write_ledger(folder: Path) -> None:
    """A site's ledger of as many rounds as it has entries, as verification finds it: bytes, certificate, digests."""
    from tasks.privacy.ledger.chain import FIRST, Link
    from tasks.privacy.mechanisms.distributed_dp import DistributedDPMechanism
    from tasks.store.identity import ensure_authority, ensure_site_identity
    from tasks.store.records.ledger import LedgerEntry
    from tasks.study.privacy import DistributedDP

    secrets = folder / "701"
    ensure_site_identity(secrets, "701", ensure_authority(folder / "authority"))
    settings = DistributedDP(
        mechanism="distributed_dp", epsilon=EPSILON, delta=DELTA, clip_norm=1.0, public_num_examples=211
    )
    mechanism, links = DistributedDPMechanism(settings, ENTRIES), list[Link]()
    for sequence in range(1, ENTRIES + 1):
        entry = LedgerEntry(
            study="bench",
            site="701",
            previous=links[-1].sha256 if links else FIRST,
            sequence=sequence,
            server_round=sequence,
            spend=mechanism.spend(sequence),
            release_sha256=f"{sequence:064x}",
            recorded_at=datetime(2026, 3, 1, tzinfo=UTC),
        )
        links.append(Link.seal(entry, secrets))
    content = {
        "certificate": (secrets / "certificate.pem").read_text(),
        "bodies": [link.body.decode() for link in links],
        "digests": [link.sha256 for link in links],
    }
    (folder / "ledger.json").write_text(json.dumps(content))


def _measure(name: str, python: Path, size: int, ledger: Path) -> Mapping[str, Any]:
    command = [str(python), "-m", "benchmarks.sanitise", name, str(size), str(ledger)]
    environ = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, env=environ, cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True)
    measured: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _fastest(runs: Sequence[Mapping[str, Any]], step: str) -> float:
    return float(min(run["seconds"][step] for run in runs))


def _result(runs: Runs) -> Privacy:
    sanitised = [_sanitised(name, runs) for name in _MECHANISMS if name in runs]
    summed = [_summed(name, runs[name]) for name in _SUMS if name in runs]
    ledger_s = _fastest(runs["ledger"], "verify")
    theirs = runs["nvflare"][0] if "nvflare" in runs else None
    return Privacy(
        num_values=NUM_VALUES,
        sanitised=sanitised,
        summed=summed,
        ledger_entries=ENTRIES,
        ledger_s=ledger_s,
        nvflare_epsilon=(theirs["epsilon_setting"], theirs["epsilon"]) if theirs else None,
        goals=_goals({case.case: case for case in sanitised}, summed[0], ledger_s),
    )


def _sanitised(name: str, runs: Runs) -> Sanitised:
    seconds = _fastest(runs[name], "sanitise")
    return Sanitised(
        case=name,
        seconds=seconds,
        cpu_s=min(run["cpu_s"] for run in runs[name]),
        parameters_per_s=NUM_VALUES / seconds,
        speedup=_fastest(runs["nvflare"], "sanitise") / seconds if "nvflare" in runs else None,
        peak_updates=max(run["peak_bytes"] for run in runs[name]) / (4 * NUM_VALUES),
        released=runs[name][0]["released"],
    )


def _summed(name: str, runs: Sequence[Mapping[str, Any]]) -> Summed:
    return Summed(
        case=name,
        num_values=CKKS_VALUES if name == "ckks" else NUM_VALUES,
        hide_s=_fastest(runs, "hide"),
        add_s=_fastest(runs, "add"),
        open_s=_fastest(runs, "open"),
        bytes_per_value=runs[0]["bytes_per_value"],
    )


def _goals(sanitised: Mapping[str, Sanitised], masks: Summed, ledger_s: float) -> list[Goal]:
    gaussian, svt = sanitised["gaussian_update"].speedup, sanitised["svt"].speedup
    released = sanitised["svt"].released
    twice = None if gaussian is None else gaussian >= GOAL_GAUSSIAN
    return [
        Goal(f"gaussian_update at least {GOAL_GAUSSIAN:g} times as fast as NVFlare's", gaussian, twice),
        Goal("svt faster than NVFlare's", svt, None if svt is None else svt > GOAL_SVT),
        Goal(f"svt releases {SVT_FRACTION:.0%}, exactly", released, released == SVT_FRACTION),
        Goal(f"a site masks within {GOAL_MASK_S:g} s", masks.hide_s, masks.hide_s <= GOAL_MASK_S),
        Goal(
            f"masked values of {GOAL_MASK_BYTES:g} bytes",
            masks.bytes_per_value,
            round(masks.bytes_per_value, 3) <= GOAL_MASK_BYTES,
        ),
        Goal(f"{ENTRIES} ledger entries verify within {GOAL_LEDGER_S:g} s", ledger_s, ledger_s <= GOAL_LEDGER_S),
    ]


def _show(result: Privacy, console: Console) -> None:
    console.print(_sanitised_table(result))
    console.print(
        f"update normal(0, {UPDATE_SD:g}); epsilon {EPSILON:g}, delta {DELTA:g} over {ROUNDS} rounds; "
        f"both svt: gamma {GAMMA:g}, tau {TAU:g}"
    )
    if result.nvflare_epsilon is not None:
        setting, spent = result.nvflare_epsilon
        console.print(
            f"NVFlare's epsilon is {setting:g}, its default, for the selection alone; with the values, its accountant "
            f"puts down {spent:,.1f} a round. Ours is {EPSILON:g} for all of it, over all rounds"
        )
    console.print(_summed_table(result))
    for goal in result.goals:
        value = "" if goal.value is None else f"{goal.value:.3g}"
        word = {True: "[green]met[/green]", False: "[red]missed[/red]", None: "[yellow]not measured[/yellow]"}
        console.print(f"goal: {goal.text}: {value} {word[goal.met]}")


def _sanitised_table(result: Privacy) -> Table:
    table = Table(title=f"Sanitising an update of {result.num_values / 1e6:.0f} million float32 parameters")
    for column in ("", "seconds", "cpu s", "million/s", "x NVFlare", "peak, updates", "released"):
        table.add_column(column, justify="left" if column == "" else "right")
    for case in result.sanitised:
        table.add_row(
            _MECHANISMS[case.case],
            f"{case.seconds:.3f}",
            f"{case.cpu_s:.2f}",
            f"{case.parameters_per_s / 1e6:.1f}",
            "" if case.speedup is None else f"{case.speedup:.2f}",
            f"{case.peak_updates:.1f}",
            f"{case.released:.2%}",
        )
    return table


def _summed_table(result: Privacy) -> Table:
    table = Table(title=f"A sum over {SITES} sites that hides each of them")
    for column in ("", "million values", "hide, s", "add, s", "open, s", "s per million", "bytes a value"):
        table.add_column(column, justify="left" if column == "" else "right")
    for case in result.summed:
        seconds = (f"{value:.3f}" for value in (case.hide_s, case.add_s, case.open_s, case.seconds_per_million))
        millions = f"{case.num_values / 1e6:.0f}"
        table.add_row(_SUMS[case.case], millions, *seconds, f"{case.bytes_per_value:.2f}")
    return table
