"""What the hub keeps for its strategy from round to round: it lies beside the model, and the model's card pins it."""

from __future__ import annotations

from tasks.errors import StoreError
from tasks.foreign.bounds import MAX_WEIGHT
from tasks.learning.strategies.strategy import Strategy
from tasks.store import layout
from tasks.store.objects import ObjectStore
from tasks.store.records.model import ModelCard
from tasks.store.weights import Weights, fetch_model

#: Squares of steps are kept too.
_MAX = MAX_WEIGHT**2


def state_after(store: ObjectStore, card: ModelCard, strategy: Strategy, name: str, base: Weights) -> Weights | None:
    """The state that goes with a card's model, `base`; None where strategy `name` begins afresh with it.

    Raises:
        StoreError: it lies elsewhere, is not the one that the card pins, or fits neither strategy nor model.
    """
    if not strategy.state_parts or card.strategy is None or card.strategy.name != name:
        return None
    ref, key = card.strategy.state, layout.strategy_state(card.study, card.server_round)
    if ref is None or ref.key != key:
        raise StoreError(f"the card of round {card.server_round} of {card.study} names no state of {name} at {key}")
    return checked_state(strategy, fetch_model(store, ref), base, key)


def checked_state(strategy: Strategy, state: Weights, base: Weights, what: str) -> Weights:
    """A state as it was read, if it is this strategy's, of this model, finite and bounded.

    Raises:
        StoreError: it is not; `what` names it.
    """
    wanted = {name: (tensor.shape, tensor.dtype) for name, tensor in strategy.fresh(base).items()}
    if {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()} != wanted:
        raise StoreError(f"{what} is of another model or another strategy: no model is made from it")
    if not all(bool((tensor.abs() <= _MAX).all()) for tensor in state.values()):
        raise StoreError(f"{what} holds values that are not finite, or beyond {_MAX:g}: no model is made from it")
    return state
