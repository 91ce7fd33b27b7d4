"""`pharmafed data`: prepare, pin and verify the sites' folders. Errors are shown by the command that mounts `app`."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from tasks.data import pin as pins
from tasks.foreign.files import listed
from tasks.store import settings

if TYPE_CHECKING:
    from tasks.data.checks.runner import ValidationResult

app = typer.Typer(no_args_is_help=True, help="Prepare, pin and verify the sites' data.")
EXIT_DIFFERS = 2
IF_IDLE = (
    "correct its row condition or column in the suite; where there are no such rows yet, say "
    '"may_check_nothing": true in its meta'
)
Force = Annotated[bool, typer.Option("--force", help="Replace folders whose content differs.")]


def _data_dir() -> Path:
    return settings.project_dir() / "data"


@app.command("prepare")
def run_prepare(force: Force = False) -> None:
    """Write every site's tables from the CDISC pilot trial into data/sites/, and our own exam into data/exams/."""
    from tasks.data.cdisc import prepare  # pandas
    from tasks.exam.bank.practice import build_practice  # matplotlib

    summary = prepare(_data_dir(), force=force)
    table = Table("site", "patients", "rows", "bytes", "")
    for site in summary.sites:
        state = "written" if site.written else "unchanged"
        table.add_row(site.site, str(site.patients), f"{site.rows:,}", f"{site.bytes:,}", state)
    Console().print(table)
    exam = build_practice(_data_dir())
    typer.echo(f"data/exams/{exam.id}: {len(exam.items)} items")


@app.command()
def pin() -> None:
    """Pin the folder data/ with DVC: writes data.dvc, to be committed."""
    pinned = pins.write_pin(_data_dir())
    exams = len(pinned.folders) - len(pinned.sites)
    typer.echo(
        f"data.dvc pins {len(pinned.files)} files of {len(pinned.sites)} sites and {exams} exams as {pinned.digest}"
    )


@app.command()
def verify() -> None:
    """Compare every site's and exam's folder with data.dvc. Exit code 2 if anything differs."""
    data_dir = _data_dir()
    pin_file = data_dir.with_name("data.dvc")
    pinned = pins.read_pin(pin_file)
    differences = pins.verify(data_dir, pin_file)
    Console().print(_verify_table(data_dir, pinned, {difference.folder for difference in differences}))
    for difference in differences:
        typer.echo(str(difference), err=True)
    if differences:
        typer.echo(f"{len(differences)} files differ; {pins.RESTORE}; {pins.REPIN}", err=True)
        raise typer.Exit(EXIT_DIFFERS)


def _verify_table(data_dir: Path, pin: pins.Pin, differing: set[str]) -> Table:
    table = Table("folder", "files", "bytes", "pinned digest", "")
    for folder in sorted({*pin.folders, *pins.folders_in(data_dir)}):
        sizes = [path.stat().st_size for path in listed(data_dir / folder, "**/*") if path.is_file()]
        digest = pins.listing_digest(pin.folder_files(folder))[:12] if folder in pin.folders else "not pinned"
        state = "[red]differs[/red]" if folder in differing else "ok"
        table.add_row(folder, str(len(sizes)), f"{sum(sizes):,}", digest, state)
    return table


@app.command()
def check(
    study: Annotated[str, typer.Argument(help="a study's name, as in studies/<name>.yaml")],
    out: Annotated[Path | None, typer.Option(help="write the outcome of every site as JSON")] = None,
    site: Annotated[list[str] | None, typer.Option(help="only this site, as on its own machine")] = None,
) -> None:
    """Run every expectation on every site's data. Exit code 2 if one fails, or looks at no row at any site."""
    from tasks.data.checks.runner import at_every_site
    from tasks.rounds.site.context import SiteContext  # torch
    from tasks.rounds.site.validation import check_site
    from tasks.study.file import load_study

    sites = load_study(settings.project_dir() / "studies" / f"{study}.yaml").sites
    results = [check_site(SiteContext.load(study, name, connect=False)) for name in site or sites]
    idle = at_every_site(results, "none")
    are_all = {result.site for result in results} == set(sites)
    table = Table("site", "expectations", "waived", "failed", "check nothing")
    for result in results:
        counts = (result.checks, result.waived, result.failures, result.checking_nothing)
        table.add_row(result.site, *(str(len(count)) for count in counts))
    Console().print(table)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({result.site: _outcome(result, idle) for result in results}, indent=1) + "\n")
    for failed in (result for result in results if not result.success):
        typer.echo(f"{failed.site}: {', '.join(check.id for check in failed.failures)}", err=True)
    for check_id in idle:
        who = "no site has a row for it" if are_all else "no row here, which may be right for some of the sites"
        typer.echo(f"{check_id}: checks nothing: {who}; {IF_IDLE}", err=True)
    if (idle and are_all) or not all(result.success for result in results):
        raise typer.Exit(EXIT_DIFFERS)


def _outcome(result: ValidationResult, idle: Collection[str]) -> dict[str, int | bool]:
    """`checks_nothing` stands only where an expectation looks at no row at any site."""
    return {
        "success": result.success,
        "expectations": len(result.checks),
        "waived": len(result.waived),
        "failed": len(result.failures),
        **({"checks_nothing": len(idle)} if idle else {}),
    }
