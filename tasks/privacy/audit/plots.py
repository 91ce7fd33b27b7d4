"""The charts of an audit, in the look of the round's report."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from tasks.privacy.audit.promise import for_a_patient, promise_of
from tasks.privacy.audit.verdict import Audit, Example, Figure, Finding, RocCurve
from tasks.report.canvas import COLOURS, Chart, grid, look, make_chart, say

_RAW, _RELEASED, _BOUND = "red", "blue", "ink"


def draw(audit: Audit) -> list[Chart]:
    """All charts of one audit."""
    by_name = {finding.attack: finding for finding in audit.findings}
    with look():
        charts = [
            _areas(audit, list(audit.findings)),
            _roc(audit, by_name["membership"]),
            _canaries(by_name["canary"]),
            _epsilon(audit),
        ]
        for place, example in enumerate(by_name["reconstruction"].examples):
            charts.append(_record(audit, example, place))
    return charts


def _areas(audit: Audit, findings: Sequence[Finding]) -> Chart:
    """Raw against released, per attack, with the bound as a line across the released bar."""
    bars = [
        (f"{finding.attack}\n{_short(f.name)}", f) for finding in findings for f in finding.figures if f.unit == "AUC"
    ]

    def paint(ax: Axes) -> None:
        _margins(ax, left=0.24, right=0.83)
        for place, (_, figure) in enumerate(bars):
            _area_bar(ax, place, figure)
        ax.set_xlim(0, 1.12)
        ax.set_ylim(len(bars) - 0.4, -0.6)
        ax.set_yticks(range(len(bars)), [label for label, _ in bars], fontsize=6.5)
        ax.axvline(0.5, color=COLOURS["muted"], linewidth=0.8)
        ax.set_xlabel("AUC (0.5: a coin; line across a bar: the bound)")
        _legend(ax, [("raw update", _RAW), ("released", _RELEASED), ("bound", _BOUND)])

    alt = "; ".join(f"{label.replace(chr(10), ' ')}: AUC {figure.value:.2f}" for label, figure in bars)
    return make_chart("audit_auc", "What each test reaches", alt, paint)


def _area_bar(ax: Axes, place: int, figure: Figure) -> None:
    ink = COLOURS["ink"]
    colour = COLOURS[_RAW if figure.on == "raw" else _RELEASED]
    ax.barh(place, figure.value, xerr=2 * figure.standard_error, color=colour, height=0.66, ecolor=ink)
    ax.text(0.02, place, f"{figure.value:.2f}", va="center", fontsize=7.5, color=COLOURS["paper"])
    if figure.bound is not None:
        ax.plot([figure.bound] * 2, [place - 0.46, place + 0.46], color=ink, linewidth=2)


def _short(name: str) -> str:
    """A figure's name without the words that the colours say."""
    for long, short in (
        ("Reference patients known", "reference"),
        ("All others known", "all others"),
        ("Released, ", ""),
    ):
        name = name.replace(long, short)
    return name.replace(", one raw update of", ",").replace(" patients,", ",")


def _of_curve(curve: RocCurve) -> tuple[str, str]:
    """Its name in the legend, and its colour."""
    if curve.on == "raw":
        return "raw, one update", _RAW
    return ("released: all others", _RELEASED) if "others" in curve.name else ("released: reference", "sky")


def _roc(audit: Audit, finding: Finding) -> Chart:
    """ROC curves of the membership tests against the promise's."""
    promise = promise_of(audit.spend)

    def paint(ax: Axes) -> None:
        level = np.linspace(0, 1, 201)
        ax.plot(level, level, color=COLOURS["muted"], linewidth=0.8)
        if promise is not None:
            bound = for_a_patient(promise, audit.spend).over(audit.audited_rounds).true_positive_rate(level)
            ax.plot(level, bound, color=COLOURS[_BOUND], linewidth=1.3, linestyle=(0, (5, 3)))
            ax.fill_between(level, bound, 1, color=COLOURS["grid"], alpha=0.5, linewidth=0)
        for curve in finding.curves:
            ax.plot(curve.fpr, curve.tpr, color=COLOURS[_of_curve(curve)[1]], linewidth=1.5)
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1.01)
        ax.set_xlabel("False positive rate")
        ax.set_ylabel("True positive rate")
        bound_name = [("bound (dashed)", _BOUND)] if promise else []
        _legend(ax, [*dict.fromkeys(map(_of_curve, finding.curves)), *bound_name])

    alt = f"ROC of membership tests over {audit.audited_rounds} rounds; the promise's bound is dashed."
    return make_chart("audit_roc", "Membership: ROC against the bound", alt, paint, right=0.72)


