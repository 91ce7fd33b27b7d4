"""The `pharmafed` command. Imports of any weight happen inside the commands, so that `--help` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from tasks.deploy.commands.data import app as data_app
from tasks.deploy.commands.exam import app as exam_app
from tasks.deploy.commands.experiments import app as experiments_app
from tasks.deploy.commands.privacy import app as privacy_app
from tasks.deploy.commands.simulate import simulate
from tasks.deploy.commands.study import app as study_app
from tasks.errors import ConfigError, PharmafedError
from tasks.store import disk, settings

if TYPE_CHECKING:
    from tasks.deploy.overview import Status

USAGE_ERROR = 2
INTERRUPTED = 130


class ErrorPanelGroup(TyperGroup):
    """Shows pharmafed's own errors as one panel on stderr, exit code 2; other errors keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except PharmafedError as error:
            show_error(error)
            raise typer.Exit(USAGE_ERROR) from None
        except OSError as error:
            if error.errno not in disk.FULL:
                raise
            where = error.filename or settings.home()
            show_error(ConfigError(f"no room on the disk of {where}: {disk.REMEDY}, then run the command again"))
            raise typer.Exit(USAGE_ERROR) from None


app = typer.Typer(
    name="pharmafed",
    help="Federated learning on clinical-trial data under a privacy budget.",
    cls=ErrorPanelGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


app.add_typer(data_app, name="data")
app.add_typer(privacy_app, name="privacy")
app.add_typer(study_app, name="study")
app.command()(simulate)
app.add_typer(experiments_app, name="experiments")
app.add_typer(exam_app, name="exam")


def show_error(error: PharmafedError) -> None:
    """Print the error as a panel on stderr."""
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    title = type(error).__name__
    Console(stderr=True).print(Panel(Text(str(error)), title=title, title_align="left", border_style="red"))


@app.command()
def up(
    ports: Annotated[Literal["default", "auto"], typer.Option(help="auto takes any free ports")] = "default",
    dags: Annotated[Path | None, typer.Option(help="another folder of DAGs than the project's")] = None,
) -> None:
    """Start the object store and Airflow on this machine, or say that they run."""
    from rich.console import Console

    from tasks.deploy import local
    from tasks.deploy.enrol import enrol_local_sites
    from tasks.study.file import load_studies

    studies = load_studies(settings.project_dir() / "studies")
    result = local.up(
        settings.home(),
        settings.project_dir(),
        {name: list(study.sites) for name, study in studies.items()},
        enrol=enrol_local_sites,
        auto_ports=ports == "auto",
        dags_folder=dags.resolve() if dags else None,
        console=Console(stderr=True),
    )
    try:
        local.offer_dvc_remote(settings.home(), settings.project_dir(), result.addresses.s3_endpoint)
    except ConfigError as error:  # the deployment works without it
        show_error(error)
    typer.echo("Already running." if result.was_running else f"Up after {result.seconds:.0f} s.")
    _print_addresses(show_password=False)


@app.command()
def down() -> None:
    """Stop everything that `up` started; data stays."""
    from tasks.deploy import local

    stopped = local.down(settings.home())
    typer.echo(f"Stopped {stopped} processes." if stopped else "Nothing was running.")


@app.command()
def status(
    show_password: Annotated[bool, typer.Option("--show-password", help="print the web UI's password")] = False,
) -> None:
    """Show what runs and whether it works; exit code 1 when something does not."""
    from tasks.deploy import overview

    found = overview.status(settings.home())
    if not found.running:
        typer.echo(f"Nothing runs in {settings.home()}")
        raise typer.Exit(1)
    _print_services(found)
    if settings.is_deployed():
        _print_addresses(show_password)
    if not found.well:
        raise typer.Exit(1)


@app.command("round")
def run_round(
    study: Annotated[str, typer.Argument(help="a study's name, as in studies/<name>.yaml")],
    rounds: Annotated[int, typer.Option(min=1, help="how many rounds to run, one after the other")] = 1,
    min_sites: Annotated[int | None, typer.Option(min=1, help="quorum for these rounds")] = None,
    note: Annotated[str, typer.Option(help="kept with the run")] = "",
) -> None:
    """Trigger rounds of a study in Airflow, follow them, and print what they brought."""
    from rich.console import Console

    from tasks.deploy import airflow, follow, overview
    from tasks.deploy.airflow_api import AirflowApi
    from tasks.rounds.hub.context import HubContext

    hub = HubContext.load(study)
    overview.require_running(settings.home())
    console = Console()
    login = airflow.ui_login(settings.home())
    with AirflowApi(settings.addresses().airflow_url, login["username"], login["password"]) as api:
        try:
            closed = follow.run_rounds(api, hub, rounds, min_sites=min_sites, note=note, console=console)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
    console.print(follow.result_table(closed))
    newest = closed[-1]
    report = settings.home() / "reports" / study / f"{newest.server_round:04d}" / "report.html"
    console.print(f"report  {report}", soft_wrap=True)
    console.print(f"web UI  {settings.addresses().airflow_url}/dags/{follow.dag_id(study)}", soft_wrap=True)
    follow.require_models(closed)


@app.command()
def repair(
    study: Annotated[str, typer.Argument(help="a study's name, as in studies/<name>.yaml")],
    write: Annotated[bool, typer.Option("--write", help="write it without asking")] = False,
    newest: Annotated[int | None, typer.Option(min=0, help="the newest model's round, where it is left open")] = None,
) -> None:
    """Make a lost or damaged latest.json anew from the models' signed cards; shows it before it is written."""
    import sys

    from tasks.rounds.hub.context import HubContext
    from tasks.rounds.hub.repair import find_repair, write_repair
    from tasks.store.objects import to_json

    hub = HubContext.load(study)
    found = find_repair(hub, newest)
    rounds = " → ".join(map(str, found.chain))
    typer.echo(f"Checked: signatures and links of the cards of rounds {rounds}, and the bytes of the newest model.")
    if not found.problem:
        typer.echo(f"The latest.json of {study} is as they have it: nothing to repair.")
        return
    typer.echo(
        f"The latest.json of {study} {found.problem}. It should be:\n{to_json(found.pointer).decode()}", nl=False
    )
    if not write and not (sys.stdin.isatty() and typer.confirm("Write it?")):
        typer.echo("Nothing is written: `--write` does it.")
        raise typer.Exit(1)
    write_repair(hub, found)
    typer.echo(f"Written: the next round of {study} starts from the model of round {found.pointer.server_round}.")


def _print_services(found: Status) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("service", "process", "works", "pid", "restarts")
    for service in found.services:
        works = "yes" if service.works else "no"
        table.add_row(service.name, service.process, works, str(service.pid or "-"), str(service.restarts))
    Console().print(table)
    if not found.supervised:
        typer.echo(
            f"The supervisor does not run, {found.running} processes do: what ends now is not started again.\n"
            "Run `pharmafed down`, then `pharmafed up`; data stay, and an open round is taken up again."
        )
    for warning in found.warnings:
        typer.echo(f"! {warning}")


def _print_addresses(show_password: bool) -> None:
    from tasks.deploy import airflow

    where = settings.addresses()
    login = airflow.ui_login(settings.home())
    password = login["password"] if show_password else f"in {airflow.ui_file(settings.home())}"
    typer.echo(f"web UI        {where.airflow_url}")
    typer.echo(f"  user        {login['username']}")
    typer.echo(f"  password    {password}")
    typer.echo(f"object store  {where.s3_endpoint}, bucket {where.bucket}")


def main() -> None:
    """Entry point of the `pharmafed` command."""
    app()


if __name__ == "__main__":
    main()
