"""How a site's step runs: while its round is open and its phase lasts, with no value in an error, and heard of if lost.

A step that fails for good tells the hub why, so that the hub need not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

import torch

from tasks.errors import ObjectMissing, PharmafedError, RoundRefused, StoreError, StoreUnavailable, Withheld
from tasks.foreign.bounds import SITE_REASON, shorten
from tasks.rounds.site.accounted import WITHHELD
from tasks.rounds.site.context import PlannedRound, SiteContext
from tasks.rounds.site.guard import before, no_values_in_errors
from tasks.store import layout
from tasks.store.files import alone
from tasks.store.objects import to_json
from tasks.store.records.round import Plan, Refusal
from tasks.study.channels import Step

WorkResult = TypeVar("WorkResult")


def run_step(
    ctx: SiteContext,
    server_round: int,
    step: Step,
    work: Callable[[PlannedRound], WorkResult],
    *,
    with_deadline: bool = True,
) -> WorkResult | None:
    """Run a step under both guards; when it fails for good, tell the hub why, so that it need not wait.

    None where the round is closed and has this work in its record.
    """
    torch.set_num_threads(1)
    what = f"{step} of round {server_round} at site {ctx.site}"
    try:
        with no_values_in_errors(step, ctx.site):
            planned = ctx.plan(server_round)
            if not require_open(ctx, planned.plan, step):
                return None
            if not with_deadline:
                return work(planned)
            _withdraw(ctx, server_round, step)
            with before(_end_of(planned.plan, step), what), alone(ctx.round_dir(server_round)):
                return work(planned)
    except StoreUnavailable:
        raise
    except PharmafedError as error:
        if step != "validate_global" and not isinstance(error, RoundRefused):  # that one is the hub's own word
            refuse(ctx, server_round, step, _told(error))
        raise
    raise AssertionError("unreachable: the guard raises")


def refuse(ctx: SiteContext, server_round: int, step: Step, reason: str) -> None:
    """Tell the hub that this site's part in the round has failed for good.

    Best effort: without it the hub learns the same at the deadline. `reason` holds nothing of a patient's record.
    """
    record = Refusal(
        study=ctx.study.study,
        server_round=server_round,
        site=ctx.site,
        step=step,
        reason=shorten(reason, SITE_REASON),
        run_id=ctx.run_id,
    )
    try:
        _put_refusal(ctx, record)
    except PharmafedError as second:
        print(f"the hub could not be told: {second}")


def require_asked(ctx: SiteContext, plan: Plan) -> None:
    """Raises RoundRefused: the hub has left this site out, and its plan says why."""
    if ctx.site not in plan.sites:
        raise RoundRefused(f"site {ctx.site} is left out of round {plan.server_round}: {plan.left_out[ctx.site]}")


def require_open(ctx: SiteContext, plan: Plan, step: Step) -> bool:
    """Whether there is work left: none for a site whose part is in the record of the closed round.

    Raises:
        RoundRefused: the round is closed without this work, or goes on without this site. Nothing is paid for it.
    """
    settled = ctx.settled(plan.server_round)
    if settled is None:
        return True
    closed, name = settled.status != "selected", f"round {plan.server_round} of {plan.study}"
    is_in = ctx.site in settled.sites
    if not closed and (is_in or step == "validate_global"):
        return True
    if step == "validate_global":
        is_in = ctx.store.exists(layout.site_metrics(plan.study, plan.server_round, ctx.site))
    if is_in:
        print(f"{name} is closed, and this is in its record: nothing is left to do")
        return False
    state = f"is closed ({settled.status})" if closed else "takes no more updates"
    raise RoundRefused(f"{name} {state}, without {step} of site {ctx.site}: the next round is its next chance")


def _told(error: PharmafedError) -> str:
    return WITHHELD if isinstance(error, Withheld) else f"{type(error).__name__}: {error}"


def _withdraw(ctx: SiteContext, server_round: int, step: Step) -> None:
    """A step that is tried again takes back what an earlier try has refused: the hub waits for the site again."""
    try:
        refusal = ctx.store.get_record(layout.refusal(ctx.study.study, server_round, ctx.site), Refusal)
    except ObjectMissing:
        return
    except StoreUnavailable:
        raise
    except StoreError:  # the hub could not read it either, and would take it for a refusal
        reason = "an earlier try, of which nothing can be read"
        refusal = Refusal(study=ctx.study.study, server_round=server_round, site=ctx.site, step=step, reason=reason)
    if not refusal.withdrawn:
        _put_refusal(ctx, refusal.model_copy(update={"withdrawn": True}))


def _put_refusal(ctx: SiteContext, refusal: Refusal) -> None:
    key = layout.refusal(refusal.study, refusal.server_round, refusal.site)
    ctx.store.put(key, to_json(refusal), content_type="application/json")


def _end_of(plan: Plan, step: Step) -> datetime:
    """Rounds go in phases: who misses the end of one is lost to the next."""
    return plan.end_of(plan.channel.phase_of(step))
