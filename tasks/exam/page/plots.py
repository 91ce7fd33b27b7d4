"""The charts of an exam's reports, in the look of the round's report."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import matplotlib.dates
from matplotlib.axes import Axes

from tasks.exam.comparing.comparison_records import ComparisonOutcome
from tasks.exam.scoring.score_records import Scores, Tally
from tasks.report.canvas import COLOURS, Chart, grid, look, make_chart

_dates: Any = matplotlib.dates  # it has no types
_HUMAN, _GUESS = "green", "muted"
_DASHES = (0, (5, 3))
#: Of the time axis on either side: a share of what it spans, and for runs at one time that part of a day.
_PADDING, _SHORTEST = 0.08, 1 / 24
_SERIES = ("blue", "orange")
_MARKED: tuple[ComparisonOutcome, ...] = ("drift", "difference")


class Level(NamedTuple):
    """A line to compare with: human mean or guessing, as a share."""

    name: str
    value: float
    colour: str


class Sitting(NamedTuple):
    """A run in the history: when, in which language, how well, and what the comparison with its predecessor says."""

    at: datetime
    language: str
    overall: Tally
    outcome: ComparisonOutcome | None


def levels(human_mean: float | None, guess: float | None) -> list[Level]:
    """The lines that are known."""
    found = [("human mean", human_mean, _HUMAN), ("guessing", guess, _GUESS)]
    return [Level(name, value, colour) for name, value, colour in found if value is not None]


def draw_run(scores: Scores, guess: float | None) -> list[Chart]:
    """Accuracy 1 by subject, and by everything else, with Wilson intervals."""
    lines = levels(scores.human_mean, guess)
    subjects = [("all items", scores.overall)]
    subjects += [(one.value, one.tally) for one in scores.slices if one.dimension == "subject"]
    others = [(_short(one.dimension, one.value), one.tally) for one in scores.slices if one.dimension != "subject"]
    with look():
        return [
            _accuracies("exam_subjects", "Accuracy by subject", subjects, lines),
            _accuracies("exam_slices", "Accuracy by kind of item", others, lines),
        ]


def _short(dimension: str, value: str) -> str:
    """A slice's name for an axis: `1st quarter, up to 83 characters` is `length, 1st quarter`."""
    return f"{dimension}, {value.split(',')[0]}" if dimension == "length" else value


def _accuracies(name: str, title: str, bars: Sequence[tuple[str, Tally]], lines: Sequence[Level]) -> Chart:
    shown = [(label, tally) for label, tally in bars if tally.accuracy_1 is not None]

    def paint(ax: Axes) -> None:
        ax.set_position((0.23, 0.185, 0.57, 0.77))
        for place, (_, tally) in enumerate(shown):
            _point(ax, tally, place)
        for line in lines:
            ax.axvline(100 * line.value, color=COLOURS[line.colour], linewidth=1.1, linestyle=_DASHES, zorder=0)
        ax.set_xlim(0, 100)
        ax.set_ylim(len(shown) - 0.4, -0.6)
        ax.set_yticks(range(len(shown)), [label for label, _ in shown], fontsize=7)
        ax.set_xlabel("Right, % of entered items (bar: 95% Wilson interval)")
        _legend(ax, lines)

    alt = "; ".join(f"{label} {100 * (tally.accuracy_1 or 0):.1f}%" for label, tally in shown)
    return make_chart(name, title, f"{title}: {alt or 'nothing was entered'}.", paint, empty=not shown)


def _point(ax: Axes, tally: Tally, place: int) -> None:
    low, high = tally.interval_1
    ax.plot([100 * low, 100 * high], [place, place], color=COLOURS["sky"], linewidth=5, solid_capstyle="butt")
    ax.plot(100 * (tally.accuracy_1 or 0), place, "o", color=COLOURS["blue"], markersize=4.5)


def draw_history(sittings: Sequence[Sitting], lines: Sequence[Level]) -> Chart:
    """Accuracy 1 of every run with its Wilson interval, one series per language; drift is ringed."""
    languages = sorted({sitting.language for sitting in sittings})
    colours = {language: _SERIES[place % len(_SERIES)] for place, language in enumerate(languages)}

    def paint(ax: Axes) -> None:
        for language, colour in colours.items():
            _series(ax, [one for one in sittings if one.language == language], colour)
        for line in lines:
            ax.axhline(100 * line.value, color=COLOURS[line.colour], linewidth=1.1, linestyle=_DASHES, zorder=0)
        _time_axis(ax, [one.at for one in sittings])
        ax.set_ylim(0, 100)
        ax.set_ylabel("Right, % of entered items")
        grid(ax)
        _legend(
            ax,
            lines,
            [(language, colour) for language, colour in colours.items()],
            ring=any(one.outcome in _MARKED for one in sittings),
        )

    title = "Accuracy over time"
    alt = "; ".join(f"{one.at:%Y-%m-%d} {100 * (one.overall.accuracy_1 or 0):.1f}%" for one in sittings)
    with look():
        return make_chart("exam_history", title, f"{title}: {alt}.", paint, right=0.8)


def _series(ax: Axes, sittings: Sequence[Sitting], colour: str) -> None:
    shown = [one for one in sittings if one.overall.accuracy_1 is not None]
    at = [_dates.date2num(one.at) for one in shown]
    values = [100 * (one.overall.accuracy_1 or 0) for one in shown]
    for x, one in zip(at, shown, strict=True):
        low, high = one.overall.interval_1
        ax.plot([x, x], [100 * low, 100 * high], color=COLOURS[colour], linewidth=3, alpha=0.4)
    ax.plot(at, values, "o-", color=COLOURS[colour], linewidth=1.3, markersize=4.5)
    for x, value, one in zip(at, values, shown, strict=True):
        if one.outcome in _MARKED:
            ax.plot(x, value, "o", color=COLOURS["red"], markerfacecolor="none", markersize=11, markeredgewidth=1.8)


def _time_axis(ax: Axes, times: Sequence[datetime]) -> None:
    first, last = _dates.date2num(min(times)), _dates.date2num(max(times))
    pad = max(_PADDING * (last - first), _SHORTEST)
    ax.set_xlim(first - pad, last + pad)
    locator = _dates.AutoDateLocator(minticks=2, maxticks=6, tz=UTC)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(_dates.ConciseDateFormatter(locator, tz=UTC))


def _legend(
    ax: Axes, lines: Sequence[Level], series: Sequence[tuple[str, str]] = (("model", "blue"),), *, ring: bool = False
) -> None:
    entries = [(f"● {name}", colour) for name, colour in series]
    entries += [(f"– – {line.name}\n      {100 * line.value:.1f}%", line.colour) for line in lines]
    entries += [("◯ changed", "red")] if ring else []
    place = 0.95
    for text, colour in entries:
        ax.text(1.03, place, text, transform=ax.transAxes, va="top", color=COLOURS[colour], fontsize=7.5)
        place -= 0.17 if "\n" in text else 0.1
