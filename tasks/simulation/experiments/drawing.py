"""How a figure of the findings looks, on light and on dark paper, and how it is saved.

The report's charts (`tasks.report.canvas`) are inlined in a page that names its colours; these stand alone in a README
or a slide, so each is saved in two colourings, with the paper painted and the letters as outlines.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from tasks.report.canvas import COLOURS, look
from tasks.simulation.experiments.paired import PairedMean

_DPI = 144
#: Smallest distance between two names beside an axis, as a share of its height.
_NAME_GAP = 0.075


@dataclass(frozen=True)
class Theme:
    """Colours on one paper. Series: Okabe & Ito's hues, safe for colour-blind readers, as dark or light as it takes.

    `suffix` ends the names of its files.
    """

    suffix: str
    paper: str
    ink: str
    muted: str
    grid: str
    series: Mapping[str, str]


LIGHT = Theme(
    suffix="",
    paper="#ffffff",
    ink=COLOURS["ink"],
    muted=COLOURS["muted"],
    grid=COLOURS["grid"],
    series={"blue": "#0067a3", "red": "#b84f00", "green": "#007a59", "mauve": "#96507a"},
)
DARK = Theme(
    suffix="-dark",
    paper="#0d1117",
    ink="#e6edf3",
    muted="#9ba7b4",
    grid="#2b323b",
    series={"blue": "#5ab4f0", "red": "#ff8f52", "green": "#3ecfa5", "mauve": "#e2a1ca"},
)
THEMES = (LIGHT, DARK)
#: By series, so that lines can be told apart without any colour.
MARKERS = {"blue": "o", "red": "s", "green": "^", "mauve": "D"}

Paint = Callable[[Figure, Theme], None]


@dataclass(frozen=True)
class Picture:
    """One figure: `files` holds its SVG and PNG on light and on dark paper, by file name; `alt` is read aloud."""

    name: str
    caption: str
    alt: str
    files: Mapping[str, bytes]


def picture(name: str, caption: str, alt: str, size: tuple[float, float], paint: Paint) -> Picture:
    """Draw a figure of `size` inches once for each theme. The same input gives the same bytes."""
    files = {}
    for theme in THEMES:
        with look(), matplotlib.rc_context(_style(theme)):
            figure = Figure(figsize=size, facecolor=theme.paper)
            paint(figure, theme)
            files[f"{name}{theme.suffix}.svg"] = _svg(figure)
            files[f"{name}{theme.suffix}.png"] = _png(figure)
    return Picture(name, caption, alt, files)


def _style(theme: Theme) -> Any:
    return {
        "svg.fonttype": "path",  # a page's <img> has no fonts of its own
        "text.color": theme.ink,
        "axes.edgecolor": theme.muted,
        "axes.labelcolor": theme.ink,
        "axes.titlecolor": theme.ink,
        "axes.titlesize": 9,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "grid.color": theme.grid,
        "grid.linewidth": 0.7,
    }


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(out, format="png", dpi=_DPI, metadata={"Software": None})
    return out.getvalue()


def _svg(figure: Figure) -> bytes:
    out = io.BytesIO()
    FigureCanvasSVG(figure)
    nothing: Any = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(out, format="svg", metadata=nothing)
    return out.getvalue()


def lines_behind(ax: Axes, axis: Any = "y") -> None:
    """Faint lines behind the data."""
    ax.grid(axis=axis)
    ax.set_axisbelow(True)


def level(ax: Axes, theme: Theme, value: float) -> None:
    """A dashed reference line."""
    ax.axhline(value, color=theme.muted, linewidth=1.1, linestyle=(0, (5, 3)), zorder=1)


def margin_zone(ax: Axes, theme: Theme, margin: float, *, upright: bool = False) -> None:
    """The differences that count as none."""
    span = ax.axvspan if upright else ax.axhspan
    span(-margin, margin, color=theme.grid, alpha=0.75, linewidth=0, zorder=0)
    (ax.axvline if upright else ax.axhline)(0, color=theme.muted, linewidth=0.8, zorder=1)


def ends(found: Sequence[PairedMean]) -> list[tuple[float, float]]:
    """Both ends of each interval."""
    return [(one.low, one.high) for one in found]


def error_bars(
    ax: Axes, theme: Theme, colour: str, x: Sequence[float], means: Sequence[float], ends: Sequence[tuple[float, float]]
) -> None:
    """Points joined by a line, each with its interval from `ends`."""
    reach = [[m - low for m, (low, _) in zip(means, ends, strict=True)]]
    reach.append([high - m for m, (_, high) in zip(means, ends, strict=True)])
    style: Any = {"color": theme.series[colour], "marker": MARKERS[colour], "markersize": 4.5, "linewidth": 1.4}
    ax.errorbar(x, means, yerr=reach, elinewidth=1.1, capsize=2.5, **style)


def name_lines(ax: Axes, theme: Theme, names: Sequence[tuple[float, str, str]]) -> None:
    """Write each (height, name, colour) beside the axis, pushed apart where they would overlap."""
    low, high = ax.get_ylim()
    ordered = sorted(names)
    heights = _apart([(value - low) / (high - low) for value, _, _ in ordered])
    for height, (_, name, colour) in zip(heights, ordered, strict=True):
        shown = theme.series.get(colour, theme.muted)
        ax.text(1.02, height, name, transform=ax.transAxes, va="center", color=shown, fontsize=8)


def _apart(places: Sequence[float]) -> list[float]:
    """Ascending places, moved as little as it takes for a gap between any two: up, then down from the top."""
    below, above = -1.0, 1.0 + _NAME_GAP
    up, settled = [], []
    for place in places:
        below = max(place, below + _NAME_GAP)
        up.append(below)
    for place in reversed(up):
        above = min(place, above - _NAME_GAP)
        settled.append(above)
    return settled[::-1]


def few_ticks(ax: Axes, places: Sequence[float], names: Sequence[str]) -> None:
    """An x axis with these ticks and no others, on a logarithmic scale too."""
    ax.xaxis.set_major_locator(FixedLocator(list(places)))
    ax.xaxis.set_major_formatter(FixedFormatter(list(names)))
    ax.xaxis.set_minor_locator(NullLocator())
