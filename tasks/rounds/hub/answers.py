"""Waiting for the sites: who has answered a phase of a round, who has refused, who is silent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tasks.errors import ObjectMissing, StoreError, StoreUnavailable
from tasks.foreign.bounds import shorten
from tasks.rounds.hub.context import HubContext
from tasks.store import clock, layout
from tasks.store.records.round import Plan, Refusal
from tasks.study.channels import PhaseName

POLL_SECONDS = 0.2
_ANSWERS = {"updates": layout.update_manifest, "keys": layout.key_message, "unmask": layout.unmask_answer}


@dataclass
class Answers:
    """Who has answered a phase of a round so far, of those who were asked."""

    asked: frozenset[str]
    given: set[str] = field(default_factory=set)
    refusals: set[str] = field(default_factory=set)

    @property
    def silent(self) -> list[str]:
        """Sites that have said nothing."""
        return sorted(self.asked - self.given - self.refusals)


def wait_for_answers(
    hub: HubContext,
    plan: Plan,
    phase: PhaseName = "updates",
    asked: Iterable[str] | None = None,
    *,
    enough: int | None = None,
    say: Callable[[str], None] = print,
    sleep: Callable[[float], None] = time.sleep,
) -> Answers:
    """Until every site that was asked has answered, the phase is over, or the quorum is out of reach.

    Args:
        asked: the plan's sites unless given.
        enough: so many answers will do, and fewer will not; otherwise all are waited for, and `min_sites` will do.
    """
    last, given = "", set[str]()
    while True:
        answers = read_answers(hub, plan, phase, asked, given)
        given = answers.given
        line = f"round {plan.server_round}: {len(answers.given)} {phase}, {len(answers.refusals)} refusals"
        if line != last:
            say(f"{line}; waiting for {', '.join(answers.silent) or 'nobody'}")
            last = line
        hopeless = len(answers.given) + len(answers.silent) < (enough or plan.min_sites)
        settled = not answers.silent or (enough is not None and len(answers.given) >= enough)
        if settled or hopeless or clock.now() >= plan.end_of(phase):
            return answers
        sleep(POLL_SECONDS)


def read_answers(
    hub: HubContext,
    plan: Plan,
    phase: PhaseName = "updates",
    asked: Iterable[str] | None = None,
    known: Iterable[str] = (),
) -> Answers:
    """Who has answered by now. An answer counts for more than a refusal.

    Args:
        known: sites that are known to have answered: they are not looked up again.
    """
    answers = Answers(frozenset(plan.sites if asked is None else asked), set(known))
    for site in sorted(answers.asked - answers.given):
        if hub.store.exists(_ANSWERS[phase](plan.study, plan.server_round, site)):
            answers.given.add(site)
        elif _refuses(hub, plan, site, phase):
            answers.refusals.add(site)
    return answers


def _refuses(hub: HubContext, plan: Plan, site: str, phase: PhaseName) -> bool:
    """Whether a site has refused in this run, and not tried again since. Who has uploaded may still help to unmask."""
    try:
        refusal = _refusal(hub, plan, site)
    except StoreUnavailable:
        raise
    except StoreError:  # something lies there, and it is no withdrawal
        return True
    if refusal is None or refusal.withdrawn or refusal.run_id != hub.run_id:
        return False
    return phase != "unmask" or refusal.step == "unmask"


def _refusal(hub: HubContext, plan: Plan, site: str) -> Refusal | None:
    try:
        return hub.store.get_record(layout.refusal(plan.study, plan.server_round, site), Refusal)
    except ObjectMissing:
        return None


def why_silent(hub: HubContext, plan: Plan, site: str, answers: Answers) -> str:
    """Why a site has sent nothing; of one that is silent also what it refused with in an earlier try."""
    silent = "no answer before the deadline"
    try:
        refusal = _refusal(hub, plan, site)
    except StoreUnavailable:
        raise
    except StoreError as error:
        return f"its refusal cannot be read ({type(error).__name__})"
    if refusal is None:
        return silent
    said = f"{refusal.step}: {refusal.reason}"
    return shorten(said if site in answers.refusals else f"{silent}; an earlier try: {said}")
