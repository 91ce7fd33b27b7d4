"""`pharmafed privacy`: what the budget was spent on. Errors are shown by the command that mounts `app`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tasks.store import settings

if TYPE_CHECKING:
    from tasks.privacy.ledger.verification import ChainReport

app = typer.Typer(no_args_is_help=True, help="What the privacy budget was spent on, and the proof of it.")
EXIT_BROKEN = 1
_SHOWN = 10
StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="a study's name, as in studies/<name>.yaml")]
AsJson = Annotated[bool, typer.Option("--json", help="for machines")]


@app.command()
def spend(study: StudyName, as_json: AsJson = False) -> None:
    """Show what each site has spent and what is left; exit code 1 when a ledger or a pin cannot be trusted."""
    from datetime import UTC, datetime

    from rich.console import Console

    from tasks.privacy.ledger.spend_table import read_spend, spend_table
    from tasks.store.objects import hub_store
    from tasks.study.file import load_study

    config = load_study(settings.project_dir() / "studies" / f"{study}.yaml")
    found = read_spend(hub_store(), config, datetime.now(UTC))
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        Console().print(spend_table(found))
        typer.echo(f"{found.promise}\n{found.outlook}")
    for row in found.broken:
        _print_problems(row.site, row.problems)
    _print_unread(found.unread)
    if found.broken or found.unread:
        raise typer.Exit(EXIT_BROKEN)


@app.command()
def export(
    study: StudyName,
    to: Annotated[Path, typer.Option("--to", help="a new folder")],
) -> None:
    """Write ledgers, certificates and the hub's anchors to a folder that anybody can verify offline."""
    from tasks.privacy.ledger import evidence
    from tasks.store.objects import hub_store

    sites = evidence.export(hub_store(), study, to)
    entries = sum(len(found.bodies) for found in sites.values())
    typer.echo(f"{entries} entries of {len(sites)} sites are in {to}. Verify: pharmafed privacy verify {to}")
    if unread := evidence.unread_of(sites.values()):
        _print_unread(unread)
        raise typer.Exit(EXIT_BROKEN)


@app.command()
def verify(folder: Annotated[Path, typer.Argument(help="what `export` has written")], as_json: AsJson = False) -> None:
    """Verify exported ledgers: no deployment, store or network is needed. Exit code 1 when one is broken."""
    from tasks.privacy.ledger.evidence import load, unread_of

    evidence = load(folder).values()
    reports, unread = [found.verify() for found in evidence], unread_of(evidence)
    if as_json:
        typer.echo(json.dumps([report.model_dump(mode="json") for report in reports], indent=2))
    else:
        _print_reports(reports, folder)
    for report in reports:
        _print_problems(str(report.site), report.problems)
    _print_unread(unread)
    if unread or any(report.problems for report in reports):
        raise typer.Exit(EXIT_BROKEN)


@app.command()
def audit(
    study: StudyName,
    seed: Annotated[int, typer.Option(min=0, help="of splits, coins and starts; the noise is always fresh")] = 0,
) -> None:
    """Attack what the study would upload, and compare with what its ledger says; exit code 1 when it is broken."""
    from rich.console import Console
    from rich.progress import Progress

    from tasks.privacy.audit.study_audit import audit_study, publish_audit
    from tasks.rounds.pooled import public_patients
    from tasks.store.objects import hub_store
    from tasks.study.file import load_study

    config = load_study(settings.project_dir() / "studies" / f"{study}.yaml")
    with Progress(console=Console(stderr=True), transient=True) as bar:
        row = bar.add_task("Audit", total=1.0)
        found = audit_study(
            config,
            public_patients(config),
            seed=seed,
            progress=lambda what, share: bar.update(row, description=what, completed=share),
        )
    page = publish_audit(found, hub_store() if settings.is_deployed() else None)
    for finding in found.findings:
        typer.echo(f"{finding.attack}: {finding.outcome}. {finding.words}")
    typer.echo(f"{found.words}\nreport  {page}")
    if not found.passed:
        raise typer.Exit(EXIT_BROKEN)


@app.command("ckks-key")
def ckks_key(to: Annotated[Path, typer.Argument(help="where the key goes: a site's folder of secrets")]) -> None:
    """Make the sites' key of a study with `channel: ckks`. One site runs it and hands the file to the others."""
    from tasks.errors import ConfigError
    from tasks.privacy.secure_sum import ckks
    from tasks.store.files import write_private

    if to.exists():
        raise ConfigError(f"{to} exists: a second key would lock the sites out of each other's sums")
    write_private(to, ckks.make_key())
    typer.echo(f"{to}: hand it to every other site of the study, and never to the hub")


def _print_reports(reports: list[ChainReport], folder: Path) -> None:
    from rich.console import Console

    from tasks.privacy.ledger.spend_table import chain_table

    Console().print(chain_table(reports, title=f"Privacy ledgers in {folder}"))
    typer.echo(
        "Checked: every entry's order, link, round, settings, total and budget; the newest entry's signature, which "
        "covers all before it; and every digest that the hub pinned."
    )


def _print_unread(unread: tuple[str, ...]) -> None:
    for line in unread:
        typer.echo(f"not checked, what the hub has pinned in one round: {line}", err=True)


def _print_problems(site: str, problems: tuple[str, ...]) -> None:
    for problem in problems[:_SHOWN]:
        typer.echo(f"site {site}: {problem}", err=True)
    if len(problems) > _SHOWN:
        typer.echo(f"site {site}: and {len(problems) - _SHOWN} more problems", err=True)
