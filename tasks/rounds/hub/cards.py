"""The card of every model: what it is, what it was made of and what that cost, signed, in one chain.

A card names the card of the model that its round started from, and for every site how far its ledger has come. Sites
follow no model without one, see `tasks.rounds.site.global_models`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from tasks import __version__
from tasks.errors import ObjectExists, ObjectMissing
from tasks.foreign.bounds import shorten
from tasks.rounds.hub.context import HubContext
from tasks.rounds.hub.selection import largest_spend
from tasks.store import clock, layout
from tasks.store.hub_signature import sign_as_hub
from tasks.store.record_size import max_bytes
from tasks.store.records.ledger import LedgerPin
from tasks.store.records.model import ModelCard, ModelRef, NoisedFigures, UsedStrategy
from tasks.store.records.round import Plan, Selection
from tasks.store.weights import sha256
from tasks.study.strategy import FED_AVG

LIMITS = (
    "A research model on one small trial. It must not guide the care of a patient. Its figures rest on few held-out "
    "patients, so they move by several hundredths from one split to the next."
)


class CardModels(NamedTuple):
    """A round's iterate, what sites validate, and how many iterates that is the mean of (0: it is the iterate).

    state: what the strategy keeps for the next round.
    """

    model: ModelRef
    evaluated: ModelRef
    averaged_rounds: int
    state: ModelRef | None = None


def write_first_card(hub: HubContext, model: ModelRef) -> None:
    """The card of the seeded initial model, which nobody has contributed to. What is there is kept."""
    if hub.store.exists(layout.card(hub.name, 0)):
        return
    card = ModelCard(
        **_of_study(hub),
        study_digest=hub.study.digest,
        server_round=0,
        created_at=clock.now(),
        model=model,
        evaluated_model=model,
        averaged_rounds=0,
        base_model=None,
        contributors={},
        missing={},
        spend=None,
    )
    try:
        hub.store.create_record(layout.card(hub.name, 0), sign_as_hub(card, hub.secrets_dir))
    except ObjectExists:  # another run has written it at the same moment
        return


def write_card(
    hub: HubContext, plan: Plan, selection: Selection, models: CardModels, quality: NoisedFigures | None
) -> None:
    """The card of a round's model. A rerun makes the same bytes again."""
    before, digest = card_before(hub, plan)
    pins = {c.site: LedgerPin(sequence=c.ledger_sequence, sha256=c.ledger_sha256) for c in selection.chosen}
    card = ModelCard(
        **_of_study(hub),
        study_digest=plan.study_digest,
        server_round=plan.server_round,
        created_at=_created_at(hub, plan),
        model=models.model,
        evaluated_model=models.evaluated,
        averaged_rounds=models.averaged_rounds,
        base_model=plan.base_model,
        contributors={chosen.site: chosen.weight for chosen in selection.chosen},
        missing=selection.missing,
        spend=largest_spend(selection),
        noised=quality,
        strategy=_used(before, plan, models.state),
        previous_sha256=digest,
        ledgers=dict(sorted((before.ledgers | pins).items())),
    )
    hub.store.create_record(layout.card(plan.study, plan.server_round), sign_as_hub(card, hub.secrets_dir))


def _of_study(hub: HubContext) -> dict[str, Any]:
    model = hub.study.model
    return {
        "study": hub.name,
        "title": hub.study.title,
        "architecture": shorten(f"{model.path}({model.options or ''})"),
        "inputs": tuple(hub.study.input_names),
        "code_version": __version__,
        "intended_use": hub.study.description.strip(),
        "limits": LIMITS,
    }


def _used(before: ModelCard, plan: Plan, state: ModelRef | None) -> UsedStrategy | None:
    """The strategy, and since when: another one than before begins afresh. Nothing is said of a mean since ever."""
    name, last = plan.strategy.name, before.strategy
    if name == FED_AVG.name and last is None:
        return None
    since = last.since if last is not None and last.name == name else plan.server_round
    return UsedStrategy(name=name, since=since, state=state)


def card_before(hub: HubContext, plan: Plan) -> tuple[ModelCard, str]:
    """The card of the model that the round starts from, and the sha256 of its bytes."""
    key = layout.card(plan.study, plan.base_model.server_round)
    body = hub.store.get(key, max_bytes=max_bytes(ModelCard))
    try:
        return ModelCard.model_validate_json(body), sha256(body)
    except ValueError as error:
        raise hub.store.damaged(key, ModelCard, error) from None


def _created_at(hub: HubContext, plan: Plan) -> datetime:
    """Now; or, on a rerun, when the card was first written, so that the card stays the same bytes."""
    try:
        return hub.store.get_record(layout.card(plan.study, plan.server_round), ModelCard).created_at
    except ObjectMissing:
        return clock.now()
