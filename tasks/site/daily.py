"""The daily check of a site's data, apart from any round."""

from __future__ import annotations

from tasks import layout
from tasks.bounds import SITE_REASON, shorten
from tasks.errors import PharmafedError, StoreUnavailable, ValidationFailed
from tasks.records import DailyValidation
from tasks.site.context import SiteContext
from tasks.site.guard import no_values_in_errors
from tasks.site.validation import valid_patients
from tasks.storage import to_json


def validate_daily(site: str, studies: list[str]) -> None:
    """Check one site's data for every study it takes part in, and publish what passed and what failed.

    Raises:
        ValidationFailed: naming study and expectation. StoreUnavailable: worth a retry.
    """
    outcomes: dict[str, str] = {}
    for study in studies:
        ctx = SiteContext.load(study, site)
        outcomes[study] = _outcome(ctx)
    record = DailyValidation(site=site, outcomes=outcomes)
    ctx.store.put(layout.daily_validation(site), to_json(record), content_type="application/json")
    failed = {study: outcome for study, outcome in outcomes.items() if outcome != "valid"}
    if failed:
        raise ValidationFailed("; ".join(f"{study}: {outcome}" for study, outcome in failed.items()))


def _outcome(ctx: SiteContext) -> str:
    try:
        with no_values_in_errors("validate_data", ctx.site):
            valid_patients(ctx)
    except StoreUnavailable:
        raise
    except PharmafedError as error:
        return shorten(f"{type(error).__name__}: {error}", SITE_REASON)
    return "valid"
