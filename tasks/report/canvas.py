"""How a chart is made: the look, the axes, and saving one figure as a PNG and as an SVG in the page's colours.

Only matplotlib's object interface: no pyplot, no global figure. The same input gives the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

#: Name in the page's style sheet -> colour on white paper. Series colours: Okabe & Ito, safe for colour-blind readers.
COLOURS = {
    "ink": "#1d2733",
    "muted": "#5c6978",
    "grid": "#e2e6eb",
    "paper": "#fefefe",
    "blue": "#0072b2",
    "sky": "#56b4e9",
    "orange": "#e69f00",
    "red": "#d55e00",
    "green": "#009e73",
    "mauve": "#b0628f",
}
_STYLE: Any = {
    "svg.hashsalt": "pharmafed",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    "text.color": COLOURS["ink"],
    "axes.edgecolor": COLOURS["muted"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.facecolor": "none",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}
_SIZE = (5.2, 2.65)
_DPI = 132
#: Up to this many rounds the axis shows the whole study, so that reports of one study compare by eye.
_WHOLE_STUDY = 60


@dataclass(frozen=True)
class Chart:
    """One chart: `svg` has no fixed size and names its colours `--chart-<name>`; `alt` says what it shows.

    `empty`: there is nothing to draw, only words; the page leaves such a chart out.
    """

    name: str
    title: str
    alt: str
    png: bytes
    svg: str
    empty: bool = False


def look() -> AbstractContextManager[None]:
    """The look of all charts while they are drawn. It holds for the whole process: draw in one thread."""
    return matplotlib.rc_context(_STYLE)


def make_chart(
    name: str, title: str, alt: str, paint: Callable[[Axes], None], *, right: float = 0.97, empty: bool = False
) -> Chart:
    """Draw with `paint` and save; `right` is where the axes end, so that names of lines fit beside them."""
    figure = Figure(figsize=_SIZE)
    ax = figure.add_axes((0.115, 0.185, right - 0.115, 0.77))
    ax.yaxis.set_major_locator(MaxNLocator(nbins=5))
    paint(ax)
    return Chart(name, title, alt, _png(figure), _svg(figure), empty)


def round_axis(ax: Axes, total: int, closed: int) -> None:
    """Rounds 1 to the study's last, or to the newest in a study too long to show."""
    end = total if total <= _WHOLE_STUDY else closed
    ax.set_xlim(0.5, max(end, 2) + 0.5)
    ax.set_xlabel(f"Round (of {total})")
    ax.xaxis.set_major_locator(FixedLocator(_round_ticks(max(end, 2))))


def _round_ticks(end: int) -> list[int]:
    """The first and the last round, and round numbers between: few ticks, because matplotlib is slow at them."""
    stride = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000) if end / step <= 6)
    return [1, *(n for n in range(stride, end, stride) if n > 1 and end - n > stride / 2), end]


def grid(ax: Axes) -> None:
    """Faint horizontal lines behind the data."""
    ax.grid(axis="y", color=COLOURS["grid"], linewidth=0.6)
    ax.set_axisbelow(True)


def dashed(ax: Axes, level: float, colour: str) -> None:
    """A reference line."""
    ax.axhline(level, color=colour, linewidth=1.1, linestyle=(0, (5, 3)))


def say(ax: Axes, text: str, *, red: bool = False) -> None:
    """Words where there is nothing to draw."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_xlabel("")
    ax.set_ylabel("")
    ax.spines[:].set_visible(False)
    colour = COLOURS["red" if red else "muted"]
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=colour, fontsize=9)


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    FigureCanvasAgg(figure)
    fixed: Any = {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": 3}}
    figure.savefig(out, format="png", dpi=_DPI, facecolor="white", **fixed)
    return out.getvalue()


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    FigureCanvasSVG(figure)
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    return _themed(out.getvalue())


def _themed(svg: str) -> str:
    """Inline SVG: no prolog, no fixed size, no ids but those referred to, colours by name, the page's font."""
    svg = svg[svg.index("<svg ") :]
    for size in ("width", "height"):
        svg = re.sub(rf'(<svg [^>]*?) {size}="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "inherit", svg)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--chart-{name}, {colour})")
    return svg
