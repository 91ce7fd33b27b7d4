"""`pharmafed exam`: build or import an exam, ask a model, score, compare, report. `tasks.cli` shows the errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tasks.progress import bar

if TYPE_CHECKING:
    from tasks.exam.comparison_records import Comparison, Flip, Side
    from tasks.exam.records import Exam
    from tasks.exam.score_records import Scores, Tally

app = typer.Typer(no_args_is_help=True, help="Examinations for language models: ask, score, compare.")
EXIT_DRIFT = 1
Folder = Annotated[Path, typer.Argument(help="a run's folder, with run.json and responses.jsonl")]


@app.command()
def prepare() -> None:
    """Build the project's own exam in data/exams/practice."""
    from tasks.exam.evaluate import data_dir
    from tasks.exam.import_report import report_on
    from tasks.exam.practice import build_practice

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
    from tasks.exam.evaluate import data_dir
    from tasks.exam.importer import import_exam
    from tasks.exam.items import exam_folder, save_exam

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
    out: Annotated[Path | None, typer.Option(help="the run's folder; an unfinished run there goes on")] = None,
) -> None:
    """Ask a model an exam, score its answers, and write the report."""
    from tasks import settings
    from tasks.exam import asking
    from tasks.exam.archive import run_folder, score_folder
    from tasks.exam.evaluate import data_dir, new_run_id, settings_for
    from tasks.exam.items import exam_folder, load_exam

    source = exam_folder(data_dir(), exam)
    loaded = load_exam(source)
    asked = settings_for(
        loaded,
        model,
        language,
        prompt=prompt,
        epochs=epochs,
        limit=limit,
        temperature=temperature,
        max_tokens=max_tokens,
        images=images,
    )
    folder = out or run_folder(settings.home(), exam, model, language, new_run_id())
    typer.echo(f"run  {folder}", err=True)
    with bar("answers") as show:
        asking.ask(loaded, source / "images", asked, folder, progress=show)
    _print_scores(score_folder(loaded, folder).scores)
    _write_reports(loaded, folder)


@app.command()
def score(
    folder: Folder,
    out: Annotated[Path | None, typer.Option(help="write the figures there as metrics, and not to the folder")] = None,
) -> None:
    """Score a saved run again, offline."""
    from tasks.exam.archive import load_scored, score_folder
    from tasks.storage import to_json

    scored = load_scored if out else score_folder
    scores = scored(_exam_of(folder), folder).scores
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(to_json(scores.metrics()))
    _print_scores(scores)


@app.command()
def report(folder: Folder) -> None:
    """Write a saved run's report again, and its model's history, offline."""
    _write_reports(_exam_of(folder), folder)


def _write_reports(exam: Exam, folder: Path) -> None:
    from tasks.exam.evaluate import data_dir
    from tasks.exam.items import exam_folder
    from tasks.exam.report_files import write_history, write_report

    typer.echo(f"report   {write_report(exam, exam_folder(data_dir(), exam.id) / 'images', folder)}")
    history = write_history(exam, folder)
    typer.echo(f"history  {history or 'none: the folder lies by itself, without other runs of its model'}")


@app.command("compare")
def compare_runs(
    a: Annotated[Path, typer.Argument(help="folder of the earlier run, or of the other model or arm")],
    b: Folder,
    alpha: Annotated[float, typer.Option(min=1e-6, max=0.5, help="level of the exact test")] = 0.05,
) -> None:
    """Compare two runs item by item; exit code 1 when a model has drifted."""
    from tasks.exam.archive import load_scored
    from tasks.exam.comparing import compare

    exam = _exam_of(b)
    found = compare(exam, load_scored(exam, a), load_scored(exam, b), alpha=alpha)
    _print_comparison(found)
    if found.decision.verdict == "drift":
        raise typer.Exit(EXIT_DRIFT)


def _exam_of(folder: Path) -> Exam:
    from tasks.exam.evaluate import data_dir
    from tasks.exam.items import exam_folder, load_exam
    from tasks.exam.run_files import load_run

    return load_exam(exam_folder(data_dir(), load_run(folder)[0].settings.exam))


