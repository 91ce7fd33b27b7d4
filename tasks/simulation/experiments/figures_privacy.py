"""The figures that are about a privacy budget."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tasks.privacy.accounting import membership_auc_bound, noise_multiplier_for
from tasks.simulation.experiments import plan
from tasks.simulation.experiments.drawing import (
    Picture,
    Theme,
    ends,
    error_bars,
    few_ticks,
    level,
    lines_behind,
    name_lines,
    picture,
)
from tasks.simulation.experiments.figures import AUC, fraction_axis, seeds
from tasks.simulation.experiments.records import Measured

DELTA = 1e-5
_MECHANISMS = (("distributed_dp", "blue"), ("local_dp", "green"), ("gaussian_update", "red"), ("svt", "mauve"))


def by_epsilon(measured: Measured) -> Picture:
    """AUC by total epsilon for each mechanism, beside the same training without any."""

    def paint(figure: Figure, theme: Theme) -> None:
        ax = figure.add_axes((0.09, 0.17, 0.635, 0.77))
        names = []
        for place, (mechanism, colour) in enumerate(_MECHANISMS):
            arms = [measured.arm(plan.epsilon_name(mechanism, e)).auc for e in plan.EPSILONS]
            x = [e * 1.045 ** (place - 1.5) for e in plan.EPSILONS]
            error_bars(ax, theme, colour, x, [arm.mean for arm in arms], ends(arms))
            names.append((arms[-1].mean, mechanism, colour))
        _epsilon_axis(ax)
        ax.set_ylabel(AUC)
        none = measured.arm("none").auc.mean
        level(ax, theme, none)
        lines_behind(ax)
        name_lines(ax, theme, [*names, (none, "no privacy", "")])

    none = measured.arm("none")
    caption = (
        f"AUC by total ε (δ = {DELTA:g}) after {none.judged_at} rounds: means of {seeds(measured)} with 95% "
        f"intervals; dashed: the same training without privacy, {none.auc.mean:.3f}."
    )
    alt = ", ".join(f"{arm.setting.name} {arm.auc.mean:.3f}" for arm in measured.arms)
    return picture("findings-epsilon", caption, f"AUC by mechanism and epsilon: {alt}.", (7.0, 3.3), paint)


def _epsilon_axis(ax: Axes) -> None:
    ax.set_xscale("log")
    few_ticks(ax, plan.EPSILONS, [f"{e:g}" for e in plan.EPSILONS])
    ax.set_xlim(0.82, 62)
    ax.set_xlabel("Total ε, all rounds (logarithmic)")


def fraction_at_epsilon(measured: Measured) -> Picture:
    """AUC by fraction sent by the sparse vector technique: a line for each total epsilon, a panel for its rounds."""

    def paint(figure: Figure, theme: Theme) -> None:
        axes = [figure.add_axes((0.08 + 0.425 * i, 0.17, 0.365, 0.71)) for i in range(2)]
        for ax, total in zip(axes, plan.BUDGET_ROUNDS, strict=True):
            names = _svt_lines(ax, theme, measured, total)
            fraction_axis(ax)
            ax.set_title("All of ε in one round" if total == 1 else f"ε divided among {total} rounds")
            lines_behind(ax)
            level(ax, theme, 0.5)
        low, high = zip(*(ax.get_ylim() for ax in axes), strict=True)
        for ax in axes:
            ax.set_ylim(min(low), max(high))
        axes[0].set_ylabel(AUC)
        name_lines(axes[1], theme, [*names, (0.5, "a coin", "")])

    caption = (
        "Sparse vector technique: AUC by fraction shared at equal total ε; means of "
        f"{seeds(measured)} with 95% intervals."
    )
    alt = ", ".join(f"{arm.setting.name} {arm.auc.mean:.3f}" for arm in measured.arms)
    return picture("findings-svt-fraction", caption, f"AUC by fraction at equal epsilon: {alt}.", (8.0, 3.1), paint)


def _svt_lines(ax: Axes, theme: Theme, measured: Measured, total: int) -> list[tuple[float, str, str]]:
    """One line for each epsilon; what to call it, and where it ends."""
    names = []
    for place, (epsilon, colour) in enumerate(zip(plan.EQUAL_EPSILONS, ("blue", "red"), strict=True)):
        found = [measured.arm(plan.svt_name(fraction, epsilon, total)).auc for fraction in plan.FRACTIONS]
        x = [100 * fraction + 1.2 * (place - 0.5) for fraction in plan.FRACTIONS]
        error_bars(ax, theme, colour, x, [one.mean for one in found], ends(found))
        names.append((found[-1].mean, f"ε = {epsilon:g}", colour))
    return names


def membership_bound(epsilon: float) -> float:
    """The largest AUC of any membership test against a Gaussian mechanism of this total epsilon at `DELTA`."""
    return membership_auc_bound(1 / noise_multiplier_for(epsilon, DELTA, 1))


def bound_words(bound: float) -> str:
    """An upper bound in three digits; what rounds to 1 is not 1."""
    return f"{bound:.3f}" if bound < 0.9995 else "> 0.999"


def membership() -> Picture:
    """What epsilon promises: the largest AUC that a membership test can reach. It follows from the accounting alone."""
    marked = [(e, membership_bound(e)) for e in plan.EPSILONS]

    def paint(figure: Figure, theme: Theme) -> None:
        ax = figure.add_axes((0.115, 0.18, 0.85, 0.76))
        x = np.geomspace(0.5, 70, 60)
        y = [membership_bound(float(epsilon)) for epsilon in x]
        ax.plot(x, y, color=theme.series["blue"], linewidth=1.6)
        ax.fill_between(x, y, 1, color=theme.grid, alpha=0.6, linewidth=0)
        ax.plot(*zip(*marked, strict=True), "o", color=theme.series["blue"], markersize=5)
        for epsilon, bound in marked:
            ax.text(epsilon * 1.06, bound - 0.012, bound_words(bound), ha="left", va="top", fontsize=8)
        ax.text(0.6, 0.93, "no test gets here", fontsize=8, color=theme.muted)
        ax.set_ylim(0.5, 1.025)
        _epsilon_axis(ax)
        ax.set_xlim(0.5, 70)
        ax.set_ylabel("Membership test, AUC at most")
        lines_behind(ax)

    caption = (
        f"What ε promises a patient under Gaussian noise (δ = {DELTA:g}): no membership test has an AUC above "
        "Φ(μ/√2). Computed, not measured."
    )
    alt = ", ".join(f"epsilon {epsilon:g}: {bound_words(bound)}" for epsilon, bound in marked)
    return picture("findings-membership", caption, f"Bound on the AUC of a membership test: {alt}.", (5.6, 2.9), paint)
