"""From the sites' updates to the round's model and its card."""

from __future__ import annotations

from tasks.errors import ObjectMissing, QuorumMissed
from tasks.learning.averaging import StreamingMean, add_to, averages, running_mean
from tasks.learning.flat import Shape
from tasks.privacy.opened import private_auc, require_step
from tasks.rounds.hub.answers import wait_for_answers
from tasks.rounds.hub.cards import CardModels, write_card
from tasks.rounds.hub.collect import checked_update
from tasks.rounds.hub.context import HubContext
from tasks.rounds.hub.encrypted import open_encrypted
from tasks.rounds.hub.masked import open_masked
from tasks.rounds.hub.selection import (
    chosen_update,
    end_uploads,
    freeze_selection,
    frozen_selection,
    require_quorum,
    require_selected,
    select,
)
from tasks.store import layout
from tasks.store.records.model import ModelCard, ModelRef, PrivateAuc
from tasks.store.records.round import Manifest, Plan, Selection
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
    if plan.aggregation != "plain":
        selection, delta, quality = _hidden(hub, plan, base)
    else:
        selection, delta, quality = *_plain(hub, plan, base), None
    _write_model(hub, plan, selection, add_to(base, delta), quality)
    return selection


def _hidden(hub: HubContext, plan: Plan, base: Weights) -> tuple[Selection, Weights, PrivateAuc | None]:
    selection = frozen_selection(hub, plan)
    if selection is None:
        raise QuorumMissed(f"round {plan.server_round} of {plan.study}: no updates were selected")
    open_sum = open_masked if plan.aggregation == "masks" else open_encrypted
    opened = open_sum(hub, plan, selection, base)
    require_step(opened, hub.study.rounds.max_update_norm)
    return selection, opened.delta, private_auc(opened, plan, len(selection.chosen))


def _plain(hub: HubContext, plan: Plan, base: Weights) -> tuple[Selection, Weights]:
    shape = Shape.of(base)
    selection, selected, mean = frozen_selection(hub, plan), None, StreamingMean(shape)
    if selection is None:
        selected = _select_and_add(hub, plan, mean)
        selection = freeze_selection(hub, plan, selected)
    if selection == selected:
        return selection, mean.mean()
    return selection, _mean_of_selected(hub, plan, selection, shape)


def _select_and_add(hub: HubContext, plan: Plan, mean: StreamingMean) -> Selection:
    """One pass over the updates, by site name: each is checked, added and freed before the next is read."""
    answers, enrolments = end_uploads(hub, plan, wait_for_answers(hub, plan)), hub.enrolments()

    def admit(site: str) -> Manifest:
        manifest, update = checked_update(hub, plan, site, enrolments.get(site), mean.shape)
        mean.add(update, chosen_update(manifest, plan).weight)
        return manifest

    selection = select(hub, plan, plan.sites, plan.left_out, answers, admit)
    require_quorum(plan, selection)
    return selection


def _mean_of_selected(hub: HubContext, plan: Plan, selection: Selection, shape: Shape) -> Weights:
    """The mean over what another run selected. Raises UpdateRejected: an update was exchanged since."""
    enrolments, mean = hub.enrolments(), StreamingMean(shape)
    for chosen in selection.chosen:
        manifest, update = checked_update(hub, plan, chosen.site, enrolments.get(chosen.site), shape)
        require_selected(manifest, chosen)
        mean.add(update, chosen.weight)
    return mean.mean()


def _write_model(
    hub: HubContext, plan: Plan, selection: Selection, weights: Weights, quality: PrivateAuc | None
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