def _canaries(finding: Finding) -> Chart:
    found = finding.histogram

    def paint(ax: Axes) -> None:
        if found is None:
            say(ax, "No canary was scored.")
            return
        for counts, colour in ((found.outside, "muted"), (found.inside, "orange")):
            ax.stairs(counts, found.edges, color=COLOURS[colour], fill=True, alpha=0.5)
            ax.stairs(counts, found.edges, color=COLOURS[colour], linewidth=1.2)
        ax.set_xlabel("Score, in standard deviations of the noise")
        ax.set_ylabel("Trials")
        grid(ax)
        _legend(ax, [("canary in", "orange"), ("canary out", "muted")])

    alt = "Scores of canaries that are in, and of those that are out."
    return make_chart("audit_canary", "Canaries in and out, all rounds", alt, paint, right=0.8)


def _epsilon(audit: Audit) -> Chart:
    """What the canary proves at least, against what the ledger claims."""
    claimed, lower = audit.claimed_epsilon, audit.lower
    bars = [("proven at least", lower.epsilon if lower else 0.0, _RELEASED)]
    bars += [("claimed at most", claimed, _BOUND)] if claimed is not None else []

    def paint(ax: Axes) -> None:
        _margins(ax, left=0.2)
        for place, (_, value, colour) in enumerate(bars):
            ax.barh(place, value, color=COLOURS[colour], height=0.5)
            ax.text(value, place, f"  {value:.2f}", va="center", fontsize=8.5)
        ax.set_yticks(range(len(bars)), [label for label, _, _ in bars])
        ax.set_ylim(len(bars) - 0.4, -0.6)
        ax.set_xlim(0, 1.2 * max([value for _, value, _ in bars] + [0.1]))
        ax.set_xlabel(f"ε over {audit.audited_rounds} rounds at δ {audit.spend.delta or 1e-5:g}")

    alt = ", ".join(f"{label} epsilon {value:.2f}" for label, value, _ in bars)
    return make_chart("audit_epsilon", "Epsilon: proven and claimed", alt, paint)


def _record(audit: Audit, example: Example, place: int) -> Chart:
    """A true record beside what the attack made of it."""
    colour = COLOURS[_RAW if example.on == "raw" else _RELEASED]

    def paint(ax: Axes) -> None:
        _margins(ax, bottom=0.34, right=0.8)
        at = np.arange(len(example.truth))
        ax.bar(at - 0.21, example.truth, width=0.4, color=COLOURS["muted"])
        ax.bar(at + 0.21, example.guess, width=0.4, color=colour)
        ax.axhline(0, color=COLOURS["muted"], linewidth=0.6)
        ax.set_xticks(at, [name.replace("_", " ") for name in audit.inputs], rotation=60, ha="right", fontsize=5.5)
        ax.set_ylabel("Scaled value")
        top = max(1.0, *(abs(v) for v in (*example.truth, *example.guess)))
        ax.set_ylim(-1.1 * top, 1.1 * top)
        _legend(ax, [("true record", "muted"), ("reconstructed", _RAW if example.on == "raw" else _RELEASED)])

    where = "raw update" if example.on == "raw" else "released"
    title = f"{where.capitalize()}: {example.name}, relative error {_error(example.error)}"
    return make_chart(f"audit_record_{place + 1}", title, f"{title}.", paint)


def _error(value: float) -> str:
    return "below 0.001" if value < 1e-3 else f"{value:.2f}" if math.isfinite(value) else "–"


def _margins(ax: Axes, *, left: float = 0.115, bottom: float = 0.185, right: float = 0.97) -> None:
    """Room for long names: where the axes begin and end in the figure."""
    ax.set_position((left, bottom, right - left, 0.955 - bottom))


def _legend(ax: Axes, entries: Sequence[tuple[str, str]]) -> None:
    """Names beside the axes, in the colours of what they name."""
    for place, (name, colour) in enumerate(entries):
        text = f"■ {name}"
        ax.text(1.02, 0.96 - 0.1 * place, text, transform=ax.transAxes, va="center", color=COLOURS[colour], fontsize=8)
