"""`pharmafed study`: draft a study from a folder of tables. Errors are shown by the command that mounts `app`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tasks.store import settings
from tasks.study.privacy import noise_shares

if TYPE_CHECKING:
    from tasks.data.checks.runner import ValidationResult
    from tasks.data.drafting.draft import Draft
    from tasks.study.sections import Study

app = typer.Typer(no_args_is_help=True)


@app.callback()
def study() -> None:
    """Draft a study of your own."""


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="a folder with one sub-folder per site, each with the same CSV files")],
    label: Annotated[
        str | None,
        typer.Option(
            metavar="TABLE.COLUMN[=VALUE]", help="the outcome, and its positive value; also >=VALUE and <=VALUE"
        ),
    ] = None,
    subject: Annotated[str | None, typer.Option(metavar="COLUMN", help="the column that names the patient")] = None,
    name: Annotated[str | None, typer.Option(help="the study's name; by default the folder's")] = None,
    title: Annotated[str | None, typer.Option(help="one line for people")] = None,
    epsilon: Annotated[float, typer.Option(help="privacy budget, total over all rounds")] = 3.0,
    rounds: Annotated[int, typer.Option(help="how many rounds the budget pays for")] = 20,
    missing: Annotated[
        list[str] | None, typer.Option(metavar="[TABLE.COLUMN=]CODE", help="cells that stand for no value")
    ] = None,
    below_limit: Annotated[
        list[str] | None,
        typer.Option(metavar="[TABLE.COLUMN=]half|limit|missing", help="what <0.3 is read as"),
    ] = None,
    above_limit: Annotated[
        list[str] | None, typer.Option(metavar="[TABLE.COLUMN=]limit|missing", help="what >90 is read as")
    ] = None,
    decimal: Annotated[
        list[str] | None, typer.Option(metavar="[TABLE.COLUMN=]comma|either", help="3,5 is three and a half")
    ] = None,
    same: Annotated[
        list[str] | None,
        typer.Option(metavar="[TABLE.COLUMN:]VALUE=OTHER,OTHER", help="other spellings of a value: Y=Yes,y"),
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option(metavar="TABLE.COLUMN", help="a column whose cells are right as they stand")
    ] = None,
) -> None:
    """Write a study file and a suite per table, drafted from the data, and copy the tables to data/studies/.

    Options about cells may be given several times. They stand in the study file afterwards (data.reading), and every
    site reads its files by them.
    """
    from tasks.data.drafting.check import check_sites
    from tasks.data.drafting.draft import DraftOptions, draft_study, study_name
    from tasks.data.drafting.place import place, refuse_taken
    from tasks.data.drafting.told import ToldOptions

    project = settings.project_dir()
    told = [tuple(texts or ()) for texts in (missing, below_limit, above_limit, decimal, same, keep)]
    options = DraftOptions(label, subject, name, title, epsilon, rounds, ToldOptions(*told))
    refuse_taken(path, study_name(path, options), project)
    draft = draft_study(path, options, project / "expectations")
    written = place(draft, project)
    _tell(draft, written)
    results = check_sites(draft.study, project)
    _print_sites(draft, results)
    if not all(result.success for result in results.values()):
        raise typer.Exit(1)


def _tell(draft: Draft, written: list[str]) -> None:
    study, outcome = draft.study, draft.outcome
    drafted = f"{draft.num_drafted} with a drafted centre and scale, " if draft.num_drafted else ""
    rows = {
        "label": f"{outcome}: {outcome.why}",
        "subject": f"{draft.subjects.column}, each once in {draft.subjects.main}",
        "inputs": f"{len(study.inputs)}, {drafted}{len(draft.left_out)} columns left out: the study file says why",
        "privacy": f"{study.privacy.mechanism}, channel {study.channel.name}{_dropouts(study)}",
    }
    if draft.num_with_gaps:
        rows["gaps"] = f"{draft.num_with_gaps} inputs that a site lacks in many patients, with inputs that say where"
    for key, text in rows.items():
        typer.echo(f"{key:<8}  {text}")
    for note in draft.notes:
        typer.echo(f"note      {note}")
    tables = [path for path in written if path.endswith(".csv")]
    for line in [path for path in written if path not in tables]:
        typer.echo(f"wrote     {line}")
    typer.echo(f"copied    {len(tables)} CSV files to {study.data.root}/" if tables else "copied    nothing new")


def _dropouts(study: Study) -> str:
    lost, _ = noise_shares(study.privacy)
    return "; a site lost within a round costs the round" if study.channel.joins and not lost else ""


def _print_sites(draft: Draft, results: dict[str, ValidationResult]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("site", "patients", "expectations", "")
    for site, result in results.items():
        idle = len(result.checking_nothing)
        passed = f"{len(result.checks) - len(result.failures) - idle} of {len(result.checks)}"
        told = [check.id for check in result.failures] or ["pass"]
        told += [f"{idle} check nothing: the site has no row for them"] if idle else []
        table.add_row(site, str(draft.subjects.patients[site]), passed, ", ".join(told))
    Console().print(table)
