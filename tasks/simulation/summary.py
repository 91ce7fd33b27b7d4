"""What runs over several seeds say together: a row of the table for each setting, and the files of a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Column, Table

from tasks.learning.metrics import METRICS
from tasks.simulation.runs import RunResult, SimulationRun
from tasks.store.records.record import Record

COLUMNS = ("epsilon spent", "uploaded", "ms/round")


class Summary(Record):
    """A setting after its last round: means over seeds, and their standard errors (None for a single seed).

    `rounds` is the mean number too: early stopping may end a seed before the others. `epsilon` is the largest, and
    `num_bytes` are uploaded by all sites in one run.
    """

    setting: str
    seeds: int
    rounds: float
    figures: dict[str, float]
    errors: dict[str, float | None]
    epsilon: float | None
    num_bytes: float


def summarize(results: Sequence[RunResult]) -> list[Summary]:
    """One summary for each setting, in the order in which they come first."""
    return [_summary([r for r in results if r.setting == name]) for name in dict.fromkeys(r.setting for r in results)]


def _summary(own: Sequence[RunResult]) -> Summary:
    last = {name: [r.figures[name][-1] for r in own if name in r.figures] for name in own[0].figures}
    known = {name: [v for v in values if v is not None] for name, values in last.items()}
    means = {name: _mean(values) for name, values in known.items() if len(values) == len(own)}
    return Summary(
        setting=own[0].setting,
        seeds=len(own),
        rounds=_mean([result.rounds[-1] for result in own])[0],
        figures={name: mean for name, (mean, _) in means.items()},
        errors={name: error for name, (_, error) in means.items()},
        epsilon=max((result.epsilon for result in own if result.epsilon is not None), default=None),
        num_bytes=_mean([result.num_bytes for result in own])[0],
    )


def _mean(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard error."""
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return float(np.mean(values)), error


def milliseconds_per_round(results: Sequence[RunResult], setting: str) -> float:
    """Of the rounds alone; of the kind "local" for all sites together."""
    own = [result for result in results if result.setting == setting]
    return 1000 * sum(r.seconds for r in own) / sum(r.rounds[-1] for r in own)


def summary_table(results: Sequence[RunResult]) -> Table:
    """The table that `pharmafed simulate` ends with."""
    shown = [METRICS[name] for name in list(results[0].figures)[:2]]
    columns = ("setting", "rounds", *(metric.label for metric in shown), *COLUMNS)
    table = Table(*(Column(name, no_wrap=True) for name in columns))
    for row in summarize(results):
        table.add_row(
            row.setting,
            f"{row.rounds:g}",
            *(_with_error(row.figures.get(m.name), row.errors.get(m.name)) for m in shown),
            "-" if row.epsilon is None else f"{row.epsilon:.2f}",
            f"{row.num_bytes:,.0f} B",
            f"{milliseconds_per_round(results, row.setting):.1f}",
        )
    return table


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" ± {error:.3f}" if error is not None else "")


def curves(results: Sequence[RunResult]) -> list[dict[str, float]]:
    """For `dvc plots`: a row for each round that all runs have, with each setting's mean of the task's own figure."""
    first = next(iter(results[0].figures))
    points = []
    for server_round in sorted(set.intersection(*(set(result.rounds) for result in results))):
        values: dict[str, list[float]] = {}
        for result in results:
            values.setdefault(result.setting, []).append(result.of(first)[result.rounds.index(server_round)])
        means = {name: round(_mean(own)[0], 4) for name, own in values.items()}
        points.append({"round": server_round, **means})
    return points


def write_results(folder: Path, runs: Sequence[SimulationRun]) -> None:
    """Write what was found; without timings, so that the same run gives the same bytes.

    results.json has every run, metrics.json the summaries, rounds.json the curves, and model.safetensors the model
    where one was kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results = [run.result for run in runs]
    metrics = {row.setting: _rounded(row) for row in summarize(results)}
    _write_json(folder / "results.json", [result.model_dump(mode="json", exclude={"seconds"}) for result in results])
    _write_json(folder / "metrics.json", metrics)
    _write_json(folder / "rounds.json", curves(results))
    for model in [run.model for run in runs if run.model is not None][:1]:
        (folder / "model.safetensors").write_bytes(model)


def _rounded(row: Summary) -> dict[str, Any]:
    """Four decimals: fewer than where another machine's last bits would show."""
    found = row.model_dump(mode="json", exclude={"setting", "figures", "errors"})
    errors = {f"{name}_se": error for name, error in row.errors.items()}
    figures = {**row.figures, **errors, **found}
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in figures.items()}


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
