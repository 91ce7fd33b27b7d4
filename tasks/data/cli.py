"""`pharmafed data`: prepare, pin and verify the sites' folders. Errors are shown by the command that mounts `app`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tasks import settings
from tasks.data import pin as pins

app = typer.Typer(no_args_is_help=True, help="Prepare, pin and verify the sites' data.")
EXIT_DIFFERS = 2
Force = Annotated[bool, typer.Option("--force", help="Replace folders whose content differs.")]


def _data_dir() -> Path:
    return settings.project_dir() / "data"


@app.command("prepare")
def run_prepare(force: Force = False) -> None:
    """Write every site's tables from the CDISC pilot trial into data/sites/."""
    from tasks.data.prepare import prepare  # pandas

    summary = prepare(_data_dir(), force=force)
    table = Table("site", "patients", "rows", "bytes", "")
    for site in summary.sites:
        state = "written" if site.written else "unchanged"
        table.add_row(site.site, str(site.patients), f"{site.rows:,}", f"{site.bytes:,}", state)
    Console().print(table)


@app.command()
def pin() -> None:
    """Pin the folder data/ with DVC: writes data.dvc, to be committed."""
    pinned = pins.write_pin(_data_dir())
    typer.echo(f"data.dvc pins {len(pinned.files)} files of {len(pinned.sites)} sites as {pinned.digest}")


@app.command()
def verify() -> None:
    """Compare every site's folder with data.dvc. Exit code 2 if anything differs."""
    data_dir = _data_dir()
    pin_file = data_dir.with_name("data.dvc")
    versions = pins.site_versions(pin_file)
    differences = pins.verify(data_dir, pin_file)
    Console().print(_verify_table(data_dir / pins.SITES, versions, {d.site for d in differences}))
    for difference in differences:
        typer.echo(str(difference), err=True)
    if differences:
        typer.echo(f"{len(differences)} files differ; {pins.RESTORE}; {pins.REPIN}", err=True)
        raise typer.Exit(EXIT_DIFFERS)


def _verify_table(sites: Path, versions: dict[str, str], differing: set[str]) -> Table:
    table = Table("site", "rows", "bytes", "pinned digest", "")
    for site in sorted(versions.keys() | {name for name in differing if name}):
        files = sorted((sites / site).glob("*.csv"))
        rows = sum(max(path.read_bytes().count(b"\n") - 1, 0) for path in files)
        size = sum(path.stat().st_size for path in files)
        state = "[red]differs[/red]" if site in differing else "ok"
        table.add_row(site, f"{rows:,}", f"{size:,}", versions.get(site, "not pinned"), state)
    return table
