"""What follows for one round from its study alone: the hub plans by it, and every site holds the plan to it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from tasks.study.channels import PhaseName
from tasks.study.sections import Study


class Deadlines(NamedTuple):
    """When a round ends, and where it goes in phases, when they end."""

    deadline: datetime
    keys_deadline: datetime | None
    upload_deadline: datetime | None


def deadlines(study: Study, opened_at: datetime) -> Deadlines:
    """The deadlines of a round of this study that is opened at `opened_at`, cut as its channel's phases are."""

    def after(share: float) -> datetime:
        return opened_at + timedelta(seconds=study.rounds.deadline_seconds * share)

    def cut(phase: PhaseName) -> datetime | None:
        share = study.channel.until(phase)
        return None if share is None else after(share)

    return Deadlines(after(1), cut("keys"), cut("updates"))


def fewest_sites(study: Study, asked: int | None = None) -> int:
    """The quorum of a round: `asked`, or the study's own. Where updates are hidden in a sum it is never below that.

    Nor is it ever below what the study's strategy needs.
    """
    if not study.channel.adds_only:
        return max(asked or study.rounds.min_sites, study.strategy.fewest_sites)
    return max(asked or 0, study.rounds.min_sites)
