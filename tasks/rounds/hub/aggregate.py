"""From the sites' updates to the round's model and its card."""

from __future__ import annotations

from tasks.errors import ObjectMissing
from tasks.learning.averaging import averages, running_mean
from tasks.learning.strategies import strategy_of
from tasks.learning.strategies.state import state_after
from tasks.learning.strategies.strategy import At, advance
from tasks.rounds.channels.channel import Opened, hub_channel
from tasks.rounds.hub.cards import CardModels, card_before, write_card
from tasks.rounds.hub.context import HubContext
from tasks.store import layout
from tasks.store.records.model import ModelCard, ModelRef
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
    weights, state = _advanced(hub, plan, base, opened)
    _write_model(hub, plan, opened, weights, state)
    return opened.selection


def _advanced(hub: HubContext, plan: Plan, base: Weights, opened: Opened) -> tuple[Weights, Weights]:
    """The next weights, and what the strategy keeps. Raises StoreError: what it kept is not as it must be."""
    strategy, state = strategy_of(plan.strategy), None
    if strategy.state_parts:
        card, _ = card_before(hub, plan)
        state = state_after(hub.store, card, strategy, plan.strategy.name, base)
    share = len(opened.selection.chosen) / (len(plan.sites) + len(plan.left_out))
    return advance(strategy, base, opened.delta, state, At(plan.server_round, share))


def _write_model(hub: HubContext, plan: Plan, opened: Opened, weights: Weights, state: Weights) -> None:
    number, study = plan.server_round, plan.study
    model = _put_model(hub, layout.model(study, number), number, weights)
    evaluated, count = _averaged(hub, plan, weights, model)
    kept = _put_model(hub, layout.strategy_state(study, number), number, state) if state else None
    write_card(hub, plan, opened.selection, CardModels(model, evaluated, count, kept), opened.quality)


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
