"""Which hidden updates are summed: the step between the sites' uploads and the opening of their sum."""

from __future__ import annotations

from tasks.rounds.hub.context import HubContext
from tasks.rounds.hub.encrypted import select_encrypted
from tasks.rounds.hub.masked import select_masked
from tasks.store.records.round import Selection


def select_hidden(hub: HubContext, server_round: int) -> Selection:
    """Behind masks or under encryption, as the round's plan says. Raises QuorumMissed."""
    masked = hub.plan(server_round).aggregation == "masks"
    return (select_masked if masked else select_encrypted)(hub, server_round)
