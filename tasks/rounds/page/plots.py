"""The charts of a report: model, privacy, patients and time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator

from tasks.learning.metrics import Metric, metrics_of
from tasks.report import words
from tasks.report.canvas import COLOURS, Chart, dashed, grid, look, make_chart, round_axis, say
from tasks.store.records.report import Baselines, RoundMetrics, SiteRow

_STEP_COLOURS = ("blue", "sky", "orange", "green", "mauve", "muted")


class _Line(NamedTuple):
    label: str
    colour: str
    points: list[tuple[int, float]]
    level: float | None = None


def draw(rounds: Sequence[RoundMetrics], baselines: Baselines | None) -> list[Chart]:
    """All charts of the newest round, `rounds[-1]`, and of the rounds before it."""
    now = rounds[-1]
    with look():
        return [
            *(_performance(rounds, baselines, metric) for metric in metrics_of(now.task)[:2]),
            _privacy(rounds),
            _patients(now),
            _seconds(now),
        ]


def _performance(rounds: Sequence[RoundMetrics], baselines: Baselines | None, metric: Metric) -> Chart:
    lines, title = _lines(rounds, baselines, metric.name), f"{metric.label} per round"

    def paint(ax: Axes) -> None:
        round_axis(ax, rounds[-1].total_rounds, rounds[-1].server_round)
        ax.set_ylabel(f"{metric.label} ({metric.direction})")
        shown = [_draw_line(ax, line) for line in lines if line.points or line.level is not None]
        if not shown:
            say(
                ax,
                "No figure: every site's cell is too small to leave it,\nand this study's patients may not be pooled.",
            )
            return
        ax.margins(y=0.15)
        grid(ax)
        _label_at_right(ax, shown)

    latest = ", ".join(f"{line.label} {words.number(value)}" for line in lines if (value := _last(line)) is not None)
    return make_chart(metric.name, title, f"{title}: {latest or 'no figure yet'}.", paint, right=0.74, empty=not latest)


def _lines(rounds: Sequence[RoundMetrics], baselines: Baselines | None, metric: str) -> list[_Line]:
    pooled = [(r.server_round, r.pooled[metric]) for r in rounds if metric in r.pooled]
    reporting = [(r.server_round, r.figures[metric]) for r in rounds if metric in r.figures]
    lines = [_Line("Global model", "blue", pooled), _Line("Reporting sites", "green", reporting)]
    if baselines is not None:
        lines.append(_Line("Pooled training", "ink", [], baselines.pooled.get(metric)))
        lines.append(_Line("Local only", "red", [], baselines.local_only.get(metric)))
    return lines


def _last(line: _Line) -> float | None:
    return line.points[-1][1] if line.points else line.level


def _draw_line(ax: Axes, line: _Line) -> tuple[float, str, str]:
    colour = COLOURS[line.colour]
    if line.level is not None:
        dashed(ax, line.level, colour)
    else:
        x, y = zip(*line.points, strict=True)
        ax.plot(x, y, color=colour, linewidth=1.6, marker="o", markersize=4)
    value = _last(line)
    assert value is not None
    return value, f"{line.label} {words.number(value)}", colour


def _label_at_right(ax: Axes, shown: list[tuple[float, str, str]]) -> None:
    """Name the lines beside the axis, pushed apart where they would overlap."""
    low, high = ax.get_ylim()
    gap, place = 0.085, -1.0
    heights = []
    for value, _, _ in sorted(shown):
        place = max((value - low) / (high - low), place + gap)
        heights.append(place)
    shift = max(0.0, heights[-1] - 1.0)
    for height, (_, label, colour) in zip(heights, sorted(shown), strict=True):
        ax.text(1.02, height - shift, label, transform=ax.transAxes, va="center", color=colour, fontsize=8)


def _privacy(rounds: Sequence[RoundMetrics]) -> Chart:
    now = rounds[-1]
    points = [(r.server_round, r.epsilon) for r in rounds if r.epsilon is not None]

    def paint(ax: Axes) -> None:
        round_axis(ax, now.total_rounds, now.server_round)
        ax.set_ylabel("ε spent, all rounds so far")
        if not points:
            none = not now.promises
            say(ax, "No privacy: raw updates leave the sites." if none else "Nothing has been spent yet.", red=none)
            return
        x, y = zip(*points, strict=True)
        ax.bar(x, y, color=COLOURS["blue"], width=0.7)
        ax.set_ylim(0, 1.12 * max(now.epsilon_budget or 0, *y))
        grid(ax)
        if now.epsilon_budget is not None:
            red, label = COLOURS["red"], f"Budget {words.spend(now.epsilon_budget)}"
            dashed(ax, now.epsilon_budget, red)
            ax.text(1.02, now.epsilon_budget, label, transform=ax.get_yaxis_transform(), va="center", color=red)

    spent = f"Epsilon spent {words.spend(now.epsilon)} of {words.spend(now.epsilon_budget)}."
    alt = spent if points else "No epsilon is spent."
    return make_chart("privacy", "Privacy budget", alt, paint, right=0.82, empty=not points)


def _patients(now: RoundMetrics) -> Chart:
    rows = now.sites
    known = [row.num_examples or 0 for row in rows]

    def paint(ax: Axes) -> None:
        colours = [COLOURS["blue" if row.contributed else "grid"] for row in rows]
        ax.bar(range(len(rows)), known, color=colours, width=0.72)
        ax.set_xlim(-0.6, len(rows) - 0.4)
        _name_sites(ax, rows)
        ax.set_xlabel("Site", labelpad=16)
        ax.set_ylabel("Training patients")
        top = max([*known, 1])
        ax.set_ylim(0, 1.18 * top)
        for place, row in enumerate(rows):
            _bar_label(ax, place, row, top)

    missing = [row.site for row in rows if not row.contributed]
    alt = f"{sum(known)} training patients at {len(rows) - len(missing)} sites."
    alt += f" Not in this round: {words.listing(missing)}." if missing else ""
    return make_chart("patients_per_client", "Patients per client", alt, paint)


def _name_sites(ax: Axes, rows: Sequence[SiteRow], *, upright: bool = False) -> None:
    """Site names as plain text: a tenth of the time that as many ticks take."""
    many = len(rows) > 16
    (ax.yaxis if upright else ax.xaxis).set_major_locator(FixedLocator([]))
    for place, row in enumerate(rows):
        where: Any = {"x": place, "y": -0.03, "ha": "center", "va": "top", "rotation": 90 if many else 0}
        if upright:
            where = {"x": -0.015, "y": place, "ha": "right", "va": "center"}
        along = ax.get_yaxis_transform() if upright else ax.get_xaxis_transform()
        ax.text(s=row.site, color=COLOURS["muted"], fontsize=5 if many else 8, transform=along, **where)


def _bar_label(ax: Axes, place: int, row: SiteRow, top: float) -> None:
    height = (row.num_examples or 0) + 0.025 * top
    if row.contributed:
        ax.text(place, height, str(row.num_examples or "–"), ha="center", va="bottom", fontsize=8)
    else:
        ax.text(place, height, "missing", ha="center", va="bottom", fontsize=8, rotation=90, color=COLOURS["red"])


def _seconds(now: RoundMetrics) -> Chart:
    rows = [row for row in now.sites if row.seconds]
    steps = step_order(rows)

    def paint(ax: Axes) -> None:
        if not rows:
            say(ax, "No site reported a time.")
            return
        _stack(ax, rows, steps)
        ax.set_ylim(len(rows) - 0.4, -0.6)
        _name_sites(ax, rows, upright=True)
        ax.set_xlabel("Seconds")

    alt = f"Seconds per step at {words.count(len(rows), 'site')}. Slowest: {now.slowest or 'unknown'}."
    return make_chart("seconds", "Seconds per step and site", alt, paint, right=0.72, empty=not rows)


def _stack(ax: Axes, rows: Sequence[SiteRow], steps: Sequence[str]) -> None:
    """One bar per site, one colour per step, and the steps' names beside the axis."""
    offset = [0.0] * len(rows)
    look: Any = {"edgecolor": COLOURS["paper"], "linewidth": 0.4, "height": 0.74}
    for i, name in enumerate(steps):
        colour = COLOURS[_STEP_COLOURS[i % len(_STEP_COLOURS)]]
        spent = [row.seconds.get(name, 0.0) for row in rows]
        ax.barh(range(len(rows)), spent, left=offset, color=colour, **look)
        offset = [a + b for a, b in zip(offset, spent, strict=True)]
        text = f"■ {words.step(name)}"
        ax.text(1.02, 0.96 - 0.09 * i, text, transform=ax.transAxes, va="center", color=colour, fontsize=8)


def step_order(rows: Sequence[SiteRow]) -> list[str]:
    """The steps that sites timed, in the order in which a round takes them; steps we do not know come last."""
    known = ["validate_data", "train_local", "privatize_and_upload", "validate_global"]
    seen = {name for row in rows for name in row.seconds}
    return [name for name in known if name in seen] + sorted(seen.difference(known))