def _print_scores(scores: Scores) -> None:
    typer.echo(f"exam {scores.exam}, run {scores.run}: {_verdict(scores.passed)}")
    typer.echo(f"{'subject':<16}{'essential':>14}{'general':>14}{'total':>14}")
    for row in scores.table:
        cells = "".join(f"{_cell(tally):>14}" for tally in (row.essential, row.general, row.total))
        typer.echo(f"{row.subject:<16}{cells}")
    overall, (low, high) = scores.overall, scores.overall.interval_1
    typer.echo(f"points        {scores.points} of {scores.points_possible}")
    typer.echo(f"entered       {_share(overall.correct, overall.entered)}, 95% interval {low:.1%} to {high:.1%}")
    typer.echo(f"all           {_share(overall.correct, overall.items)}, guessing {overall.guess or 0:.1%}")
    typer.echo(f"not readable  {overall.unparsed}")
    typer.echo(f"cut off       {overall.cut_off}")
    typer.echo(f"not answered  {len(scores.coverage.missing)}")
    for one in scores.criteria:
        typer.echo(f"criterion     {one.name}: {_verdict(one.passed)}{' - ' + one.note if one.note else ''}")
    usage, cost = scores.usage, scores.usage.cost
    price = "price not known" if cost is None else f"{cost:.4f} US dollars"
    typer.echo(f"used          {usage.input_tokens} tokens in, {usage.output_tokens} out, {price}")


def _verdict(passed: bool | None) -> str:
    return {True: "passed", False: "failed", None: "not evaluable"}[passed]


def _cell(tally: Tally) -> str:
    from tasks.exam.statistics import percent

    return f"{tally.correct}/{tally.items} {percent(tally.correct, tally.items)}"


def _share(part: int, whole: int) -> str:
    from tasks.exam.statistics import percent

    return f"{part}/{whole} = {percent(part, whole)}%"


def _print_comparison(found: Comparison) -> None:
    decision, test = found.decision, found.overall
    typer.echo(decision.verdict + (f": b is {decision.direction}" if decision.direction else ""))
    for name, side in (("a", found.a), ("b", found.b)):
        typer.echo(f"{name}  {_side(side, found.pairs)}")
    typer.echo(f"lost {test.lost}, gained {test.gained} of {found.pairs} items; exact McNemar p = {test.p:.4g}")
    if found.lost_unreadable:
        typer.echo(f"of {found.lost_unreadable} of the lost items the new reply is unreadable")
    threshold = decision.threshold if decision.threshold is not None else "none with so few flips"
    typer.echo(f"alarm from a net change of: {threshold} (alpha {decision.alpha:g}, at least {decision.min_net})")
    if found.unpaired.yates:
        statistic, p = found.unpaired.yates
        typer.echo(f"unpaired chi-square with Yates, as the paper: {statistic:.4f}, p = {p:.4g}")
    if found.detectable:
        seen = found.detectable
        typer.echo(f"detectable at {seen.discordance:.0%} flips: {seen.items} items, {seen.share:.1%}")
    for setting in found.differences:
        typer.echo(f"differs: {setting.name}: {setting.a}, then {setting.b}")
    for note in found.notes:
        typer.echo(f"note: {note}")
    for one in found.slices:
        if one.p_holm < decision.alpha:
            typer.echo(f"slice {one.dimension} {one.value}: net {one.test.net:+} of {one.pairs}, Holm {one.p_holm:.4g}")
    _print_flips("lost", found.lost)
    _print_flips("gained", found.gained)


def _side(side: Side, pairs: int) -> str:
    low, high = side.interval
    share = _share(side.correct, pairs)
    return f"{side.run}: {side.model}, {side.language}: {share}, 95% interval {low:.1%} to {high:.1%}"


def _print_flips(name: str, flips: Sequence[Flip]) -> None:
    for flip in flips:
        before, after = ("+".join(answer or ("?",)) for answer in (flip.answer_before, flip.answer_after))
        typer.echo(f"{name:<7}{flip.number:>4}  {flip.item}  {before} -> {after}")
