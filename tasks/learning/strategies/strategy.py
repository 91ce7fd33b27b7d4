"""What every strategy answers. What it does not say it does as federated averaging does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import torch

from tasks.errors import QuorumMissed
from tasks.foreign.bounds import MAX_WEIGHT
from tasks.learning.averaging import StreamingMean, add_to
from tasks.learning.flat import Shape
from tasks.learning.training import Penalty
from tasks.store.weights import Weights
from tasks.study.strategy import StrategySection


class At(NamedTuple):
    """Which round it is, and what share of the study's sites is in it."""

    server_round: int
    share: float = 1.0


class Combiner(Protocol):
    """Takes a round's updates one by one, in the order of the sites' names."""

    shape: Shape

    def add(self, update: torch.Tensor, weight: float) -> None:
        """One site's, flat float32."""

    def mean(self) -> Weights:
        """What they come to, by name."""


class HeldUpdates:
    """Updates that are looked at together: all are in memory, 4 bytes for each value of each site.

    Thirteen sites' updates of 4.7 million parameters are 244 MB. Each counts once: weights are what sites say.
    """

    def __init__(self, strategy: Strategy, shape: Shape) -> None:
        self.strategy, self.shape, self.updates = strategy, shape, list[torch.Tensor]()

    def add(self, update: torch.Tensor, weight: float) -> None:
        """Keep a flat float32 update, (parameters,)."""
        self.updates.append(update)

    def mean(self) -> Weights:
        """What they come to, by name. Raises QuorumMissed: they are too few for what the strategy promises."""
        fewest, settings = self.strategy.settings.fewest_sites, self.strategy.settings
        if len(self.updates) < fewest:
            raise QuorumMissed(f"{type(settings).__name__}: {len(self.updates)} updates, {fewest} are needed")
        return self.shape.unflatten(self.strategy.combine(self.updates))


#: Local training as in a round: from these weights, with what is added to the loss, to others.
Train = Callable[[Weights, Penalty | None], Weights]


class Strategy:
    """One strategy with its section of a study.

    state_parts: what the hub keeps from round to round, each of the model's shapes; nothing by default.
    """

    settings: StrategySection
    state_parts: tuple[str, ...] = ()

    def sent(self, base: Weights) -> Weights:
        """Tensors of the names and shapes that a site sends, in the order of their names."""
        return base

    def penalty(self, weights: Mapping[str, torch.Tensor], base: Weights, control: Weights) -> torch.Tensor:
        """What a site adds to its loss in each local step; asked only where `settings.needs_steps`.

        Args:
            weights: the model's as they are, with gradients. base: what the round started from.
            control: what `control` gave; empty by default.
        """
        raise NotImplementedError

    def control(self, base: Weights, state: Weights, own: Weights | None) -> Weights:
        """From the hub's state and what the site has kept, what its local steps are corrected by."""
        return {}

    def local(self, weights: Weights, own: Weights | None) -> Weights:
        """From global weights and what the site has kept, those that it trains and validates."""
        return weights

    def leaves(
        self, base: Weights, delta: Weights, control: Weights, own: Weights | None, length: float
    ) -> tuple[Weights, Weights]:
        """What a site sends after training, of the form of `sent`, and what it keeps until its next round.

        `length`: local steps times their rate. Asked only where `settings.keeps`.
        """
        raise NotImplementedError

    def personal(self, weights: Weights, own: Weights | None, train: Train) -> Weights:
        """A site's own model, from the new global one and its own of before; asked only where `settings.personal`."""
        raise NotImplementedError

    def combiner(self, base: Weights) -> Combiner:
        """Where a round's updates go: a streaming mean, or all of them, where it looks at each."""
        shape = Shape.of(self.sent(base))
        return HeldUpdates(self, shape) if self.settings.needs_each else StreamingMean(shape)

    def combine(self, updates: Sequence[torch.Tensor]) -> torch.Tensor:
        """Of a round's updates, each (parameters,), the one that the hub goes by; asked only where it needs each."""
        raise NotImplementedError

    def fresh(self, base: Weights) -> Weights:
        """The hub's state before the first round."""
        return {f"{part}.{name}": torch.zeros_like(base[name]) for part in self.state_parts for name in base}

    def step(self, base: Weights, mean: Weights, state: Weights, at: At) -> tuple[Weights, Weights]:
        """The next model, and the hub's next state. `mean` may be changed in place; `state` is not."""
        return add_to(base, mean), {}


def penalty_of(strategy: Strategy, base: Weights, control: Weights) -> Penalty | None:
    """What a site's local steps add to its loss; None where that is nothing."""
    return partial(strategy.penalty, base=base, control=control) if strategy.settings.needs_steps else None


def _within(tensors: Weights, largest: float) -> bool:
    return all(bool((tensor.abs() <= largest).all()) for tensor in tensors.values())


def advance(strategy: Strategy, base: Weights, mean: Weights, state: Weights | None, at: At) -> tuple[Weights, Weights]:
    """A round's model and the hub's next state, as the scheduled round and the simulation both make them.

    Args:
        mean: what the round's updates came to. state: after the round that made `base`; None begins afresh.

    Raises:
        QuorumMissed: the step leads to weights that no site would take: not finite, or beyond MAX_WEIGHT.
    """
    weights, kept = strategy.step(base, mean, strategy.fresh(base) if state is None else state, at)
    if strategy.state_parts and not (_within(weights, MAX_WEIGHT) and _within(kept, MAX_WEIGHT**2)):
        raise QuorumMissed(
            f"the step of round {at.server_round} leads to weights that are not finite, or beyond {MAX_WEIGHT:g}: it "
            "is not applied. Lower strategy.server_lr"
        )
    return weights, kept
