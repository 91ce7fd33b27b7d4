"""What every channel does at a site and at the hub. A channel is a module of its name with a `Site` and a `Hub`.

What stands here is what a channel does that needs nothing for it: no roster, nothing over an update, no sum to open.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import NamedTuple

from tasks.errors import QuorumMissed, RoundRefused, UpdateRejected
from tasks.foreign.bounds import shorten
from tasks.learning.tasks import task_of
from tasks.privacy.ledger.ledger import SiteLedger
from tasks.privacy.opened import OpenedSum, noised_figures, require_step
from tasks.privacy.sanitizer import Encrypt, Mask
from tasks.privacy.secure_sum.records import Roster
from tasks.rounds.hub.answers import read_answers, why_silent
from tasks.rounds.hub.context import HubContext
from tasks.rounds.hub.selection import frozen_selection
from tasks.rounds.site.context import PlannedRound, SiteContext
from tasks.store.records.ledger import Spend
from tasks.store.records.model import NoisedFigures
from tasks.store.records.round import Manifest, Plan, Selection
from tasks.store.weights import Weights
from tasks.study.channels import Channel


@dataclass(frozen=True)
class Seal:
    """What `sanitize` puts over an update before it leaves."""

    mask: Mask | None = None
    num_masked: int = 0
    encrypt: Encrypt | None = None


class SiteChannel:
    """A site's side of one round.

    Raises (all methods):
        PrivacyError: something is not as the channel needs it; nothing leaves. StoreUnavailable: worth a retry.
    """

    def __init__(self, ctx: SiteContext, planned: PlannedRound) -> None:
        self.ctx, (self.plan, self.plan_sha256) = ctx, planned

    def join(self, ledger_entries: int) -> None:
        """After training: put the site up for the round; its ledger has so many entries. Again: nothing changes."""

    def enter(self, ledger: SiteLedger, pay: Callable[[int], Spend]) -> str | None:
        """Before an update is sealed: find out who takes part, and hold on to it. Again: nothing changes.

        Args:
            ledger, pay: the site's own ledger and the spend of its entries.

        Returns:
            sha256 of the roster, for the manifest; None where there is none.

        Raises:
            RoundRefused: the round goes on without this site.
        """
        return None

    def seal(self) -> Seal:
        """Read what goes over an update. The store is asked here, so that what fails later is about the update only."""
        return Seal()

    def use_up(self, release_sha256: str) -> None:
        """Note what the seal was used for, before these bytes go anywhere."""

    def answer(self) -> None:
        """Help to open the round's sum, once, and nothing but the sum. Raises RoundRefused: there is none to open."""
        raise RoundRefused(f"round {self.plan.server_round} of {self.plan.study} has no sum that a site could open")


class Opened(NamedTuple):
    """A round's step: which updates it is of, by parameter name, and the AUC that was counted within it."""

    selection: Selection
    delta: Weights
    quality: NoisedFigures | None = None


class HubChannel(ABC):
    """The hub's side of one round."""

    def __init__(self, hub: HubContext, plan: Plan) -> None:
        self.hub, self.plan = hub, plan

    @staticmethod
    def why_out(hub: HubContext, site: str) -> str:
        """Why a site cannot take part in a round that is about to be opened; nothing where it can."""
        return ""

    def freeze(self) -> Roster:
        """Wait for the sites' keys, then fix who takes part. Again: the first run's roster.

        Raises:
            QuorumMissed: too few take part. RoundRefused: nobody joins a round of this channel.
        """
        raise RoundRefused(f"round {self.plan.server_round} of {self.plan.study} has no roster")

    def select(self) -> Selection:
        """Wait for the uploads, then fix whose sum is opened. Again: the first run's selection.

        Raises:
            QuorumMissed: too few can be used. RoundRefused: `open` selects by itself.
        """
        raise RoundRefused(f"round {self.plan.server_round} of {self.plan.study} has no hidden updates to select")

    @abstractmethod
    def open(self, base: Weights) -> Opened:
        """The round's step from the weights that it started from. Again: the very same.

        Raises:
            QuorumMissed: too few sites contributed, or helped to open their sum.
        """

    @abstractmethod
    def missing(self) -> dict[str, str]:
        """Why each site is not in, where no selection says so: the round made no model."""

    def why_missing(self, check: Callable[[str], Manifest]) -> dict[str, str]:
        """The same where one upload can be checked: `check` gives a site's manifest, or raises UpdateRejected."""
        answers, reasons = read_answers(self.hub, self.plan), dict(self.plan.left_out)
        for site in self.plan.sites:
            if site not in answers.given:
                reasons[site] = why_silent(self.hub, self.plan, site, answers)
                continue
            try:
                check(site)
                reasons[site] = "a valid update, but the round made no model"
            except UpdateRejected as error:
                reasons[site] = shorten(f"rejected: {error.reason}")
        return reasons


class SumChannel(HubChannel):
    """The hub's side where it learns the sum of the updates that it has selected, and no single one."""

    @abstractmethod
    def total(self, selection: Selection, base: Weights) -> OpenedSum:
        """Open the sum of the selected updates. Raises QuorumMissed: too few sites help to, in time."""

    def open(self, base: Weights) -> Opened:
        """See `HubChannel.open`."""
        selection = frozen_selection(self.hub, self.plan)
        if selection is None:
            raise QuorumMissed(f"round {self.plan.server_round} of {self.plan.study}: no updates were selected")
        opened = self.total(selection, base)
        require_step(opened, self.hub.study.rounds.max_update_norm)
        return Opened(
            selection,
            opened.delta,
            noised_figures(opened, task_of(self.hub.study.label), self.plan, len(selection.chosen)),
        )


def site_channel(ctx: SiteContext, planned: PlannedRound) -> SiteChannel:
    """A site's side of a planned round."""
    made: SiteChannel = import_module(f"{__package__}.{planned.plan.channel.name}").Site(ctx, planned)
    return made


def hub_channel(hub: HubContext, plan: Plan) -> HubChannel:
    """The hub's side of a planned round."""
    return hub_side(plan.channel)(hub, plan)


def hub_side(channel: Channel) -> type[HubChannel]:
    """The hub's side of every round of this channel."""
    side: type[HubChannel] = import_module(f"{__package__}.{channel.name}").Hub
    return side
