"""`pharmafed exam`: build or import an exam, ask a model, score, compare, report. `tasks.cli` shows the errors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tasks.deploy.commands.progress import bar
from tasks.errors import ConfigError
from tasks.exam.page.terminal import print_comparison, print_scores

if TYPE_CHECKING:
    from tasks.exam.bank.records import Exam

app = typer.Typer(no_args_is_help=True, help="Examinations for language models: ask, score, compare.")
EXIT_DRIFT = 1
_NO_HISTORY = "none: the folder lies by itself, without other runs of its model"
Folder = Annotated[Path, typer.Argument(help="a run's folder, with run.json and responses.jsonl")]


@app.command()
def prepare() -> None:
    """Build the project's own exam in data/exams/practice."""
    from tasks.exam.bank.import_report import report_on
    from tasks.exam.bank.practice import build_practice
    from tasks.exam.evaluate import data_dir

    typer.echo(report_on(build_practice(data_dir())).table())


@app.command("import")
def import_from(
    path: Annotated[Path, typer.Argument(help="a folder in YakugakuQA's layout")],
    exam: Annotated[str, typer.Option(help="its number, such as 107")],
    images: Annotated[Path | None, typer.Option(help="a folder of <problem_id>*.png")] = None,
    corrections: Annotated[
        Path | None, typer.Option(help="a YAML list of what the published files have wrong, kept with every run")
    ] = None,
    diagrams: Annotated[
        Path | None, typer.Option(help="the items that count as having a diagram, instead of those not text_only")
    ] = None,
) -> None:
    """Import an exam to data/exams/<exam> and say what was done."""
    from tasks.exam.bank.importer import import_exam
    from tasks.exam.bank.items import exam_folder, save_exam
    from tasks.exam.evaluate import data_dir

    imported, report = import_exam(path, exam, images=images, corrections=corrections, diagrams=diagrams)
    save_exam(imported, exam_folder(data_dir(), imported.id), images=images)
    typer.echo(report.table())


@app.command("ask")
def ask_model(
    exam: Annotated[str, typer.Argument(help="an exam in data/exams, such as practice")],
    model: Annotated[str, typer.Option(help="as inspect names it, or pharmafed/smollm2, which needs no key")],
    language: Annotated[Literal["ja", "en"], typer.Option()] = "ja",
    prompt: Annotated[
        str | None, typer.Option(help="exams/prompts/<language>/<prompt>.yaml; decided by the model unless given")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="how often each item is asked")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="only so many items, from the first")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0 unless given")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="of one reply; by the model unless given")] = None,
    images: Annotated[bool | None, typer.Option(help="send diagrams; decided by the model unless given")] = None,
    leave: Annotated[
        list[str] | None, typer.Option(help="an item that never works, by id or number: the rest is scored as a range")
    ] = None,
    new: Annotated[bool, typer.Option("--new", help="begin a run even where one was not finished")] = False,
    out: Annotated[Path | None, typer.Option(help="the run's folder; an unfinished run there goes on")] = None,
) -> None:
    """Ask a model an exam, score it, compare it with the model's last run, and report; exit code 1 when it has drifted.

    The same command again goes on with its run that was not finished.
    """
    from tasks.errors import DriftFound
    from tasks.exam.comparing.archive import load_scored
    from tasks.exam.comparing.drift import check_drift
    from tasks.exam.evaluate import evaluate, new_run_id

    with bar("answers") as show:
        found = evaluate(
            exam,
            model,
            language,
            prompt=prompt,
            epochs=epochs,
            limit=limit,
            temperature=temperature,
            max_tokens=max_tokens,
            images=images,
            leave=leave or (),
            run_id=new_run_id() if new else None,
            out=out,
            progress=show,
            tell=show.note,
        )
    print_scores(load_scored(_exam_of(found.folder), found.folder).scores)
    typer.echo(f"report   {found.folder / 'report.html'}")
    typer.echo(f"history  {found.history or _NO_HISTORY}")
    try:
        typer.echo(check_drift(found.folder))
    except DriftFound as error:
        typer.echo(str(error))
        raise typer.Exit(EXIT_DRIFT) from None


@app.command()
def score(
    folder: Folder,
    out: Annotated[Path | None, typer.Option(help="write the figures there as metrics, and not to the folder")] = None,
) -> None:
    """Score a saved run again, offline."""
    from tasks.exam.comparing.archive import load_scored, score_folder
    from tasks.store.objects import to_json

    scored = load_scored if out else score_folder
    scores = scored(_exam_of(folder), folder).scores
    if out is not None:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_bytes(to_json(scores.metrics()))
        except OSError as error:
            raise ConfigError(f"{out} cannot be written ({error.strerror}): name a file that can be") from None
    print_scores(scores)


@app.command()
def report(folder: Folder) -> None:
    """Write a saved run's report again, and its model's history, offline."""
    from tasks.exam.bank.items import exam_folder
    from tasks.exam.comparing.archive import COMPARISON, load_scored
    from tasks.exam.comparing.drift import compare_with_earlier
    from tasks.exam.evaluate import data_dir
    from tasks.exam.page.files import write_history, write_report

    exam = _exam_of(folder)
    if not (folder / COMPARISON).exists():
        compare_with_earlier(exam, folder, load_scored(exam, folder))
    typer.echo(f"report   {write_report(exam, exam_folder(data_dir(), exam.id) / 'images', folder)}")
    typer.echo(f"history  {write_history(exam, folder) or _NO_HISTORY}")


@app.command("compare")
def compare_runs(
    a: Annotated[Path, typer.Argument(help="folder of the earlier run, or of the other model or arm")],
    b: Folder,
    alpha: Annotated[float, typer.Option(min=1e-6, max=0.5, help="level of the exact test")] = 0.05,
) -> None:
    """Compare two runs item by item; exit code 1 when a model has drifted."""
    from tasks.exam.comparing.archive import load_scored
    from tasks.exam.comparing.compare import compare

    exam = _exam_of(b)
    found = compare(exam, load_scored(exam, a), load_scored(exam, b), alpha=alpha)
    print_comparison(exam, found)
    if found.decision.verdict == "drift":
        raise typer.Exit(EXIT_DRIFT)


def _exam_of(folder: Path) -> Exam:
    from tasks.exam.bank.items import exam_folder, load_exam
    from tasks.exam.evaluate import data_dir
    from tasks.exam.runs.run_files import load_run

    return load_exam(exam_folder(data_dir(), load_run(folder)[0].settings.exam))
