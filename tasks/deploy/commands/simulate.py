"""`pharmafed simulate`: a study's rounds without a scheduler. Errors are shown by the command that mounts it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tasks.deploy.commands.progress import bar

if TYPE_CHECKING:
    from tasks.simulation.runs import Setting
    from tasks.study.sections import Study

PUBLIC_ONLY = "it looks at the patients that are held out, so only for public data"


class Kind(StrEnum):
    """What may train."""

    federated = "federated"
    pooled = "pooled"
    local = "local"


def simulate(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="a study's name, or the path of a study's YAML file")],
    rounds: Annotated[int | None, typer.Option(min=1, help="how many; by default the study's total")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="how many: 0, 1, 2 ... each with its own split and noise")] = 1,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="change the study: privacy.epsilon=1")
    ] = None,
    kind: Annotated[
        list[Kind] | None, typer.Option(help="once or more: a federation, or all patients pooled, or each site alone")
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(min=1, help=f"stop when log-loss has not improved for so many rounds; {PUBLIC_ONLY}"),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="processes; by default one for each core")] = None,
    out: Annotated[Path | None, typer.Option(help="a folder for results, metrics and seed 0's final model")] = None,
) -> None:
    """Run a study's rounds on this machine with every site's data, by the functions that the scheduled steps call.

    The figures are over the held-out patients of all sites together, which only somebody who holds them all can
    compute; nobody but the caller sees them. Nothing is written but what --out names.
    """
    from rich.console import Console

    from tasks.simulation.runs import changed, run_all
    from tasks.simulation.summary import summary_table, write_results

    config = changed(_load(study), _changes(set_ or []))
    console, errors = Console(), Console(stderr=True)
    if not config.evaluation.data_are_public:
        errors.print(f"The data of {config.study} are not public: these figures pool patients of all sites. Keep them.")
    with bar("rounds", errors) as show:
        runs = run_all(
            config,
            _settings(config, rounds, kind or [Kind.federated]),
            range(seeds),
            workers=workers,
            patience=patience,
            models_of=0,
            progress=show,
        )
    console.print(summary_table([run.result for run in runs]))
    if out is not None:
        write_results(out, runs)
        console.print(f"results  {out}", soft_wrap=True)


def _load(study: str) -> Study:
    """By name, as all commands take it, or by path."""
    from tasks.store import settings
    from tasks.study.file import load_study

    by_path = "/" in study or study.endswith((".yaml", ".yml"))
    return load_study(Path(study) if by_path else settings.project_dir() / "studies" / f"{study}.yaml")


def _changes(assignments: list[str]) -> dict[str, Any]:
    """KEY=VALUE with the value read as YAML: 1, text, null or {mechanism: none, ...}."""
    import yaml

    from tasks.errors import ConfigError

    changes = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not (key and equals):
            raise ConfigError(f"--set {assignment}: give a dotted key of the study and a value: privacy.epsilon=1")
        try:
            changes[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"--set {assignment}: the value cannot be read as YAML") from None
    return changes


def _settings(study: Study, rounds: int | None, kinds: Sequence[Kind]) -> list[Setting]:
    from tasks.simulation.runs import Setting

    rounds = rounds or study.rounds.total
    return [
        Setting.model_validate({"name": kind.value, "kind": kind.value, "rounds": rounds})
        for kind in dict.fromkeys(kinds)
    ]
