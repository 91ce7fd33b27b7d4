"""A closed round as the page shows it: every sentence and figure that needs a decision, ready for the template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tasks import layout
from tasks.privacy.local_dp import NEIGHBOURS as LOCAL_DP_NEIGHBOURS
from tasks.records import Baselines, RoundMetrics, SiteMetrics, SiteRow
from tasks.report import words
from tasks.study import LocalDP, Study

Tone = Literal["good", "warn", "bad", "plain"]
SUPPRESSED = "suppressed"
DEMO_ONLY = "Possible only because this demo's patients may be pooled; a real federation has no such line."


@dataclass(frozen=True)
class Banner:
    """The coloured line at the top."""

    tone: Tone
    title: str
    text: str = ""
    missing: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Tile:
    """One figure of the first screen."""

    label: str
    value: str
    note: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Privacy:
    """What the privacy officer asks first. `share` is the part of the budget that is spent, in percent."""

    plain: str
    unit: str
    delta: str
    facts: tuple[tuple[str, str], ...]
    spent: str
    left: str
    budget: str
    share: float | None


@dataclass(frozen=True)
class Site:
    """One line of the table of sites."""

    name: str
    tone: Tone
    took_part: str
    reason: str
    data: str
    data_tone: Tone
    failing: tuple[str, ...]
    waived: tuple[str, ...]
    patients: str
    weight: str
    uploaded: str
    seconds: tuple[str, ...]
    held_out: tuple[str, ...]
    epsilon: str


def banners(now: RoundMetrics) -> list[Banner]:
    """The status of the round, and the warning that a study without privacy carries."""
    shown = [_status(now)]
    if now.mechanism == "none":
        text = "Anyone who reads an update may reconstruct patient records from it. Only for public data."
        shown.insert(0, Banner("bad", "NO PRIVACY: raw updates leave the sites", text))
    return shown


def _status(now: RoundMetrics) -> Banner:
    total = len(now.sites)
    missing = tuple((row.site, row.reason or "no reason recorded") for row in now.sites if not row.contributed)
    if now.status == "complete":
        return Banner("good", f"Complete: {now.num_contributors} of {total} contributed")
    if now.status == "partial":
        return Banner("warn", f"Partial: {now.num_contributors} of {total} contributed", missing=missing)
    text = f"{now.message} The model of the round before stands."
    return Banner("bad", f"Failed: no new model, {now.num_contributors} of {total} contributed", text, missing)


def tiles(now: RoundMetrics, baselines: Baselines | None) -> list[Tile]:
    """The first screen's figures of the model and of the round."""
    patients = sum(row.num_examples or 0 for row in now.sites if row.contributed)
    tone: Tone = "plain" if now.status == "complete" else "warn" if now.status == "partial" else "bad"
    return [
        _metric_tile(now, "AUC", "auc", baselines.pooled_auc if baselines else None),
        _metric_tile(now, "Log loss", "log_loss", baselines.pooled_log_loss if baselines else None),
        Tile("Sites", f"{now.num_contributors} of {len(now.sites)}", words.count(patients, "training patient"), tone),
        Tile("Time", words.duration(now.seconds), f"slowest site: {now.slowest or words.NONE}"),
        Tile("Uploaded", words.size(now.num_bytes), "all sites, this round"),
    ]


def _metric_tile(now: RoundMetrics, label: str, metric: str, pooled_training: float | None) -> Tile:
    held_out, reporting = getattr(now, f"pooled_{metric}"), getattr(now, metric)
    goal = f"; pooled training {words.number(pooled_training)}" if pooled_training is not None else ""
    if held_out is not None:
        return Tile(label, words.number(held_out), f"all held-out patients (demo only){goal}")
    if reporting is not None:
        return Tile(label, words.number(reporting), f"held-out patients of reporting sites{goal}")
    why = "no new model" if now.model_sha256 is None else "suppressed: too few patients at each site"
    return Tile(label, words.NONE, why)


def metric_note(study: Study, now: RoundMetrics) -> str:
    """What stands behind AUC and log loss, in words."""
    cell = study.evaluation.min_cell
    if now.model_sha256 is None:
        told = "This round made no model."
    elif now.auc is None:
        told = f"Suppressed: no site has {cell} held-out patients in every cell, so no site's own figure may leave it."
    else:
        told = f"Reporting sites: those with at least {cell} held-out patients in every cell."
    return told if now.pooled_auc is None else f"{told} Global model: on all held-out patients together."


def privacy(study: Study, now: RoundMetrics) -> Privacy:
    """Mechanism, unit, spend and its meaning."""
    known = now.epsilon is not None and now.epsilon_budget
    unit = {"local_dp": "one patient", "none": "nobody"}.get(now.mechanism, "what the model card says")
    return Privacy(
        plain=_in_plain_words(now),
        unit=unit,
        delta=words.small(now.delta),
        facts=_privacy_facts(study, now, unit),
        spent=words.spend(now.epsilon),
        left=words.left(now.epsilon, now.epsilon_budget),
        budget=words.spend(now.epsilon_budget),
        share=min(100.0, 100 * (now.epsilon or 0) / (now.epsilon_budget or 1)) if known else None,
    )


