"""Closing a round: move the pointer, write down what happened, publish the report."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, TypeVar

from pydantic import BaseModel

from tasks.data.checks.runner import ValidationResult, at_every_site
from tasks.errors import (
    ObjectExists,
    ObjectMissing,
    QuorumMissed,
    RoundRefused,
    StoreError,
    StoreUnavailable,
)
from tasks.foreign.bounds import MAX_LONG_TEXT, MAX_NAMED, shorten
from tasks.learning.tasks import task_of
from tasks.rounds.channels.channel import hub_channel
from tasks.rounds.hub.context import HubContext
from tasks.rounds.hub.selection import largest_spend
from tasks.rounds.pooled import pooled_figures
from tasks.store import layout
from tasks.store.hub_signature import sign_as_hub
from tasks.store.objects import to_json
from tasks.store.records.model import ModelCard, ModelRef, Pointer
from tasks.store.records.report import RoundMetrics, SiteMetrics, SiteRow
from tasks.store.records.round import Chosen, Plan, Selection, Settled

log = logging.getLogger(__name__)
Written = TypeVar("Written", bound=BaseModel)
_STEPS = ("train_local", "privatize_and_upload", "validate_global")


def close_round(hub: HubContext, server_round: int, run_id: str | None = None) -> RoundMetrics:
    """Move the pointer to the round's model and write the round's record; a rerun finds both and changes nothing.

    `run_id` is the run that closes the round: another one may have opened it and died.

    Raises:
        RoundRefused: the pointer has moved past this round: another run closed a later one.
    """
    closed = hub.closed_round(server_round)
    if closed is not None:
        return closed
    plan = hub.plan(server_round)
    selection, card = _model_of(hub, plan)
    _tell_closed(hub, plan, selection, card)
    if card is not None:
        _move_pointer(hub, card)
    metrics = _summarise(hub, plan, selection, card).model_copy(update={"run_id": run_id or plan.run_id})
    try:
        hub.store.create_record(layout.round_metrics(hub.name, server_round), metrics)
    except ObjectExists:  # another try has closed it at the same moment
        return hub.closed_round(server_round) or metrics
    return metrics


def _tell_closed(hub: HubContext, plan: Plan, selection: Selection | None, card: ModelCard | None) -> None:
    """Tell the sites, before anything else: from now on nobody works on this round."""
    sites = tuple(chosen.site for chosen in selection.chosen) if selection and card else ()
    settled = Settled(study=plan.study, server_round=plan.server_round, status=_status(selection, card), sites=sites)
    key = layout.closed(plan.study, plan.server_round)
    hub.store.put(key, to_json(sign_as_hub(settled, hub.secrets_dir)), content_type="application/json")


def _status(selection: Selection | None, card: ModelCard | None) -> Literal["complete", "partial", "failed"]:
    if selection is None or card is None:
        return "failed"
    return "partial" if selection.missing else "complete"


def require_model(metrics: RoundMetrics) -> None:
    """Make a failed round fail its task too. Raises QuorumMissed."""
    if metrics.status == "failed":
        raise QuorumMissed(f"round {metrics.server_round} of {metrics.study} made no model: {metrics.message}")


def _model_of(hub: HubContext, plan: Plan) -> tuple[Selection | None, ModelCard | None]:
    try:
        selection = hub.store.get_record(layout.selection(plan.study, plan.server_round), Selection)
        return selection, hub.store.get_record(layout.card(plan.study, plan.server_round), ModelCard)
    except ObjectMissing:
        return None, None


def _move_pointer(hub: HubContext, card: ModelCard) -> None:
    pointer, etag = hub.pointer()
    if _is_moved(hub, pointer, card):
        return
    if pointer is not None and pointer.model != card.base_model:
        raise RoundRefused(
            f"{hub.name}: round {card.server_round} was trained from another model than the newest, that of round "
            f"{pointer.server_round}: it is void"
        )
    moved = Pointer(
        study=hub.name,
        server_round=card.server_round,
        model=card.model,
        evaluated_model=card.evaluated_model,
        averaged_rounds=card.averaged_rounds,
    )
    try:
        hub.store.replace(layout.latest(hub.name), to_json(moved), etag=etag)
    except ObjectExists:  # another run's move, or our own whose answer was lost
        if not _is_moved(hub, hub.pointer()[0], card):
            raise


def _is_moved(hub: HubContext, pointer: Pointer | None, card: ModelCard) -> bool:
    """Whether the pointer has been at this round: it is there, or at a model that came from this one.

    Raises:
        RoundRefused: it is at another model of this round, or past it by another way.
    """
    if pointer is None or pointer.server_round < card.server_round:
        return False
    model: ModelRef | None = pointer.model
    while model is not None and model.server_round > card.server_round:
        model = hub.store.get_record(layout.card(hub.name, model.server_round), ModelCard).base_model
    if model == card.model:
        return True
    raise RoundRefused(f"{hub.name} is at round {pointer.server_round} already: round {card.server_round} is void")


def _summarise(hub: HubContext, plan: Plan, selection: Selection | None, card: ModelCard | None) -> RoundMetrics:
    missing = selection.missing if selection else hub_channel(hub, plan).missing()
    chosen = {c.site: c for c in selection.chosen} if selection and card else {}
    metrics = {site: _site_metrics(hub, plan, site, card) for site in hub.study.sites}
    data = {site: _validation(hub, plan, site) for site in metrics}
    rows = tuple(_row(data[s], s, chosen.get(s), missing.get(s, ""), metrics[s]) for s in metrics)
    spend = largest_spend(selection) if selection else None
    closed_at = datetime.now(UTC)
    return RoundMetrics(
        study=plan.study,
        server_round=plan.server_round,
        run_id=plan.run_id,
        status=_status(selection, card),
        message=_message(rows, plan),
        task=hub.study.label.task,
        mechanism=plan.privacy.mechanism,
        channel=plan.channel,
        codec=plan.codec.name,
        promise=spend,
        opened_at=plan.opened_at,
        closed_at=closed_at,
        seconds=max(0.0, round((closed_at - plan.opened_at).total_seconds(), 3)),
        total_rounds=plan.total_rounds,
        idle_expectations=_idle(list(data.values())),
        sites=rows,
        num_contributors=len(chosen),
        num_bytes=sum(row.num_bytes for row in rows),
        dense_bytes=_dense_bytes(hub, plan, len(chosen)),
        epsilon=spend.epsilon if spend else None,
        epsilon_budget=spend.epsilon_budget if spend else getattr(plan.privacy, "epsilon", None),
        delta=spend.delta if spend else getattr(plan.privacy, "delta", None),
        model_sha256=card.model.sha256 if card else None,
        figures=_weighted(rows),
        pooled=_pooled(hub, card) if card else {},
        noised=card.noised if card else None,
        strategy=card.strategy if card else None,
        step_seconds={step: round(sum(row.seconds.get(step, 0.0) for row in rows), 3) for step in _STEPS},
        slowest=_slowest(rows),
    )


def _pooled(hub: HubContext, card: ModelCard) -> dict[str, float]:
    """Figures for the demo; the pointer has moved, so what breaks in a study's own model leaves them out."""
    try:
        return pooled_figures(hub.study, hub.store, card.evaluated_model)
    except StoreUnavailable:
        raise
    except Exception:
        log.exception("round %d of %s is closed without pooled figures", card.server_round, hub.name)
        return {}


