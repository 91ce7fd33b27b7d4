"""What a site goes on from, of its earlier rounds: its optimizer's state, and what its strategy keeps."""

from __future__ import annotations

from tasks.learning.strategies import strategy_of
from tasks.privacy.ledger.ledger import Standing
from tasks.rounds.site.context import SiteContext
from tasks.rounds.site.global_models import GlobalModels
from tasks.rounds.site.local_update import SiteState
from tasks.rounds.site.round_files import RoundFiles
from tasks.store.records.model import ModelCard
from tasks.store.records.round import Plan
from tasks.store.weights import Weights


def last_counted(ctx: SiteContext, card: ModelCard, standing: Standing) -> int:
    """The last round whose model has this site's update, by the card; 0 before the first, or without an entry."""
    pin = card.ledgers.get(ctx.site)
    known = pin is not None and 0 < pin.sequence <= len(standing.links)
    return standing.links[pin.sequence - 1].entry.server_round if pin is not None and known else 0


def kept_state(ctx: SiteContext, plan: Plan, models: GlobalModels, counted: int) -> SiteState:
    """The optimizer's state after the site's previous round, and the strategy's, where the study keeps them.

    What the site keeps for its strategy is of the last round that counted, however long ago; of an earlier strategy's
    time it is not used.
    """
    keeps, strategy = plan.training.optimizer_state == "keep", strategy_of(plan.strategy)
    optimizer = RoundFiles(ctx.round_dir(plan.base_model.server_round)).kept("optimizer") if keeps else None
    if not strategy.settings.keeps:
        return SiteState(optimizer)
    own = RoundFiles(ctx.round_dir(counted)).kept("control")
    if not strategy.settings.corrects:
        return SiteState(optimizer, own)
    hub = ctx.cards.state_of(models.card, strategy, plan.strategy.name, models.base)
    used = models.card.strategy
    known = hub is not None and used is not None and counted >= used.since
    return SiteState(optimizer, own if known else None, hub)


def own_layers(ctx: SiteContext, plan: Plan, weights: Weights, counted: int) -> Weights:
    """A global model with the layers that the site has for itself, of the last round that counted."""
    return strategy_of(plan.strategy).local(weights, RoundFiles(ctx.round_dir(counted)).kept("control"))
