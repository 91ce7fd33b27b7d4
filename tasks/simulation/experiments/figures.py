"""The figures of the findings, each from the numbers of one or more experiments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.simulation.experiments import plan
from tasks.simulation.experiments.drawing import (
    Picture,
    Theme,
    ends,
    error_bars,
    few_ticks,
    lines_behind,
    margin_zone,
    name_lines,
    picture,
)
from tasks.simulation.experiments.paired import MARGIN
from tasks.simulation.experiments.records import Cohort, Curve, Measured

AUC = "AUC on held-out patients"
_KINDS = (("federated", "blue"), ("pooled", "red"), ("local", "green"))
_MODELS = (("LR", "Logistic regression"), ("MLP", "MLP, 16 hidden units"))


def seeds(measured: Measured) -> str:
    """How many seeds, for a caption."""
    return f"{len(measured.seeds)} seeds"


def fraction_axis(ax: Axes) -> None:
    """Fractions of the update, in percent."""
    percents = [100 * fraction for fraction in plan.FRACTIONS]
    ax.set_xlabel("Shared, % of components")
    few_ticks(ax, percents, [f"{percent:.0f}" for percent in percents])
    ax.set_xlim(4, 106)


def patients(cohort: Cohort) -> Picture:
    """Patients per client: trained on and held out, those with the event darker."""
    sites = sorted(cohort.sites, key=lambda site: -(site.train + site.held_out))

    def paint(figure: Figure, theme: Theme) -> None:
        ax = figure.add_axes((0.085, 0.16, 0.70, 0.78))
        parts = (
            ("training, event", "blue", 1.0, [site.train_events for site in sites]),
            ("training, none", "blue", 0.45, [site.train - site.train_events for site in sites]),
            ("held out, event", "red", 1.0, [site.held_out_events for site in sites]),
            ("held out, none", "red", 0.45, [site.held_out - site.held_out_events for site in sites]),
        )
        below = np.zeros(len(sites))
        for place, (name, colour, strength, counts) in enumerate(parts):
            shade: Any = {"color": theme.series[colour], "alpha": strength}
            ax.bar(range(len(sites)), counts, bottom=below, width=0.74, edgecolor=theme.paper, linewidth=0.5, **shade)
            below += counts
            height = 0.62 + 0.09 * place
            ax.text(1.02, height, "■", transform=ax.transAxes, va="center", fontsize=10, **shade)
            ax.text(1.05, height, name, transform=ax.transAxes, va="center", fontsize=8)
        for place, total in enumerate(below):
            ax.text(place, total + 0.5, f"{total:.0f}", ha="center", va="bottom", fontsize=8)
        ax.set_xticks(range(len(sites)), [site.site for site in sites])
        ax.set_xlabel("Client")
        ax.set_ylabel("Patients")
        ax.set_ylim(0, 1.1 * below.max())
        lines_behind(ax)

    caption = (
        f"Patients per client: {cohort.num_train} trained on, {cohort.num_held_out} held out "
        f"(the split of seed {cohort.split_seed}); darker: those with the event."
    )
    alt = "; ".join(f"{site.site}: {site.train} and {site.held_out}" for site in sites)
    return picture(
        "findings-patients", caption, f"Patients trained on and held out per client. {alt}.", (7.2, 2.9), paint
    )


def _rounds_axis(ax: Axes, last: int) -> None:
    ticks = [n for n in (1, 2, 4, 10, 20, 50, 100, 200, 600) if n <= last]
    ax.set_xscale("log")
    few_ticks(ax, ticks, [str(n) for n in ticks])
    ax.set_xlim(1, last)
    ax.set_xlabel("Round (logarithmic)")


def _band(ax: Axes, theme: Theme, colour: str, curve: Curve) -> None:
    ax.fill_between(curve.rounds, curve.low, curve.high, color=theme.series[colour], alpha=0.16, linewidth=0)
    ax.plot(curve.rounds, curve.mean, color=theme.series[colour], linewidth=1.6)


def over_rounds(measured: Measured) -> Picture:
    """AUC over rounds: federated, pooled and local-only, one panel for each model."""

    def paint(figure: Figure, theme: Theme) -> None:
        axes = [figure.add_axes((0.075 + 0.475 * i, 0.16, 0.345, 0.72)) for i in range(2)]
        for ax, (model, title) in zip(axes, _MODELS, strict=True):
            names, last = [], 1
            for kind, colour in _KINDS:
                curve = measured.arm(f"{kind}, {model}").auc_curve
                _band(ax, theme, colour, curve)
                names.append((curve.mean[-1], "local only" if kind == "local" else kind, colour))
                last = max(last, curve.rounds[-1])
            _rounds_axis(ax, last)
            ax.set_title(title)
            lines_behind(ax)
            ax.set_ylim(_common([measured.arm(f"{k}, {m}").auc_curve for k, _ in _KINDS for m, _ in _MODELS]))
            name_lines(ax, theme, names)
        axes[0].set_ylabel(AUC)

    caption = (
        f"AUC over rounds, without privacy: mean of {seeds(measured)} and its 95% interval. "
        "A round of pooled training is one epoch over all patients."
    )
    return picture("findings-rounds", caption, f"{caption} {_last_means(measured)}", (8.0, 3.1), paint)


def _common(curves: Sequence[Curve]) -> tuple[float, float]:
    low = min(min(curve.low) for curve in curves)
    return max(0.0, low - 0.01), max(max(curve.high) for curve in curves) + 0.01


def _last_means(measured: Measured) -> str:
    judged = [f"{arm.setting.name} {arm.auc.mean:.3f}" for arm in measured.arms]
    return f"After round {measured.arms[0].judged_at}: {', '.join(judged)}."


def federated_minus_pooled(measured: Measured) -> Picture:
    """The paired difference over rounds, against the margin within which it counts as none."""
    curves = {(one.arm, one.against): one.curve for one in measured.difference_curves}
    shown = [
        (curves[f"federated, {m}", f"pooled, {m}"], name, c)
        for (m, name), c in zip(_MODELS, ("blue", "red"), strict=True)
    ]

    def paint(figure: Figure, theme: Theme) -> None:
        ax = figure.add_axes((0.115, 0.17, 0.62, 0.77))
        margin_zone(ax, theme, MARGIN)
        for curve, _, colour in shown:
            _band(ax, theme, colour, curve)
        _rounds_axis(ax, max(curve.rounds[-1] for curve, _, _ in shown))
        ax.set_ylabel("AUC, federated minus pooled")
        lines_behind(ax)
        name_lines(ax, theme, [(curve.mean[-1], name, colour) for curve, name, colour in shown])

    caption = (
        f"Federated minus pooled training, paired over {seeds(measured)}, with 95% intervals. "
        f"Grey: within {MARGIN:g}, which counts as none."
    )
    return picture("findings-difference", caption, caption, (6.4, 3.0), paint)


def by_fraction(measured: Measured) -> Picture:
    """AUC by fraction shared, and its paired difference from sharing all, for top and random selection."""
    kinds = (("top", False, "blue"), ("random", False, "red"), ("top", True, "green"), ("random", True, "mauve"))

    def paint(figure: Figure, theme: Theme) -> None:
        axes = [figure.add_axes((0.075 + 0.40 * i, 0.17, 0.315, 0.71)) for i in range(2)]
        margin_zone(axes[1], theme, MARGIN)
        names = []
        for place, (mechanism, feedback, colour) in enumerate(kinds):
            aside = 1.0 * (place - 1.5)
            arms = [measured.arm(plan.share_name(mechanism, f, feedback=feedback)) for f in plan.FRACTIONS]
            x = [100 * fraction + aside for fraction in plan.FRACTIONS]
            error_bars(axes[0], theme, colour, x, [arm.auc.mean for arm in arms], ends([arm.auc for arm in arms]))
            less = [measured.comparison(arm.setting.name, "all").difference for arm in arms[:-1]]
            error_bars(axes[1], theme, colour, x[:-1], [one.mean for one in less], ends(less))
            names.append((less[-1].mean, mechanism + (", feedback" if feedback else ""), colour))
        for ax, title in zip(axes, (AUC, "Difference from sharing all, paired"), strict=True):
            ax.set_title(title)
            fraction_axis(ax)
            lines_behind(ax)
        axes[1].set_xlim(4, 76)
        name_lines(axes[1], theme, names)

    caption = (
        f"Fraction of the update that is shared, without privacy, after {measured.arms[0].judged_at} rounds: means of "
        f"{seeds(measured)} with 95% intervals. Right: paired; grey: within {MARGIN:g}. "
        "Feedback: what is not sent is added to the next round's update."
    )
    alt = ", ".join(f"{arm.setting.name} {arm.auc.mean:.3f}" for arm in measured.arms)
    return picture("findings-fraction", caption, f"AUC by fraction shared: {alt}.", (8.4, 3.2), paint)


def choices(experiments: Sequence[Measured]) -> Picture:
    """Paired differences of restarting, weighting and local work, one under the other."""
    found = [(one, comparison) for one in experiments for comparison in one.judged()]

    def paint(figure: Figure, theme: Theme) -> None:
        ax = figure.add_axes((0.29, 0.2, 0.67, 0.77))
        margin_zone(ax, theme, MARGIN, upright=True)
        for place, (_, comparison) in enumerate(found):
            one = comparison.difference
            ax.plot([one.low, one.high], [place, place], color=theme.series["blue"], linewidth=1.8)
            ax.plot(one.mean, place, "o", color=theme.series["blue"], markersize=5.5)
        labels = [f"{comparison.arm} minus {comparison.against}" for _, comparison in found]
        ax.set_yticks(range(len(found)), labels, color=theme.ink)
        ax.set_ylim(len(found) - 0.4, -0.6)
        reach = 1.1 * max(MARGIN, *(abs(end) for _, c in found for end in (c.difference.low, c.difference.high)))
        ax.set_xlim(-reach, reach)
        ax.set_xlabel("Difference of AUC, paired (right: the first is better)")
        lines_behind(ax, "x")

    first = experiments[0]
    caption = (
        f"Optimizer restarted or kept, weighting, and local work, after {first.arms[0].judged_at} rounds: paired "
        f"differences over {seeds(first)} with 95% intervals. Grey: within {MARGIN:g}."
    )
    alt = "; ".join(f"{c.arm} minus {c.against} {c.difference.mean:+.4f}" for _, c in found)
    return picture("findings-choices", caption, f"Paired differences: {alt}.", (6.6, 2.7), paint)
