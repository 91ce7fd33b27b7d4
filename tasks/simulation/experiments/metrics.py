"""The experiments' numbers as DVC reads them: flat metrics, and tables of points to plot."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tasks.simulation.experiments import plan
from tasks.simulation.experiments.claims import CLAIMS, claim_word
from tasks.simulation.experiments.records import Numbers

#: Decimals of every metric: fewer than where another machine's rounding would show.
_DIGITS = 4
Points = list[dict[str, Any]]


def metrics(numbers: Numbers) -> dict[str, float]:
    """For `dvc metrics show` and `diff`: headline and standard error, settings' AUC, log-loss under privacy."""
    headline = numbers["federation"].comparison("federated, LR", "pooled, LR").difference
    found = {"fedavg_minus_pooled": headline.mean, "fedavg_minus_pooled_se": headline.standard_error}
    forty = numbers["fraction"].comparison("top 40%", "all").difference
    found |= {"top_40_minus_all": forty.mean, "top_40_minus_all_se": forty.standard_error}
    for name, measured in numbers.items():
        found |= {f"auc_{name}_{_key(arm.setting.name)}": arm.auc.mean for arm in measured.arms}
    private = numbers["privacy"].arms
    found |= {f"log_loss_privacy_{_key(arm.setting.name)}": arm.log_loss.mean for arm in private}
    return {key: round(value, _DIGITS) for key, value in found.items()}


def verdicts(numbers: Numbers) -> dict[str, str]:
    """Each claim's verdict by its title."""
    return {claim.title: claim_word(claim, numbers[claim.experiment]) for claim in CLAIMS}


def _key(name: str) -> str:
    """`svt, ε 8` as `svt_epsilon_8`."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower().replace("ε", "epsilon")).strip("_")


def plots(numbers: Numbers) -> dict[str, Points]:
    """Points by file name, for `dvc plots`: AUC in one column per line, since DVC draws each column apart.

    The first key is x. A line that ends early is absent from later points; the first point has every line.
    """
    return {
        "rounds.json": _rounds(numbers),
        "fraction.json": _fractions(numbers),
        "epsilon.json": _epsilons(numbers),
        "fraction_at_epsilon.json": _fractions_at_epsilon(numbers),
    }


def _wide(x: str, lines: Mapping[str, Mapping[float, float]]) -> Points:
    """Points from each line's {x: AUC}."""
    places = sorted({place for line in lines.values() for place in line})
    return [
        {x: place} | {name: round(line[place], _DIGITS) for name, line in lines.items() if place in line}
        for place in places
    ]


def _rounds(numbers: Numbers) -> Points:
    arms = numbers["rounds"].arms
    curves = {arm.setting.name: arm.auc_curve for arm in arms}
    return _wide("round", {name: dict(zip(c.rounds, c.mean, strict=True)) for name, c in curves.items()})


def _fractions(numbers: Numbers) -> Points:
    measured = numbers["fraction"]
    lines: dict[str, dict[float, float]] = {}
    for selection in ("top", "random"):
        for feedback in (False, True):
            names = {f: plan.share_name(selection, f, feedback=feedback) for f in plan.FRACTIONS}
            line = selection + (", error feedback" if feedback else "")
            lines[line] = {f: measured.arm(name).auc.mean for f, name in names.items()}
    return _wide("fraction", lines)


def _epsilons(numbers: Numbers) -> Points:
    measured = numbers["privacy"]
    return _wide(
        "epsilon",
        {
            mechanism: {e: measured.arm(plan.epsilon_name(mechanism, e)).auc.mean for e in plan.EPSILONS}
            for mechanism in plan.MECHANISMS
        },
    )


def _fractions_at_epsilon(numbers: Numbers) -> Points:
    measured = numbers["fraction_at_epsilon"]
    return _wide(
        "fraction",
        {
            f"ε {e:g}, rounds {n}": {f: measured.arm(plan.svt_name(f, e, n)).auc.mean for f in plan.FRACTIONS}
            for n in plan.BUDGET_ROUNDS
            for e in plan.EQUAL_EPSILONS
        },
    )
