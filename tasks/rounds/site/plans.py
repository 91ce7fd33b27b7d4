"""Which plans a site follows: the hub's, for its own study, on the study's terms, each number once and in order.

What a site has followed stands in its own folder, `followed/<study>.json`. A plan that it has followed is the only one
that it follows under that number, and no earlier number is followed again.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from pydantic import Field

from tasks.errors import ConfigError, PrivacyError
from tasks.foreign.bounds import Name, Round
from tasks.privacy.sum_statistics import asked_sums, num_sums
from tasks.store import clock, layout
from tasks.store.files import alone, write_private
from tasks.store.hub_signature import check_hub_signature
from tasks.store.objects import to_json
from tasks.store.records.record import Digest, Record
from tasks.store.records.round import Plan
from tasks.study.round_terms import deadlines, fewest_sites
from tasks.study.sections import Study

#: How far the hub's clock may be ahead of the site's.
CLOCK_SKEW = timedelta(minutes=5)


class CardSeen(Record):
    """The newest model's card that the site has worked with."""

    server_round: Round
    sha256: Digest


class Followed(Record):
    """The newest plan that a site has followed in a study."""

    study: Name
    server_round: Round = Field(gt=0)
    plan_sha256: Digest
    card: CardSeen | None = None


class PlanBook:
    """What one site has followed in one study.

    Args:
        folder: the site's own folder.

    Raises (all methods):
        PrivacyError: the book is damaged.
    """

    def __init__(self, folder: Path, study: str, site: str) -> None:
        self.path, self.study, self.site = folder / "followed" / study / "newest.json", study, site

    def newest(self) -> Followed | None:
        """The newest plan that was followed; None before the first."""
        try:
            return Followed.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            raise PrivacyError(
                f"{self.path} is damaged: site {self.site} follows no plan of {self.study} until it is put back"
            ) from None

    def follow(self, plan: Plan, plan_sha256: Digest) -> None:
        """Note, on disk, that the site follows this plan. Again: nothing changes.

        Raises:
            PrivacyError: another plan of this number was followed, or a later one.
        """
        with alone(self.path.parent):
            last = self.newest()
            if last is not None and last.server_round == plan.server_round and last.plan_sha256 != plan_sha256:
                raise PrivacyError(
                    f"site {self.site} has followed another plan for round {plan.server_round} of {self.study} "
                    "already: the plan was changed since"
                )
            if last is not None and last.server_round > plan.server_round:
                raise PrivacyError(
                    f"site {self.site} has gone on to round {last.server_round} of {self.study}: it does not go back "
                    f"to round {plan.server_round}"
                )
            if last is None or last.server_round < plan.server_round:
                card = last.card if last else None
                followed = Followed(
                    study=self.study, server_round=plan.server_round, plan_sha256=plan_sha256, card=card
                )
                write_private(self.path, to_json(followed))

    def see(self, card: CardSeen) -> None:
        """Note, on disk, the newest card that the site has worked with. Raises PrivacyError before any plan."""
        with alone(self.path.parent):
            last = self.newest()
            if last is None:
                raise PrivacyError(f"site {self.site} has followed no plan of {self.study}")
            if last.card is None or last.card.server_round < card.server_round:
                write_private(self.path, to_json(last.model_copy(update={"card": card})))


def checked_plan(body: bytes, study: Study, server_round: int, site: str, authority: x509.Certificate) -> Plan:
    """A plan as stored, for this round of this study, signed by the hub and on the study's terms.

    Raises:
        ConfigError: the study file here differs from the hub's, or the plan has other terms; names which.
        PrivacyError: it is no plan, for another study or round, not signed by the hub, or from the future.
    """
    try:
        plan = Plan.model_validate_json(body)
    except ValueError:
        key = layout.plan(study.study, server_round)
        what = f"what the hub has as plan of round {server_round} of {study.study} is no plan ({key})"
        raise PrivacyError(f"{what}: {layout.remedy(key)}") from None
    if (plan.study, plan.server_round) != (study.study, server_round):
        raise PrivacyError(
            f"the plan of round {server_round} of {study.study} calls itself another round or study: site {site} does "
            "not follow it"
        )
    check_hub_signature(plan, authority, f"the plan of round {server_round} of {study.study}")
    if plan.study_digest != study.digest:
        raise ConfigError(
            f"studies/{study.study}.yaml at site {site} is not the file that round {server_round} was "
            "opened with: bring both to the same version"
        )
    _refuse_other_terms(plan, study, site)
    if plan.opened_at > clock.now() + CLOCK_SKEW:
        raise PrivacyError(f"round {server_round} of {study.study} is opened in the future: set both clocks with NTP")
    return plan


def plan_digest(body: bytes) -> Digest:
    """sha256 of a plan as stored."""
    return hashlib.sha256(body).hexdigest()


def _refuse_other_terms(plan: Plan, study: Study, site: str) -> None:
    """The site trains and protects its update by its own study file: a plan cannot talk it out of its privacy.

    Raises:
        ConfigError: naming what the plan would change.
    """
    asked, left_out = list(plan.sites), list(plan.left_out)
    terms = {
        "privacy": (plan.privacy, study.privacy),
        "channel": (plan.channel, study.channel),
        "strategy": (plan.strategy, study.strategy),
        "codec": (plan.codec, study.codec),
        "sites": (sorted(asked + left_out), sorted(study.sites)),
        "quorum": (plan.min_sites, fewest_sites(study, plan.min_sites)),
        "number of sites": (len(asked), max(len(asked), fewest_sites(study, plan.min_sites))),
        "deadline": ((plan.deadline, plan.keys_deadline, plan.upload_deadline), deadlines(study, plan.opened_at)),
        "strictness": (plan.strict, study.rounds.strict),
        "training": (plan.training, study.training),
        "evaluation": (plan.evaluation, study.evaluation),
        "number of sums": (num_sums(plan), asked_sums(study) or 0),
        "total_rounds": (plan.total_rounds, study.rounds.total),
    }
    changed = [name for name, (planned, own) in terms.items() if planned != own]
    if changed:
        raise ConfigError(
            f"round {plan.server_round} of {study.study} is planned with another {', '.join(changed)} than "
            f"studies/{study.study}.yaml at site {site}: the site does not follow it"
        )
