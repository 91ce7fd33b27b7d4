"""The global models that a site works with: checked before a patient is touched, by nothing that a patient decides.

A model of the hub's choice is a question to the site's data, and a model with infinities in it asks it about one
patient at a time. So a model is taken only with a card that the hub has signed, in one chain with the cards that the
site has seen before, with the bytes that the card names, and finite, bounded and of the study's shapes.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import torch
from cryptography import x509
from torch import nn

from tasks.errors import ObjectMissing, PrivacyError, StoreError, StoreUnavailable
from tasks.foreign.bounds import MAX_WEIGHT
from tasks.learning.strategies.state import state_after
from tasks.learning.strategies.strategy import Strategy
from tasks.rounds.site.plans import CardSeen, PlanBook
from tasks.store import layout
from tasks.store.hub_signature import check_hub_signature
from tasks.store.objects import ObjectStore
from tasks.store.record_size import max_bytes
from tasks.store.records.model import ModelCard, ModelRef
from tasks.store.records.round import Plan
from tasks.store.weights import Weights, fetch_model, fixed_sha256, trainable

_CHAIN = 100_000


class GlobalModels(NamedTuple):
    """What a round starts from: the base model, the one that is evaluated, and their card."""

    base: Weights
    evaluated: Weights
    card: ModelCard


class CardReader:
    """Reads the cards of one study's models, with the site's credential.

    Raises (all methods):
        PrivacyError: a card or a model is not as it must be; nothing was done with it. StoreUnavailable: retry.
    """

    def __init__(self, store: ObjectStore, study: str, authority: x509.Certificate, book: PlanBook) -> None:
        self.store, self.study, self.authority, self.book = store, study, authority, book

    def models_of(self, plan: Plan, model: nn.Module) -> GlobalModels:
        """The models that the plan starts from, checked; the site then remembers their card."""
        card, digest = self._card(plan.base_model.server_round)
        if (card.model, card.evaluated_model) != (plan.base_model, plan.evaluated_model):
            raise PrivacyError(f"round {plan.server_round} of {self.study} starts from models that no card names")
        self._require_descent(card, digest)
        if plan.fixed_sha256 != fixed_sha256(model):
            raise PrivacyError(
                f"the frozen parameters and buffers of the model of {self.study} are not the hub's here: bring the "
                "model's code, any file that it reads, and torch to the same version"
            )
        base = self.fetch(plan.base_model, model)
        evaluated = base if plan.evaluated_model == plan.base_model else self.fetch(plan.evaluated_model, model)
        self.book.see(CardSeen(server_round=card.server_round, sha256=digest))
        return GlobalModels(base, evaluated, card)

    def state_of(self, card: ModelCard, strategy: Strategy, name: str, base: Weights) -> Weights | None:
        """What the hub's strategy keeps beside a card's model, `base`; None where it begins afresh."""
        try:
            return state_after(self.store, card, strategy, name, base)
        except StoreUnavailable:
            raise
        except StoreError as error:
            raise PrivacyError(f"the state of {name} in {self.study} is not used: {error}") from None

    def card_of_round(self, plan: Plan) -> ModelCard:
        """The card of the model that a round has made, from the models that its plan names."""
        card, _ = self._card(plan.server_round)
        if card.base_model != plan.base_model:
            raise PrivacyError(f"the model of round {plan.server_round} of {self.study} was not made from its plan's")
        _, before = self._card(plan.base_model.server_round)
        if card.previous_sha256 != before:
            raise PrivacyError(f"the card of round {plan.server_round} of {self.study} does not name the one before")
        return card

    def fetch(self, ref: ModelRef, model: nn.Module) -> Weights:
        """A model's weights: of the digest that `ref` names, of the shapes of `model`, finite and bounded."""
        expected = (layout.model(self.study, ref.server_round), layout.averaged_model(self.study, ref.server_round))
        if ref.key not in expected:
            raise PrivacyError(f"a model of {self.study} is said to lie where no model of it lies")
        try:
            weights = fetch_model(self.store, ref)
        except StoreUnavailable:
            raise
        except StoreError as error:
            raise PrivacyError(f"the model of round {ref.server_round} of {self.study} is not used: {error}") from None
        check_weights(weights, model, f"the model of round {ref.server_round} of {self.study}")
        return weights

    def _card(self, server_round: int) -> tuple[ModelCard, str]:
        """A round's card and the sha256 of its bytes."""
        key = layout.card(self.study, server_round)
        what = f"the card of the model of round {server_round} of {self.study} ({key})"
        try:
            body = self.store.get(key, max_bytes=max_bytes(ModelCard))
            card = ModelCard.model_validate_json(body)
        except ObjectMissing:
            raise PrivacyError(f"{what} is missing: {layout.remedy(key)}") from None
        except StoreUnavailable:
            raise
        except (StoreError, ValueError):
            raise PrivacyError(f"{what} is no card: {layout.remedy(key)}") from None
        check_hub_signature(card, self.authority, what)
        if (card.study, card.server_round, card.model.server_round) != (self.study, server_round, server_round):
            raise PrivacyError(f"{what} is of another study or round")
        return card, hashlib.sha256(body).hexdigest()

    def _require_descent(self, card: ModelCard, digest: str) -> None:
        """Check that the card is the newest one that the site has seen, or names it, if need be through others."""
        followed = self.book.newest()
        seen = followed.card if followed else None
        if seen is None:
            return
        for _ in range(_CHAIN):
            if card.server_round <= seen.server_round or card.base_model is None:
                break
            wanted, (card, digest) = card.previous_sha256, self._card(card.base_model.server_round)
            if wanted != digest:
                raise PrivacyError(f"the chain of cards of {self.study} is broken at round {card.server_round}")
        if (card.server_round, digest) != (seen.server_round, seen.sha256):
            raise PrivacyError(
                f"the models of {self.study} do not come from that of round {seen.server_round}, which the site has "
                "seen: the hub has gone back, or tells two stories"
            )


def check_weights(weights: Weights, model: nn.Module, what: str) -> None:
    """Check weights by themselves.

    Raises:
        PrivacyError: their names, shapes or types are not the model's, or one is not finite or beyond MAX_WEIGHT.
    """
    own = {name: (parameter.shape, parameter.dtype) for name, parameter in trainable(model).items()}
    if {name: (tensor.shape, tensor.dtype) for name, tensor in weights.items()} != own:
        raise PrivacyError(f"{what} has other tensors than the study's model: was model.path changed?")
    for tensor in weights.values():
        if not bool((tensor.abs() <= MAX_WEIGHT).all()) or not bool(torch.isfinite(tensor).all()):
            raise PrivacyError(f"{what} holds weights that are not finite, or beyond {MAX_WEIGHT:g}: it is not used")
