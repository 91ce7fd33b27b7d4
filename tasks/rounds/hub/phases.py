"""How the hub ends the phases of a round before the last one, as the round's channel does it."""

from __future__ import annotations

from tasks.privacy.secure_sum.records import Roster
from tasks.rounds.channels.channel import hub_channel
from tasks.rounds.hub.context import HubContext
from tasks.store.records.round import Selection


def freeze_roster(hub: HubContext, server_round: int) -> Roster:
    """Fix who takes part: see `HubChannel.freeze`. Raises QuorumMissed; RoundRefused: the round is closed."""
    return hub_channel(hub, hub.open_plan(server_round)).freeze()


def select_updates(hub: HubContext, server_round: int) -> Selection:
    """Fix whose sum is opened: see `HubChannel.select`. Raises QuorumMissed; RoundRefused: the round is closed."""
    return hub_channel(hub, hub.open_plan(server_round)).select()
