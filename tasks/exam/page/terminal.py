"""What `pharmafed exam` prints of scores and comparisons: the figures of the reports, in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from tasks.exam.scoring.statistics import low_to_high, percent_of

if TYPE_CHECKING:
    from tasks.exam.bank.records import Exam
    from tasks.exam.comparing.comparison_records import Flip, RunComparison, Side
    from tasks.exam.scoring.score_records import Scores, Tally

_CELL = 24
_OPEN = "not evaluable: "
#: Numbers of items on one line.
_LISTED = 40


def print_scores(scores: Scores) -> None:
    typer.echo(f"exam {scores.exam}, run {scores.run}: {_verdict(scores.passed)}")
    typer.echo("accuracy 1 is right of entered, accuracy 2 right of all, in percent")
    typer.echo(f"{'subject':<16}" + "".join(f"{name:>{_CELL}}" for name in ("essential", "general", "total")))
    typer.echo(f"{'':<16}" + f"{'right':>8}{'acc. 1':>8}{'acc. 2':>8}" * 3)
    for row in scores.table:
        cells = "".join(map(_cells, (row.essential, row.general, row.total)))
        typer.echo(f"{row.subject:<16}{cells}")
    overall, (low, high), most = scores.overall, scores.overall.interval_1, scores.most
    typer.echo(f"points        {low_to_high(scores.points, most[1])} of {scores.points_possible}")
    typer.echo(f"entered       {_share(overall.correct, overall.entered)}, 95% interval {low:.1%} to {high:.1%}")
    shares = (_share(correct, overall.items) for correct in (overall.correct, most[0]))
    typer.echo(f"all           {low_to_high(*shares)}, guessing {overall.guess or 0:.1%}")
    for name, numbers in (
        ("not readable", scores.unparsed),
        ("cut off", scores.cut_off),
        ("not answered", scores.coverage.missing),
    ):
        typer.echo(f"{name:<14}{_numbered(numbers)}")
    for one in scores.criteria:
        note = f" - {one.note.removeprefix(_OPEN)}" if one.note else ""
        typer.echo(f"criterion     {one.name}: {_verdict(one.passed)}{note}")
    usage, cost = scores.usage, scores.usage.cost
    price = "price not known" if cost is None else f"{cost:.4f} US dollars"
    typer.echo(f"used          {usage.input_tokens} tokens in, {usage.output_tokens} out, {price}")


def _numbered(numbers: Sequence[int]) -> str:
    """How many items, and which: the first forty."""
    if not numbers:
        return "0"
    more = ", ..." if len(numbers) > _LISTED else ""
    return f"{len(numbers)}: items {', '.join(map(str, numbers[:_LISTED]))}{more}"


def _verdict(passed: bool | None) -> str:
    return {True: "passed", False: "failed", None: "not evaluable"}[passed]


def _cells(tally: Tally) -> str:
    shares = (percent_of(tally.correct, whole) for whole in (tally.entered, tally.items))
    return f"{f'{tally.correct}/{tally.entered}':>8}" + "".join(f"{share:>8}" for share in shares)


def _share(part: int, whole: int) -> str:
    return f"{part}/{whole} = {percent_of(part, whole)}%"


def print_comparison(exam: Exam, found: RunComparison) -> None:
    decision, test = found.decision, found.overall
    typer.echo(decision.verdict + (f": b is {decision.direction}" if decision.direction else ""))
    for name, side in (("a", found.a), ("b", found.b)):
        typer.echo(f"{name}  {_side(side, found.pairs)}")
    typer.echo(f"lost {test.lost}, gained {test.gained} of {found.pairs} items; exact McNemar p = {test.p:.4g}")
    if found.lost_unreadable:
        typer.echo(f"of {found.lost_unreadable} of the lost items the new reply is unreadable")
    threshold = decision.threshold if decision.threshold is not None else "none with so few flips"
    typer.echo(f"alarm from a net change of: {threshold} (alpha {decision.alpha:g}, at least {decision.min_net})")
    for name, test_of in (("with Yates, as the paper", found.unpaired.yates), ("without Yates", found.unpaired.plain)):
        if test_of:
            typer.echo(f"unpaired chi-square {name}: {test_of[0]:.4f}, p = {test_of[1]:.4g}")
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
    _print_flips(exam, "lost", found.lost)
    _print_flips(exam, "gained", found.gained)


def _side(side: Side, pairs: int) -> str:
    low, high = side.interval
    share = _share(side.correct, pairs)
    return f"{side.run}: {side.model}, {side.language}: {share}, 95% interval {low:.1%} to {high:.1%}"


def _print_flips(exam: Exam, name: str, flips: Sequence[Flip]) -> None:
    """With the options as the item's labels name them, as in the report."""
    labels = {item.id: item.labels for item in exam.items}
    for flip in flips:
        before, after = (
            ", ".join(labels[flip.item][int(number) - 1] for number in answer) if answer else "?"
            for answer in (flip.answer_before, flip.answer_after)
        )
        typer.echo(f"{name:<7}{flip.number:>4}  {flip.item}  {before} -> {after}")
