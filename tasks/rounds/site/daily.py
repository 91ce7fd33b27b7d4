"""The daily check of a site's data, apart from any round."""

from __future__ import annotations

from tasks.errors import ConfigError, PharmafedError, StoreUnavailable, ValidationFailed
from tasks.foreign.bounds import SITE_REASON, shorten
from tasks.rounds.site.context import SiteContext
from tasks.rounds.site.guard import no_values_in_errors
from tasks.rounds.site.validation import valid_patients
from tasks.store import layout
from tasks.store.objects import to_json
from tasks.store.records.site import DailyValidation


def validate_daily(site: str, studies: list[str]) -> None:
    """Check one site's data for every study it takes part in, and publish what passed and what failed.

    Raises:
        ConfigError: nothing but suites, waivers or studies is wrong: the data are not to blame.
        ValidationFailed: naming study and expectation. StoreUnavailable: worth a retry.
    """
    errors: dict[str, PharmafedError | None] = {}
    for study in studies:
        ctx = SiteContext.load(study, site)
        errors[study] = _error(ctx)
    outcomes = {study: "valid" if error is None else _told(error) for study, error in errors.items()}
    record = DailyValidation(site=site, outcomes=outcomes)
    ctx.store.put(layout.daily_validation(site), to_json(record), content_type="application/json")
    failed = {study: error for study, error in errors.items() if error is not None}
    if failed:
        kind = ConfigError if all(isinstance(error, ConfigError) for error in failed.values()) else ValidationFailed
        raise kind("; ".join(f"{study}: {outcomes[study]}" for study in failed))


def _error(ctx: SiteContext) -> PharmafedError | None:
    try:
        with no_values_in_errors("validate_data", ctx.site):
            valid_patients(ctx)
    except StoreUnavailable:
        raise
    except PharmafedError as error:
        return error
    return None


def _told(error: PharmafedError) -> str:
    return shorten(f"{type(error).__name__}: {error}", SITE_REASON)
