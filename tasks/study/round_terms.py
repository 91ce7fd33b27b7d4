"""What follows for one round from its study alone: the hub plans by it, and every site holds the plan to it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from tasks.study.sections import Study

#: Shares of a masked round's time: until when sites may join the roster, and until when they may upload.
KEYS_PHASE, UPLOAD_PHASE = 0.6, 0.85


class Phases(NamedTuple):
    """When a round ends, and where it goes in phases, when they end."""

    deadline: datetime
    keys_deadline: datetime | None
    upload_deadline: datetime | None


def phases(study: Study, opened_at: datetime) -> Phases:
    """The deadlines of a round of this study that is opened at `opened_at`."""
    seconds = study.rounds.deadline_seconds

    def after(share: float) -> datetime:
        return opened_at + timedelta(seconds=seconds * share)

    keys = after(KEYS_PHASE) if study.aggregation == "masks" else None
    return Phases(after(1), keys, after(UPLOAD_PHASE) if study.aggregation != "plain" else None)


def fewest_sites(study: Study, asked: int | None = None) -> int:
    """The quorum of a round: `asked`, or the study's own. Where updates are hidden in a sum it is never below that."""
    if study.aggregation == "plain":
        return asked or study.rounds.min_sites
    return max(asked or 0, study.rounds.min_sites)
