"""The tables and figures of an exam's pages, as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.exam.bank.records import Exam, ExamItem, ExamRun
from tasks.exam.comparing.comparison_records import Flip, RunComparison
from tasks.exam.page.items import made_visible, options
from tasks.exam.scoring.exam_index import index_of
from tasks.exam.scoring.score_records import Bounds, Scores, Tally
from tasks.exam.scoring.statistics import low_to_high, percent_of
from tasks.report import words


@dataclass(frozen=True)
class TallyRow:
    """A tally as a table shows it."""

    name: str
    items: int
    right: str
    accuracy_1: str
    interval_1: str
    accuracy_2: str
    unparsed: int
    guess: str


def exam_tiles(scores: Scores) -> list[tuple[str, str, str]]:
    """Name, figure and remark of each tile."""
    overall, usage = scores.overall, scores.usage
    return [
        ("Accuracy 1", f"{percent_of(overall.correct, overall.entered)}%", f"{bounds(overall.interval_1)}, of entered"),
        ("Accuracy 2", *_accuracy_2(scores)),
        ("Points", low_to_high(scores.points, scores.most[1]), f"of {scores.points_possible}"),
        ("Unparsed", str(overall.unparsed), _unread(overall)),
        ("Cost", usage_words(scores), f"{usage.input_tokens + usage.output_tokens:,} tokens"),
    ]


def _accuracy_2(scores: Scores) -> tuple[str, str]:
    """With its interval; or its range, where items have no response."""
    overall, most = scores.overall, scores.most[0]
    low, high = (percent_of(correct, overall.items) for correct in (overall.correct, most))
    if most == overall.correct:
        return f"{low}%", f"{bounds(overall.interval_2)}, of all"
    return f"{low_to_high(low, high)}%", "of all: some have no response"


def _unread(overall: Tally) -> str:
    cut = f"; {overall.cut_off} more cut off" if overall.cut_off else ""
    return f"of {overall.entered} entered{cut}"


def usage_words(scores: Scores) -> str:
    """Dollars; small sums with their first digits."""
    cost = scores.usage.cost
    return "unknown" if cost is None else f"${cost:.2f}" if cost >= 1 or cost == 0 else f"${cost:.2g}"


def slices(scores: Scores, comparison: RunComparison | None) -> list[tuple[str, TallyRow, str]]:
    """Dimension, figures, and what changed there since the other run."""
    changed = {}
    for one in comparison.slices if comparison else ():
        if one.test.lost or one.test.gained:
            changed[one.dimension, one.value] = f"−{one.test.lost} +{one.test.gained}, {p_words(one.p_holm)}"
    return [
        (one.dimension, row(one.value, one.tally), changed.get((one.dimension, one.value), "")) for one in scores.slices
    ]


def row(name: str, tally: Tally) -> TallyRow:
    """A tally with its shares in percent."""
    return TallyRow(
        name=name,
        items=tally.items,
        right=f"{tally.correct}/{tally.entered}",
        accuracy_1=percent_of(tally.correct, tally.entered),
        interval_1=bounds(tally.interval_1) if tally.entered else words.NONE,
        accuracy_2=percent_of(tally.correct, tally.items),
        unparsed=tally.unparsed,
        guess=words.NONE if tally.guess is None else f"{100 * tally.guess:.1f}",
    )


def flips(exam: Exam, comparison: RunComparison) -> list[tuple[Flip, ExamItem, str, str]]:
    """Lost items first."""
    index = index_of(exam).items
    return [
        (
            flip,
            index[flip.item],
            options(index[flip.item], flip.answer_before),
            options(index[flip.item], flip.answer_after),
        )
        for flip in (*comparison.lost, *comparison.gained)
    ]


def facts(exam: Exam, run: ExamRun, scores: Scores) -> list[tuple[str, str]]:
    """What was run, how, and what it took."""
    settings, usage = run.settings, scores.usage
    took = f"{words.moment(run.started_at)} to {words.moment(run.finished_at)}"
    replied = ", ".join(f"{made_visible(name)} ({count})" for name, count in sorted(scores.answered_by.items()))
    asked = f"{settings.language}, prompt {settings.prompt} ({settings.prompt_digest[:12]})"
    how = f"temperature {settings.temperature:g}, at most {settings.max_tokens:,} tokens a reply"
    cost = usage_words(scores) if usage.cost is not None else "unknown: exams/prices.yaml has no price for every reply"
    corrections = [("Corrections", _corrections(exam))] if exam.corrections else []
    return [
        ("Exam", f"{exam.title}, {len(exam.items)} items ({exam.source}; {exam.licence})"),
        *corrections,
        ("Asked", f"{asked}, {how}, {words.count(settings.epochs, 'epoch')}"),
        ("Answered by", replied or words.NONE),
        ("Diagrams", _pictures(exam, run, scores)),
        ("Missing", words.listing(map(str, scores.coverage.missing)) if scores.coverage.missing else "nothing"),
        ("Cut off", _cut_off(scores)),
        ("Took", f"{took}; replies {words.duration(usage.seconds)}"),
        ("Tokens", f"{usage.input_tokens:,} in, {usage.output_tokens:,} out, {usage.responses:,} replies"),
        ("Cost", cost),
        ("Made with", f"{run.engine}, code {run.code_version}"),
        ("Seal", f"exam {run.settings.exam_digest[:12]}, responses {run.responses_sha256[:12]}"),
    ]


def _cut_off(scores: Scores) -> str:
    if not scores.cut_off:
        return "no reply"
    numbers = words.listing(map(str, scores.cut_off))
    return f"items {numbers}: the limit of tokens ended the reply, so it counts as no answer; raise max_tokens"


def alarm_level(against: Sequence[RunComparison]) -> list[tuple[str, str]]:
    """What the level of the alarms on a page means, and what it does not; nothing without an earlier run."""
    levels = [one.decision.alpha for one in against if one.kind == "rerun"]
    if not levels:
        return []
    return [
        (
            "Alarm level",
            f"{100 * max(levels):g}% per comparison, at most {100 * sum(levels):g}% for the run: how often an alarm is "
            "false when nothing has changed. Over months and models it adds up: twelve runs at 5% raise a false alarm "
            "with a probability of up to 46%",
        )
    ]


def _pictures(exam: Exam, run: ExamRun, scores: Scores) -> str:
    sent = run.settings.images
    parts = ["sent as pictures" if sent else "not sent"]
    if without := len(scores.coverage.without_picture):
        parts.append(f"{words.count(without, 'item')} left out for it")
    entered = {one.item for one in scores.items if one.verdict != "unasked"}
    if bare := sum(item.lacks_a_picture(sent=sent) and item.id in entered for item in exam.items):
        parts.append(f"{words.count(bare, 'item')} asked without, of the item or of its case, and told so")
    return "; ".join(parts)


def _corrections(exam: Exam) -> str:
    """Which fields of the published files a person changed, and why."""
    return "; ".join(f"{one.item} {', '.join(one.changes)}: {made_visible(one.reason)}" for one in exam.corrections)


def bounds(interval: Bounds) -> str:
    """An interval in percent."""
    return f"{100 * interval[0]:.1f}–{100 * interval[1]:.1f}%"


def with_sign(value: int) -> str:
    """A number with its sign, a true minus."""
    return f"{value:+d}".replace("-", "−") if value else "0"


def p_words(value: float) -> str:
    """A p-value."""
    return "p < 0.001" if value < 0.001 else f"p {value:.3f}"