def _dense_bytes(hub: HubContext, plan: Plan, contributors: int) -> int | None:
    """A dense update holds the tensors that the model holds, and is as long; None where the model is not there."""
    try:
        return contributors * hub.store.size(plan.base_model.key)
    except ObjectMissing:
        return None


def _message(rows: Sequence[SiteRow], plan: Plan) -> str:
    have = sum(row.contributed for row in rows)
    missing = "; ".join(f"{row.site}: {row.reason}" for row in rows if not row.contributed and row.reason)
    text = f"{have} of {len(rows)} contributed"
    needed = len(rows) if plan.strict else plan.min_sites
    if have < needed:
        text += f", {needed} are needed"
    return shorten(f"{text}. Missing: {missing}" if missing else text, MAX_LONG_TEXT)


def _validation(hub: HubContext, plan: Plan, site: str) -> ValidationResult | None:
    return _written(hub, layout.data_validation(plan.study, plan.server_round, site), ValidationResult)


def _idle(results: Sequence[ValidationResult | None]) -> tuple[str, ...]:
    """None where a site is missing, or does not tell: it may have the rows."""
    told = [result for result in results if result is not None]
    return at_every_site(told, "few")[:MAX_NAMED] if len(told) == len(results) else ()


def _row(
    data: ValidationResult | None, site: str, chosen: Chosen | None, reason: str, metrics: SiteMetrics | None
) -> SiteRow:
    facts = (
        {
            "num_examples": chosen.num_examples,
            "weight": chosen.weight,
            "num_bytes": chosen.num_bytes,
            "releases": chosen.spend.releases,
            "epsilon": chosen.spend.epsilon,
        }
        if chosen
        else {"reason": reason}
    )
    return SiteRow(
        site=site,
        contributed=chosen is not None,
        data_valid=data.success if data else None,
        seconds={
            **{step: chosen.seconds[step] for step in _STEPS if chosen and step in chosen.seconds},
            **({"validate_global": metrics.seconds} if metrics else {}),
        },
        metrics=metrics,
        failed_expectations=tuple(check.id for check in data.failures[:MAX_NAMED]) if data else (),
        waived_expectations=tuple(check.id for check in data.waived[:MAX_NAMED]) if data else (),
        **facts,
    )


def _site_metrics(hub: HubContext, plan: Plan, site: str, card: ModelCard | None) -> SiteMetrics | None:
    """What a site has measured on this round's model; what is about anything else, or what no model
    can have, counts as not written.
    """
    metrics = _written(hub, layout.site_metrics(plan.study, plan.server_round, site), SiteMetrics)
    if metrics is None or card is None:
        return None
    said = (metrics.study, metrics.server_round, metrics.site, metrics.model_sha256)
    if said != (plan.study, plan.server_round, site, card.evaluated_model.sha256):
        return None
    known = {metric.name: metric for metric in task_of(hub.study.label).metrics}
    possible = all(name in known and known[name].allows(value) for name, value in metrics.figures.items())
    return metrics if possible else None


def _written(hub: HubContext, key: str, record: type[Written]) -> Written | None:
    """A record that a site may not have written; what is no such record counts as not written."""
    try:
        return hub.store.get_record(key, record)
    except StoreUnavailable:
        raise
    except StoreError:
        return None


def _weighted(rows: Sequence[SiteRow]) -> dict[str, float]:
    """Each figure's mean over the sites that may report it, weighted by their held-out patients."""
    pairs: dict[str, list[tuple[float, int]]] = {}
    for row in rows:
        if row.metrics and row.metrics.num_examples:
            for name, value in row.metrics.figures.items():
                pairs.setdefault(name, []).append((value, row.metrics.num_examples))
    return {
        name: round(sum(value * count for value, count in own) / sum(count for _, count in own), 4)
        for name, own in pairs.items()
    }


def _slowest(rows: Sequence[SiteRow]) -> str | None:
    timed = {row.site: sum(row.seconds.values()) for row in rows if row.seconds}
    return max(timed, key=lambda site: timed[site]) if timed else None