def _in_plain_words(now: RoundMetrics) -> str:
    if now.mechanism == "none":
        return "Nothing protects a patient: whoever sees an update may learn who took part, and rebuild records."
    if now.mechanism != "local_dp" or now.epsilon is None or now.delta is None:
        return "No patient-level guarantee is on record for this round."
    right = f"{100 * words.guess_accuracy(now.epsilon, now.delta):.0f}\u00a0%"
    return (
        f"Someone who reads every update so far and guesses whether a given patient took part is right at most {right} "
        "of the time; a coin toss is right 50\u00a0%."
    )


def _privacy_facts(study: Study, now: RoundMetrics, unit: str) -> tuple[tuple[str, str], ...]:
    small = f"cells under {study.evaluation.min_cell} patients"
    if now.mechanism == "none":
        return (("Mechanism", "none"), ("Protects", unit), ("ε, δ", "none are accounted for"), ("Suppressed", small))
    neighbours = LOCAL_DP_NEIGHBOURS
    spent = (
        f"{words.spend(now.epsilon)} of {words.spend(now.epsilon_budget)}: all rounds so far, the site with the most"
    )
    return (
        ("Mechanism", _mechanism(study, now)),
        ("Protects", unit),
        ("Neighbours", neighbours if now.mechanism == "local_dp" else words.NONE),
        ("ε spent", spent),
        ("ε left", words.left(now.epsilon, now.epsilon_budget)),
        ("δ", words.small(now.delta)),
        ("Covered", "every update, and every model made from them"),
        ("Not covered", f"counts and metrics in this report; {small} are suppressed instead"),
    )


def _mechanism(study: Study, now: RoundMetrics) -> str:
    if now.mechanism != "local_dp" or not isinstance(study.privacy, LocalDP):
        return now.mechanism
    clip = f"{study.privacy.clip_norm:g}"
    return f"local_dp: a site clips each patient's gradient to norm {clip} and adds Gaussian noise before it uploads"


def sites(now: RoundMetrics, steps: Sequence[str]) -> list[Site]:
    """The table of sites, in the record's order."""
    total = sum(row.weight or 0.0 for row in now.sites)
    return [_site(row, steps, total) for row in now.sites]


def _site(row: SiteRow, steps: Sequence[str], total_weight: float) -> Site:
    data, data_tone = _data_check(row)
    return Site(
        name=row.site,
        tone="good" if row.contributed else "warn",
        took_part="yes" if row.contributed else "no",
        reason="" if row.contributed else row.reason or "no reason recorded",
        data=data,
        data_tone=data_tone,
        failing=row.failed_expectations,
        waived=row.waived_expectations,
        patients=words.NONE if row.num_examples is None else str(row.num_examples),
        weight=words.percent(row.weight / total_weight) if row.weight and total_weight else words.NONE,
        uploaded=words.size(row.num_bytes) if row.num_bytes else words.NONE,
        seconds=tuple(words.number(row.seconds.get(name), 2) for name in steps),
        held_out=_held_out(row.metrics),
        epsilon=words.spend(row.epsilon),
    )


def _data_check(row: SiteRow) -> tuple[str, Tone]:
    if row.failed_expectations or row.data_valid is False:
        return "failed", "bad"
    if row.waived_expectations:
        return "passed, with waiver", "warn"
    return ("not run", "plain") if row.data_valid is None else ("passed", "good")


def _held_out(metrics: SiteMetrics | None) -> tuple[str, ...]:
    """Patients, AUC and log loss; one word for all three where all are suppressed."""
    if metrics is None:
        return (words.NONE,) * 3
    n = None if metrics.num_examples is None else str(metrics.num_examples)
    auc, log_loss = (None if value is None else words.number(value) for value in (metrics.auc, metrics.log_loss))
    if n is auc is log_loss is None:
        return (SUPPRESSED,)
    return tuple(SUPPRESSED if value is None else value for value in (n, auc, log_loss))


def objects(now: RoundMetrics) -> list[tuple[str, str]]:
    """Object keys of what the round left in the store."""
    study, server_round = now.study, now.server_round
    keys = [("Plan", layout.plan(study, server_round)), ("Round record", layout.round_metrics(study, server_round))]
    if now.model_sha256 is not None:
        keys += [("Selection", layout.selection(study, server_round)), ("Model", layout.model(study, server_round))]
        keys += [("Model card", layout.card(study, server_round))]
    return [*keys, ("Privacy ledger", f"{layout.ledger_prefix(study)}/")]
