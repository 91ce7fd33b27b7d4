"""`pharmafed experiments`: the paper's experiments, one file of numbers each, and what is made from them.

Errors are shown by the command that mounts `app`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tasks.deploy.commands.progress import bar

app = typer.Typer(no_args_is_help=True, help="Run the paper's experiments and write what they found.")
NumbersFolder = Annotated[Path, typer.Option(help="the folder of the experiments' JSON files")]
_NUMBERS = Path("results/experiments")


@app.command("list")
def run_list() -> None:
    """Name the experiments."""
    from tasks.simulation.experiments.plan import EXPERIMENTS

    for one in EXPERIMENTS.values():
        typer.echo(f"{one.name:20}  {one.title} ({len(one.settings)} settings)")


@app.command("run")
def run_experiments(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="which; by default all")] = None,
    seeds: Annotated[
        int | None, typer.Option(min=2, help="how many: 0, 1, 2 ...; by default as the plan has it")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="processes; by default one for each core")] = None,
    out: NumbersFolder = _NUMBERS,
) -> None:
    """Run experiments, each into OUT/NAME.json."""
    import time

    from tasks.simulation.experiments import files, plan, run

    for name in names or plan.EXPERIMENTS:
        started = time.monotonic()
        with bar(name) as show:
            files.write(out / f"{name}.json", run.run(name, None if seeds is None else range(seeds), workers, show))
        typer.echo(f"{name}: {time.monotonic() - started:.0f} s")


@app.command("cohort")
def count_patients(out: NumbersFolder = _NUMBERS) -> None:
    """Count who takes part into OUT/cohort.json."""
    from tasks.simulation.experiments import files, run

    files.write(out / files.COHORT, run.cohort(run.base_study()))


@app.command("findings")
def write_findings(
    numbers: NumbersFolder = _NUMBERS,
    page: Annotated[
        Path, typer.Option(help="the page to write; its figures go into the folder of its name beside it")
    ] = Path("docs/findings.md"),
    out: Annotated[Path, typer.Option(help="a folder for metrics.json, DVC's plots, and the figures as PNG")] = Path(
        "results/findings"
    ),
) -> None:
    """Draw the figures and write the page of findings, from the numbers alone."""
    from tasks.simulation.experiments import files, findings, gallery, metrics

    measured, cohort = files.read(numbers)
    pictures = gallery.draw(measured, cohort)
    drawn = [one for picture in pictures for one in picture.files.items()]
    for old in list(page.with_suffix("").glob("findings-*.svg")):
        if old.name not in dict(drawn):
            old.unlink()
    for name, content in drawn:
        _write((page.with_suffix("") if name.endswith(".svg") else out / "figures") / name, content)
    _write(page, findings.page(measured, cohort, pictures, images=page.stem).encode())
    files.write(out / "metrics.json", metrics.metrics(measured))
    for name, points in metrics.plots(measured).items():
        files.write(out / name, points)
    for claim, verdict in metrics.verdicts(measured).items():
        typer.echo(f"{claim}: {verdict}")


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
