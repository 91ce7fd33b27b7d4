"""The experiments' numbers as DVC reads them: flat metrics, and lists of points to plot."""

from __future__ import annotations

import re
from typing import Any

from tasks.experiments import plan
from tasks.experiments.claims import CLAIMS, overall
from tasks.experiments.paired import Summary
from tasks.experiments.records import Numbers

#: Decimals of every metric: fewer than where another machine's rounding would show.
_DIGITS = 4
Points = list[dict[str, Any]]


def metrics(numbers: Numbers) -> dict[str, float]:
    """For `dvc metrics show` and `diff`: the headline and its standard error, then every setting's AUC."""
    headline = numbers["federation"].comparison("federated, LR", "pooled, LR").difference
    found = {"fedavg_minus_pooled": headline.mean, "fedavg_minus_pooled_se": headline.standard_error}
    forty = numbers["fraction"].comparison("top 40%", "all").difference
    found |= {"top_40_minus_all": forty.mean, "top_40_minus_all_se": forty.standard_error}
    for name, measured in numbers.items():
        found |= {f"auc_{name}_{_key(arm.setting.name)}": arm.auc.mean for arm in measured.arms}
    return {key: round(value, _DIGITS) for key, value in found.items()}


def verdicts(numbers: Numbers) -> dict[str, str]:
    """Each claim's verdict by its title."""
    return {
        claim.title: overall(claim, [numbers[claim.experiment].comparison(*pair) for pair in claim.pairs])
        for claim in CLAIMS
    }


def _key(name: str) -> str:
    """`svt, ε 8` as `svt_epsilon_8`."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower().replace("ε", "epsilon")).strip("_")


def plots(numbers: Numbers) -> dict[str, Points]:
    """Points by file name, for `dvc plots`: one line for each value of the last key."""
    return {
        "rounds.json": _rounds(numbers),
        "fraction.json": _fractions(numbers),
        "epsilon.json": _epsilons(numbers),
        "fraction_at_epsilon.json": _fractions_at_epsilon(numbers),
    }


def _rounds(numbers: Numbers) -> Points:
    points: Points = []
    for arm in numbers["rounds"].arms:
        curve = arm.auc_curve
        for n, mean, low, high in zip(curve.rounds, curve.mean, curve.low, curve.high, strict=True):
            ends = {"low": round(low, _DIGITS), "high": round(high, _DIGITS)}
            points.append({"round": n, "auc": round(mean, _DIGITS), **ends, "arm": arm.setting.name})
    return points


def _point(place: dict[str, float], found: Summary, line: dict[str, str]) -> dict[str, Any]:
    figures = {"auc": found.mean, "low": found.low, "high": found.high}
    return place | {key: round(value, _DIGITS) for key, value in figures.items()} | line


def _fractions(numbers: Numbers) -> Points:
    points: Points = []
    for selection in ("top", "random"):
        for feedback in (False, True):
            line = {"selection": selection + (", error feedback" if feedback else "")}
            for fraction in plan.FRACTIONS:
                arm = numbers["fraction"].arm(plan.share_name(selection, fraction, feedback=feedback))
                points.append(_point({"fraction": fraction}, arm.auc, line))
    return points


def _epsilons(numbers: Numbers) -> Points:
    measured = numbers["privacy"]
    return [
        _point({"epsilon": e}, measured.arm(plan.epsilon_name(name, e)).auc, {"mechanism": name})
        for name in plan.MECHANISMS
        for e in plan.EPSILONS
    ]


def _fractions_at_epsilon(numbers: Numbers) -> Points:
    measured = numbers["fraction_at_epsilon"]
    return [
        _point({"fraction": f}, measured.arm(plan.svt_name(f, e, total)).auc, {"budget": f"ε {e:g}, rounds {total}"})
        for total in plan.BUDGET_ROUNDS
        for e in plan.EQUAL_EPSILONS
        for f in plan.FRACTIONS
    ]
