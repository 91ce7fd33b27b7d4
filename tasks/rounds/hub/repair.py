"""Making `latest.json` anew where it is lost, damaged or behind: from the chain of cards that the hub has signed.

A pointer that is fine is never moved. Where the cards do not hold together, or something speaks of a newer model than
the cards have, nothing is written: a store that was set back, or that hides a round, must not choose the next model.
"""

from __future__ import annotations

from typing import NamedTuple

from tasks.errors import ObjectExists, ObjectMissing, StoreError, StoreUnavailable
from tasks.privacy.ledger.spent import spent
from tasks.rounds.hub.card_chain import CardChain, bases_of_plans, closed_with_model, made_model
from tasks.rounds.hub.context import HubContext
from tasks.rounds.page.store import list_rounds
from tasks.store import layout
from tasks.store.objects import to_json
from tasks.store.record_size import max_bytes
from tasks.store.records.model import ModelCard, Pointer
from tasks.store.weights import fetch_model


class Repair(NamedTuple):
    """What is wrong with the pointer, and what it should be; `problem` is empty where it is fine.

    `chain` are the rounds whose cards were checked, oldest first; `etag` is of what lies there now.
    """

    problem: str
    pointer: Pointer
    chain: tuple[int, ...]
    etag: str | None


class _Standing(NamedTuple):
    """`latest.json` as it is: the pointer where it can be read, its tag, and what is wrong with it."""

    pointer: Pointer | None
    etag: str | None
    problem: str


def find_repair(hub: HubContext, newest: int | None = None) -> Repair:
    """Compare the pointer with the cards; nothing is written.

    Args:
        newest: the round whose model is the newest, said by a person where the store leaves it open.

    Raises:
        StoreError: the cards do not hold together, or leave open which is the newest; names them and the remedy.
    """
    cards, standing = CardChain(hub, hub.authority), _standing(hub)
    if not hub.last_opened() and not hub.objects("card"):
        raise StoreError(f"study {hub.name} has had no round: the first one makes its model and latest.json")
    try:
        head = _newest(hub, cards, standing.pointer)
    except StoreUnavailable:
        raise
    except StoreError:
        if newest is None:
            raise
        _require_head(hub, cards, newest)
        head = newest
    return _repair(hub, cards, head, standing)


def write_repair(hub: HubContext, repair: Repair) -> None:
    """Put the pointer there, unless somebody has moved it since. Raises StoreError."""
    try:
        hub.store.replace(layout.latest(hub.name), to_json(repair.pointer), etag=repair.etag)
    except ObjectExists:
        raise StoreError(
            f"{layout.latest(hub.name)} was moved meanwhile: run `pharmafed repair {hub.name}` again"
        ) from None


def _standing(hub: HubContext) -> _Standing:
    try:
        body, etag = hub.store.get_with_etag(layout.latest(hub.name), max_bytes=max_bytes(Pointer) + 1)
    except ObjectMissing:
        return _Standing(None, None, "is missing")
    try:
        pointer = Pointer.model_validate_json(body)
    except ValueError:
        return _Standing(None, etag, "is damaged")
    if pointer.study != hub.name:
        return _Standing(None, etag, f"is of study {pointer.study}")
    return _Standing(pointer, etag, "")


def _repair(hub: HubContext, cards: CardChain, head: int, standing: _Standing) -> Repair:
    chain = cards.descent(head)
    _require_bytes(hub, chain[0])
    wanted = _pointer_to(chain[0])
    problem = standing.problem
    if standing.pointer is not None and standing.pointer != wanted:
        at = standing.pointer.server_round
        problem = f"is at round {at}" if at != head else f"does not name what the card of round {head} names"
    return Repair(problem, wanted, tuple(card.server_round for card in reversed(chain)), standing.etag)


def _pointer_to(card: ModelCard) -> Pointer:
    return Pointer(
        study=card.study,
        server_round=card.server_round,
        model=card.model,
        evaluated_model=card.evaluated_model,
        averaged_rounds=card.averaged_rounds,
    )


def _newest(hub: HubContext, cards: CardChain, pointer: Pointer | None) -> int:
    """The round of the newest model: of the last closed round that made one, or the pointer's, made from that.

    Raises:
        StoreError: there are two branches, or there was a newer model.
    """
    plans = bases_of_plans(hub)
    closed = {*closed_with_model(hub), *plans, 0}
    head = max(closed)
    if others := closed - _rounds(cards.descent(head)):
        raise StoreError(
            f"the models of {hub.name} are two branches: that of round {head} does not come from that of round "
            f"{max(others)}. {_choose(hub, max(others), head)}"
        )
    for number, plan in plans.items():
        if plan.base_model != cards.card(number).model:
            raise StoreError(
                f"round {plan.server_round} of {hub.name} was opened from another model than the card of round "
                f"{number} names. {_choose(hub, head)}"
            )
    if pointer is not None and pointer.server_round > head and _is_named(cards, pointer, head):
        head = pointer.server_round  # its round is not closed yet
    _require_nothing_newer(hub, head)
    return head


def _is_named(cards: CardChain, pointer: Pointer, head: int) -> bool:
    """Whether a card names just what the pointer does, of a model made from that of `head`."""
    try:
        descent = cards.descent(pointer.server_round)
    except StoreUnavailable:
        raise
    except StoreError:
        return False
    return _pointer_to(descent[0]) == pointer and head in _rounds(descent)


def _rounds(descent: list[ModelCard]) -> set[int]:
    return {card.server_round for card in descent}


def _require_head(hub: HubContext, cards: CardChain, newest: int) -> None:
    """Raises StoreError: a closed round has made a model from this round's."""
    model = cards.card(newest).model
    later = [number for number in closed_with_model(hub) if cards.card(number).base_model == model]
    if later:
        raise StoreError(f"round {newest} of {hub.name} is not the newest: round {later[0]} started from its model")


def _choose(hub: HubContext, *rounds: int) -> str:
    named = " or ".join(f"`--newest {number}`" for number in rounds)
    return f"Say which one to go on from: `pharmafed repair {hub.name}` with {named}"


def _require_nothing_newer(hub: HubContext, head: int) -> None:
    """Raises StoreError: something that is left speaks of a round that the store has lost, or hides."""
    opened, newer = hub.last_opened(), set[str]()
    for number in hub.objects("round_metrics"):
        if number > head and made_model(hub, number):
            newer.add(f"round {number} is closed with a model")
    for entry in list_rounds(hub.name):
        if entry.server_round > head and entry.status != "failed":
            newer.add(f"this machine has the report of round {entry.server_round}")
    for site, spend in spent(hub.store, hub.name).items():
        if spend is not None and spend.server_round > opened:
            newer.add(f"site {site} has paid for round {spend.server_round}, of which there is no plan")
    if newer:
        raise StoreError(
            f"the newest card of {hub.name} is of round {head}, but {'; '.join(sorted(newer))}: put what is lost back "
            f"from a copy of the object store, or, where nothing is lost, run `pharmafed repair {hub.name}` with "
            f"`--newest {head}`"
        )


def _require_bytes(hub: HubContext, card: ModelCard) -> None:
    """Raises StoreError: the bytes of the newest model or its strategy's state are not those that its card names."""
    refs = [card.model, card.evaluated_model, *([card.strategy.state] if card.strategy else [])]
    for ref in {ref.key: ref for ref in refs if ref is not None}.values():
        try:
            fetch_model(hub.store, ref)
        except ObjectMissing:
            raise StoreError(f"the model {ref.key} is missing: {layout.remedy(ref.key)}") from None
