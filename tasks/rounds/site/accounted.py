"""What a site does after it has looked at its patients: whatever comes of it is paid for, and no failure tells why.

A refusal that depends on a patient answers a question about that patient, without noise. So between the moment when
patients are looked at and the release nothing is refused in words: the round is paid for as if it had been released,
the hub is told one word, and the reason lies in the site's own folder.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.errors import ConfigError, Withheld
from tasks.privacy.ledger.ledger import SiteLedger
from tasks.privacy.sanitizer import plan_spend
from tasks.rounds.site.context import PlannedRound, SiteContext
from tasks.store.files import write_private
from tasks.study.privacy import Privacy

#: All that leaves a site about such a failure.
WITHHELD = "withheld"


@contextmanager
def paid_for(ctx: SiteContext, planned: PlannedRound, ledger: SiteLedger) -> Iterator[None]:
    """Let through what succeeds; of a failure keep the reason at the site, and pay for the round.

    Nothing in it may wait for the store or depend on the hub: that is read before. A study without privacy promises
    nothing, so its failures are told as any other.

    Raises:
        Withheld: it failed. StoreUnavailable: it failed and could not be paid for yet; nothing was told.
    """
    reason = ""
    try:
        yield
    except Exception:
        if not planned.plan.privacy.promises:
            raise
        reason = traceback.format_exc()
    if not reason:
        return
    plan = planned.plan
    path = ctx.round_dir(plan.server_round) / "withheld.txt"
    write_private(path, reason.encode())
    ledger.pay(plan.server_round, plan_spend(plan, ledger.read().next_release(plan.server_round)), planned.sha256)
    raise Withheld(f"{WITHHELD}: the reason is at site {ctx.site}, in {path}")


def require_honest_counts(privacy: Privacy, num_examples: int, site: str) -> None:
    """Check the study's public figures against the number of patients that this site trains on, which is public too.

    A delta below one over the public number is then below one over the site's own, too.

    Raises:
        ConfigError: the site alone has more patients than the study says that all have.
    """
    if privacy.public_patients is not None and num_examples > privacy.public_patients:
        raise ConfigError(
            f"site {site} trains on {num_examples} patients, and privacy.public_num_examples says that all sites "
            f"together have {privacy.public_patients}: correct the study"
        )
