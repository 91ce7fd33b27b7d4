"""From the sites' updates to the round's model and its card."""

from __future__ import annotations

from tasks.errors import ObjectMissing
from tasks.learning.averaging import add_to, averages, running_mean
from tasks.rounds.channels.channel import hub_channel
from tasks.rounds.hub.cards import CardModels, write_card
from tasks.rounds.hub.context import HubContext
from tasks.store import layout
from tasks.store.records.model import ModelCard, ModelRef, NoisedFigures
from tasks.store.records.round import Plan, Selection
from tasks.store.weights import Weights, fetch_model, sha256, to_bytes


def aggregate(hub: HubContext, server_round: int) -> Selection:
    """Wait for the sites, average what passes every check, write model and card.

    A rerun finds the selection of the first run and makes the very same model again.

    Raises:
        QuorumMissed: fewer than `min_sites` valid updates, or one is missing and the study is strict.
        RoundRefused: the round is closed, without a model.
        StoreUnavailable: worth a retry.
    """
    plan = hub.open_plan(server_round)
    base = fetch_model(hub.store, plan.base_model)
    opened = hub_channel(hub, plan).open(base)
    _write_model(hub, plan, opened.selection, add_to(base, opened.delta), opened.quality)
    return opened.selection


def _write_model(
    hub: HubContext, plan: Plan, selection: Selection, weights: Weights, quality: NoisedFigures | None
) -> None:
    model = _put_model(hub, layout.model(plan.study, plan.server_round), plan.server_round, weights)
    evaluated, count = _averaged(hub, plan, weights, model)
    write_card(hub, plan, selection, CardModels(model, evaluated, count), quality)


def _put_model(hub: HubContext, key: str, server_round: int, weights: Weights) -> ModelRef:
    body = to_bytes(weights)
    hub.store.create(key, body)
    return ModelRef(server_round=server_round, key=key, sha256=sha256(body))


def _averaged(hub: HubContext, plan: Plan, weights: Weights, model: ModelRef) -> tuple[ModelRef, int]:
    """The model that sites validate: the iterate, or the mean of the iterates of the budget's second half."""
    if not averages(plan.training, plan.server_round, plan.total_rounds):
        return model, 0
    try:
        before = hub.store.get_record(layout.card(plan.study, plan.base_model.server_round), ModelCard)
    except ObjectMissing:
        return model, 1
    if before.averaged_rounds == 0:
        return model, 1
    mean = running_mean(fetch_model(hub.store, before.evaluated_model), before.averaged_rounds, weights)
    ref = _put_model(hub, layout.averaged_model(plan.study, plan.server_round), plan.server_round, mean)
    return ref, before.averaged_rounds + 1
