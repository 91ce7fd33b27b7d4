"""The exam's pages: one per run, complete in itself, and one per model's history. They run no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from pathlib import Path
from statistics import fmean

from markupsafe import Markup

from tasks.errors import DataError
from tasks.exam.bank.records import Exam, ExamRun, Response
from tasks.exam.comparing.comparison_records import RunComparison
from tasks.exam.page import plots
from tasks.exam.page.items import items_by_subject, made_visible
from tasks.exam.page.tables import (
    alarm_level,
    bounds,
    exam_tiles,
    facts,
    flips,
    p_words,
    row,
    slices,
    usage_words,
    with_sign,
)
from tasks.exam.runs.run_files import responses_sha256
from tasks.exam.scoring.exam_index import index_of
from tasks.exam.scoring.score_records import Scores
from tasks.exam.scoring.slices import guess_probability
from tasks.exam.scoring.statistics import low_to_high, percent_of
from tasks.report import pages, words
from tasks.report.canvas import Chart

_number = attrgetter("number")


@dataclass(frozen=True)
class _Banner:
    tone: str
    title: str
    text: str


def build_exam_report(
    exam: Exam,
    run: ExamRun,
    responses: Sequence[Response],
    scores: Scores,
    comparison: RunComparison | None,
    baseline: RunComparison | None = None,
    *,
    anchor: RunComparison | None = None,
    images: Path,
) -> dict[str, bytes]:
    """`report.html` and its PNG plots; the same records, the same bytes.

    Draw in one thread: see `tasks.report.canvas.look`.

    Args:
        comparison: with the run before; this run is its `b`.
        baseline: with a run that was chosen; this run is its `b`.
        anchor: with the older run that slow drift shows against; this run is its `b`.
        images: the folder of the exam's pictures, which become part of the page.

    Raises:
        DataError: the responses, the scores or a comparison are not of this run, or a picture is missing.
    """
    for one in (comparison, anchor, baseline):
        _check(exam, run, scores, one)
    if responses_sha256(responses) != run.responses_sha256:
        raise DataError(f"the replies are not those that run {run.id} is sealed with: restore its responses.jsonl")
    guess = _guess(exam, scores)
    charts = [chart for chart in plots.draw_run(scores, guess) if not chart.empty]
    items = items_by_subject(exam, run, responses, scores, images)
    named = {"the run before": comparison, "the anchor of slow drift": anchor, "the baseline": baseline}
    told = _told_once(named)
    against = [one for _, one in told]
    page = pages.render(
        "exam.html",
        exam=exam,
        run=run,
        scores=scores,
        against=[(one, flips(exam, one)) for one in against],
        model=made_visible(run.settings.model),
        banners=_banners(scores, told, guess),
        tiles=exam_tiles(scores),
        table=[
            (line.subject, [row("", cell) for cell in (line.essential, line.general, line.total)])
            for line in scores.table
        ],
        slices=slices(scores, comparison or baseline),
        facts=facts(exam, run, scores) + alarm_level([one for one in (comparison, anchor) if one]),
        charts=_drawn(charts),
        unparsed=[item for item in sorted(chain(*items.values()), key=_number) if item.number in scores.unparsed],
        items=items,
        percent=percent_of,
        plain=made_visible,
    )
    return {"report.html": page, **{f"{chart.name}.png": chart.png for chart in charts}}


def build_history(
    exam: Exam, model: str, entries: Sequence[tuple[ExamRun, Scores, RunComparison | None]], *, left_out: int = 0
) -> dict[str, bytes]:
    """`history.html` and its PNG plot. Runs come in any order; reports are linked as `<language>/<run id>/report.html`.

    `left_out` runs are of another edition of the exam.

    Raises:
        DataError: there is no run, or one is of another exam or model, or has scores or a comparison of another run.
    """
    if not entries:
        raise DataError(f"{model} has no run of exam {exam.id} yet: there is no history to show")
    for run, scores, comparison in entries:
        if run.settings.model != model:
            raise DataError(f"run {run.id} is of {run.settings.model}, not of {model}: a history is of one model")
        _check(exam, run, scores, comparison)
    ordered = sorted(entries, key=lambda entry: (entry[0].finished_at, entry[0].id))
    sittings = [
        plots.Sitting(run.finished_at, run.settings.language, scores.overall, found.decision.verdict if found else None)
        for run, scores, found in ordered
    ]
    newest = ordered[-1][1]
    chart = plots.draw_history(sittings, plots.levels(exam.human_mean, newest.overall.guess))
    page = pages.render(
        "exam_history.html",
        exam=exam,
        model=made_visible(model),
        charts=_drawn([chart]),
        left_out=left_out,
        first={run.id for run in {run.settings.language: run for run, *_ in reversed(ordered)}.values()},
        rows=[
            (run, scores, row("", scores.overall), found, usage_words(scores))
            for run, scores, found in reversed(ordered)
        ],
        spread=low_to_high,
    )
    return {"history.html": page, f"{chart.name}.png": chart.png}


def _check(exam: Exam, run: ExamRun, scores: Scores, comparison: RunComparison | None) -> None:
    digest = index_of(exam).digest
    if {digest} != {run.settings.exam_digest, scores.exam_digest}:
        raise DataError(
            f"run {run.id} or its scores are not of exam {exam.id} as it is: score it with its own exam.json"
        )
    if (scores.run, scores.responses_sha256) != (run.id, run.responses_sha256):
        raise DataError(f"the scores of run {scores.run} are not of run {run.id} as it is: score it again")
    if comparison is not None and (comparison.b.run, comparison.exam_digest) != (run.id, digest):
        raise DataError(f"the comparison is of run {comparison.b.run}, not of {run.id}: compare again")


def _guess(exam: Exam, scores: Scores) -> float | None:
    """What guessing expects on the items that were entered, whose accuracy the report shows."""
    index = index_of(exam).items
    return fmean(guess_probability(index[one.item]) for one in scores.items) if scores.items else None


def _told_once(named: Mapping[str, RunComparison | None]) -> list[tuple[str, RunComparison]]:
    """Each comparison with what it is with; a run that is two of these is told once, as the first."""
    found: dict[str, tuple[str, RunComparison]] = {}
    for name, one in named.items():
        if one is not None:
            found.setdefault(f"{one.a.model} {one.a.language} {one.a.run}", (name, one))
    return list(found.values())


def _banners(scores: Scores, told: Sequence[tuple[str, RunComparison]], guess: float | None) -> list[_Banner]:
    found = [_passed(scores), *(_drift(name, one) for name, one in told)]
    low = scores.overall.interval_1[0]
    if guess is not None and low <= guess:
        found.append(
            _Banner(
                "warn",
                "Near guessing",
                f"{percent_of(scores.overall.correct, scores.overall.entered)}% right (95% interval "
                f"{bounds(scores.overall.interval_1)}) is not clearly above the {100 * guess:.1f}% that guessing "
                "expects on these items. Differences between slices, and flips, are mostly chance.",
            )
        )
    return found


def _passed(scores: Scores) -> _Banner:
    points = f"{low_to_high(scores.points, scores.most[1])} of {scores.points_possible} points"
    if blank := len(scores.coverage.without_picture):
        points += f", with {words.count(blank, 'diagram')} left blank that the model was not shown"
    if scores.coverage.missing:
        left = len(scores.coverage.missing)
        return _Banner("warn", "No pass verdict", f"{points}: {left} items have no complete response.")
    if scores.passed is None:
        return _Banner("warn", "No pass verdict", f"{points}; a criterion cannot be judged: {_notes(scores)}.")
    if scores.passed:
        return _Banner("good", "Passed", f"{points}. {_notes(scores).capitalize()}")
    failed = [one.name for one in scores.criteria if one.passed is False]
    return _Banner("bad", "Not passed", f"{points}. Not met: {words.listing(failed)}.")


def _notes(scores: Scores) -> str:
    return "; ".join(f"{one.name} {one.note}" for one in scores.criteria if one.note)


def _drift(name: str, comparison: RunComparison) -> _Banner:
    decision, test = comparison.decision, comparison.overall
    tone = "good" if decision.direction is None else "bad" if decision.direction == "worse" else "warn"
    title = decision.verdict.capitalize() + (f": {decision.direction}" if decision.direction else "")
    if decision.threshold is None:
        rule = "no net change of so few flips is significant"
    else:
        rule = f"the alarm needs {decision.threshold}, and chance alone raises it with p {decision.false_alarm:.3f}"
    other = comparison.a.run
    if comparison.kind != "rerun":
        other += f" of {made_visible(comparison.a.model)} in {comparison.a.language}"
    text = (
        f"Against {other}, {name}: {test.lost} lost, {test.gained} gained of {comparison.pairs} items; net "
        f"{with_sign(test.net)}, {rule}. Exact McNemar {p_words(test.p)}, at level {decision.alpha:g} per comparison."
    )
    if unread := comparison.lost_unreadable:
        text += f" Of {unread} of the lost items the new reply is unreadable: look there first."
    if comparison.confounders:
        text += f" Besides, the runs differ in {words.listing(comparison.confounders)}."
    return _Banner(tone, title, text)


def _drawn(charts: Sequence[Chart]) -> list[tuple[Chart, Markup]]:
    """Each with its SVG, drawn here; matplotlib escapes its texts."""
    return [(chart, Markup(chart.svg)) for chart in charts]
