"""A closed round as the page shows it: every sentence and figure that needs a decision, ready for the template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tasks.learning.metrics import Metric, metrics_of
from tasks.report import words
from tasks.rounds.page.privacy_view import warning
from tasks.store import layout
from tasks.store.records.model import NoisedFigures
from tasks.store.records.report import Baselines, RoundMetrics, SiteMetrics, SiteRow
from tasks.study.sections import Study

Tone = Literal["good", "warn", "bad", "plain"]
SUPPRESSED = "suppressed"
_MAX_DAMAGED = 20
DEMO_ONLY = "Possible only because this demo's patients may be pooled; a real federation has no such line."


@dataclass(frozen=True)
class Banner:
    """The coloured line at the top."""

    tone: Tone
    title: str
    text: str = ""
    missing: tuple[tuple[str, str], ...] = ()
    items: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tile:
    """One figure of the first screen."""

    label: str
    value: str
    note: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class SiteLine:
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


def banners(now: RoundMetrics, damaged: Sequence[str] = ()) -> list[Banner]:
    """The status of the round, the warning that a study without privacy carries, and what cannot be read."""
    shown = [_status(now)]
    if (text := warning(now)) is not None:
        what = "the sum of raw updates is told" if now.channel.adds_only else "raw updates leave the sites"
        shown.insert(0, Banner("bad", f"NO PRIVACY: {what}", text))
    if damaged:
        what = words.count(len(damaged), "record") + " of this study cannot be read, and no figure here is of them"
        shown.append(Banner("warn", what, items=tuple(damaged[:_MAX_DAMAGED])))
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


def round_tiles(now: RoundMetrics, baselines: Baselines | None) -> list[Tile]:
    """The first screen's figures of the model and of the round."""
    patients = sum(row.num_examples or 0 for row in now.sites if row.contributed)
    tone: Tone = "plain" if now.status == "complete" else "warn" if now.status == "partial" else "bad"
    private = [_noised_tile(now, now.noised)] if now.noised else []
    return [
        *private,
        *(_metric_tile(now, metric, baselines) for metric in metrics_of(now.task)[:2]),
        Tile("Sites", f"{now.num_contributors} of {len(now.sites)}", words.count(patients, "training patient"), tone),
        Tile("Time", words.duration(now.seconds), f"slowest site: {now.slowest or words.NONE}"),
        Tile("Uploaded", words.size(now.num_bytes), _of_dense(now)),
    ]


def _of_dense(now: RoundMetrics) -> str:
    share = now.share_of_dense
    told = f"; {now.codec}: {words.percent(share)} of dense float32" if share is not None else ""
    return f"all sites, this round{told}"


def _noised_tile(now: RoundMetrics, found: NoisedFigures) -> Tile:
    told = [metric for metric in metrics_of(now.task) if metric.name in found.figures]
    first = told[0]
    value = f"{words.number(found.figures[first.name], 2)} ± {words.number(found.errors[first.name], 2)}"
    return Tile(f"{first.label} under noise", value, "all sites, inside ε; of the model before this round")


def _metric_tile(now: RoundMetrics, metric: Metric, baselines: Baselines | None) -> Tile:
    label, held_out, reporting = metric.label, now.pooled.get(metric.name), now.figures.get(metric.name)
    pooled_training = baselines.pooled.get(metric.name) if baselines else None
    goal = f"; pooled training {words.number(pooled_training)}" if pooled_training is not None else ""
    if held_out is not None:
        return Tile(label, words.number(held_out), f"all held-out patients (demo only){goal}")
    if reporting is not None:
        return Tile(label, words.number(reporting), f"held-out patients of reporting sites{goal}")
    if now.model_sha256 is None:
        return Tile(label, words.NONE, "no new model")
    why = "stays at the sites" if now.promises else "suppressed: too few patients at each site"
    return Tile(label, words.NONE, why)


def metric_note(study: Study, now: RoundMetrics) -> str:
    """What stands behind the figures of the model, in words."""
    cell = study.evaluation.min_cell
    if now.model_sha256 is None:
        told = "This round made no model."
    elif now.promises:
        told = "Each site validates the model; its own figures stay there, outside of what ε covers."
    elif not now.figures:
        told = f"Suppressed: no site has {cell} held-out patients in every cell, so no site's own figure may leave it."
    else:
        told = f"Reporting sites: those with at least {cell} held-out patients in every cell."
    if now.pooled:
        told += " Global model: on all held-out patients together."
    if now.strategy is not None:
        told += f" It was made by the strategy {now.strategy.name}, which began in round {now.strategy.since}."
    return told


def sites(now: RoundMetrics, steps: Sequence[str]) -> list[SiteLine]:
    """The table of sites, in the record's order."""
    total = sum(row.weight or 0.0 for row in now.sites)
    return [_site(row, steps, total, metrics_of(now.task)[:2]) for row in now.sites]


def _site(row: SiteRow, steps: Sequence[str], total_weight: float, metrics: Sequence[Metric]) -> SiteLine:
    data, data_tone = _data_check(row)
    return SiteLine(
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
        held_out=_held_out(row.metrics, metrics),
        epsilon=words.spend(row.epsilon),
    )


def _data_check(row: SiteRow) -> tuple[str, Tone]:
    if row.failed_expectations or row.data_valid is False:
        return "failed", "bad"
    if row.waived_expectations:
        return "passed, with waiver", "warn"
    return ("not run", "plain") if row.data_valid is None else ("passed", "good")


def _held_out(found: SiteMetrics | None, metrics: Sequence[Metric]) -> tuple[str, ...]:
    """Patients and the metrics; one word for all of them where all are suppressed."""
    if found is None:
        return (words.NONE,) * (1 + len(metrics))
    n = SUPPRESSED if found.num_examples is None else str(found.num_examples)
    shown = [found.figures.get(metric.name) for metric in metrics]
    if found.num_examples is None and not any(value is not None for value in shown):
        return (SUPPRESSED,)
    return (n, *(SUPPRESSED if value is None else words.number(value) for value in shown))


@dataclass(frozen=True)
class FigureRow:
    """One figure of the model in the table of all of them, by where it was measured."""

    label: str
    better: str
    pooled: str
    reporting: str
    noised: str


def figure_rows(now: RoundMetrics) -> list[FigureRow]:
    """Every metric of the round's task of which something is known."""
    rows = []
    for metric in metrics_of(now.task):
        noised = now.noised.figures.get(metric.name) if now.noised else None
        error = now.noised.errors.get(metric.name) if now.noised else None
        known = (now.pooled.get(metric.name), now.figures.get(metric.name), noised)
        if any(value is not None for value in known):
            pooled, reporting, under_noise = (words.number(value) for value in known)
            told = f"{under_noise} ± {words.number(error)}" if error is not None else under_noise
            rows.append(FigureRow(metric.label, metric.direction, pooled, reporting, told))
    return rows


def objects(now: RoundMetrics) -> list[tuple[str, str]]:
    """Object keys of what the round left in the store."""
    study, server_round = now.study, now.server_round
    keys = [("Plan", layout.plan(study, server_round)), ("Round record", layout.round_metrics(study, server_round))]
    if now.model_sha256 is not None:
        keys += [("Selection", layout.selection(study, server_round)), ("Model", layout.model(study, server_round))]
        keys += [("Model card", layout.card(study, server_round))]
    return [*keys, ("Privacy ledger", layout.above("ledger_entry", study=study))]
