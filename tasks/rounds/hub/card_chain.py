"""The models of a study as the hub's signed cards have them, and which of them closed rounds have made.

Whoever can write to the object store can put, hide or exchange anything there, but not sign a card or a plan.
"""

from __future__ import annotations

from collections.abc import Iterator

from cryptography import x509

from tasks.errors import ObjectMissing, PrivacyError, RoundRefused, StoreError, StoreUnavailable
from tasks.rounds.hub.context import HubContext
from tasks.store import layout
from tasks.store.hub_signature import check_hub_signature
from tasks.store.record_size import max_bytes
from tasks.store.records.model import ModelCard, Pointer
from tasks.store.records.report import RoundMetrics
from tasks.store.records.round import Plan, Settled
from tasks.store.weights import sha256


class CardChain:
    """Reads and checks the cards of one study, with the hub's credential; each is read once.

    Raises (all methods):
        StoreError: a card is missing, damaged, not signed by the hub, or does not fit the one before; names which.
        StoreUnavailable: worth a retry.
    """

    def __init__(self, hub: HubContext, authority: x509.Certificate) -> None:
        self.hub, self.authority, self._read = hub, authority, dict[int, tuple[ModelCard, str]]()

    def card(self, server_round: int) -> ModelCard:
        """The card of a round's model, with the hub's signature, about no other study, round or place."""
        return self._card(server_round)[0]

    def descent(self, server_round: int) -> list[ModelCard]:
        """The cards from a round's model back to the initial one; each names the one before."""
        card, chain = self.card(server_round), [self.card(server_round)]
        while card.base_model is not None:
            number = card.base_model.server_round
            if number >= card.server_round:
                raise self._wrong(card.server_round, "names itself or a later card as the one before")
            before, digest = self._card(number)
            if card.previous_sha256 != digest or card.base_model != before.model:
                raise self._wrong(card.server_round, f"does not name that of round {number} as the one before")
            card = before
            chain.append(card)
        if card.server_round != 0 or card.previous_sha256 is not None:
            raise self._wrong(card.server_round, "names none before it, and is not the first")
        return chain

    def _card(self, server_round: int) -> tuple[ModelCard, str]:
        if server_round not in self._read:
            self._read[server_round] = self._checked(server_round)
        return self._read[server_round]

    def _checked(self, server_round: int) -> tuple[ModelCard, str]:
        name, key = self.hub.name, layout.card(self.hub.name, server_round)
        try:
            body = self.hub.store.get(key, max_bytes=max_bytes(ModelCard))
            card = ModelCard.model_validate_json(body)
            check_hub_signature(card, self.authority, key)
        except ObjectMissing:
            raise self._wrong(server_round, "is missing") from None
        except ValueError as error:
            raise self.hub.store.damaged(key, ModelCard, error) from None
        except PrivacyError:
            raise self._wrong(server_round, "has no signature of a hub that the authority here certifies") from None
        places = layout.model(name, server_round), layout.averaged_model(name, server_round)
        said = (card.study, card.server_round, card.model.server_round, card.evaluated_model.server_round)
        if said != (name, *[server_round] * 3) or card.model.key != places[0] or card.evaluated_model.key not in places:
            raise self._wrong(server_round, "is of another study, round or model")
        state = card.strategy.state if card.strategy else None
        if state is not None and state.key != layout.strategy_state(name, server_round):
            raise self._wrong(server_round, "is of another study, round or model")
        return card, sha256(body)

    def _wrong(self, server_round: int, what: str) -> StoreError:
        key = layout.card(self.hub.name, server_round)
        return StoreError(f"the card of round {server_round}, {key}, {what}: {layout.remedy(key)}")


def closed_with_model(hub: HubContext) -> Iterator[int]:
    """The rounds whose record stands and that have made a model, newest first."""
    cards = hub.objects("card")
    records = hub.objects("round_metrics")
    return (number for number in sorted(cards.keys() & records.keys(), reverse=True) if made_model(hub, number))


def made_model(hub: HubContext, server_round: int) -> bool:
    """Whether a closed round did, by its record, or by what the sites were told; where neither can be read, it did."""
    said: tuple[tuple[str, type[RoundMetrics | Settled]], ...] = (
        (layout.round_metrics(hub.name, server_round), RoundMetrics),
        (layout.closed(hub.name, server_round), Settled),
    )
    for key, record in said:
        try:
            return hub.store.get_record(key, record).status != "failed"
        except StoreUnavailable:
            raise
        except StoreError:
            continue
    return True


def bases_of_plans(hub: HubContext) -> dict[int, Plan]:
    """Round -> the newest plan that starts from its model: the pointer was there when the hub signed it.

    A plan that cannot be read, or that the hub has not signed, proves nothing.
    """
    found: dict[int, Plan] = {}
    for key in hub.objects("plan").values():
        try:
            plan = hub.store.get_record(key, Plan)
            check_hub_signature(plan, hub.authority, key)
        except StoreUnavailable:
            raise
        except (StoreError, PrivacyError):
            continue
        if plan.study == hub.name:
            found[plan.base_model.server_round] = plan
    return found


def require_first(hub: HubContext) -> None:
    """Check that a study without a pointer has had no round.

    Raises:
        RoundRefused: rounds are there, and a new one would start from nothing.
    """
    rounds = hub.objects("plan") | hub.objects("round_metrics")
    cards = hub.objects("card")
    rounds |= {number: key for number, key in cards.items() if number > 0}
    if rounds:
        newest = max(rounds)
        raise RoundRefused(
            f"study {hub.name} has had rounds up to {newest} ({rounds[newest]}), and {layout.latest(hub.name)}, which "
            f"says where it stands, is gone: run `pharmafed repair {hub.name}`. Without it this round would train "
            "from the first model"
        )


def require_newest(hub: HubContext, pointer: Pointer) -> None:
    """Check that the pointer is not behind. Raises RoundRefused: a later round has made a model from this one."""
    for number in closed_with_model(hub):
        if number <= pointer.server_round:
            return
        if hub.store.get_record(layout.card(hub.name, number), ModelCard).base_model == pointer.model:
            raise RoundRefused(
                f"{layout.latest(hub.name)} is at round {pointer.server_round}, and round {number} has made a model "
                f"from that one: run `pharmafed repair {hub.name}`. As it is this round would train from an older model"
            )
