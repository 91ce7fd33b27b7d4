"""Everything that pharmafed raises on purpose.

Messages name the thing, the place and the remedy, and never contain a value read from a patient's record.

    PharmafedError
    ├── ConfigError            a study, setting or deployment is wrong; the message says where
    ├── DataError              a site's data cannot be used
    │   ├── DataPinMismatch    the bytes on disk are not the bytes that data.dvc pins
    │   └── ValidationFailed   an expectation failed and no waiver covers it
    ├── StoreError             the object store refused or could not be reached
    │   ├── StoreUnavailable   could not be reached: worth a retry
    │   ├── AccessDenied       this credential may not do that
    │   ├── ClockSkewed        this machine's clock is wrong, or the store's
    │   ├── ObjectMissing      no such key
    │   └── ObjectExists       create-once or compare-and-swap lost
    ├── PrivacyError           an update cannot be made private, so it stays at the site
    │   ├── BudgetExhausted    the study's privacy budget cannot pay for this round
    │   └── Withheld           it went wrong after patients were looked at: paid for, and why stays at the site
    ├── AuditFailed            an attack beats a study's privacy promise, or proved nothing
    ├── DriftFound             a language model answers an exam otherwise than before, by more than chance
    ├── RoundError             the round cannot go on
    │   ├── RoundRefused       it may not be opened: closed study, too few sites, another round open
    │   ├── DeadlinePassed     the answer came after the round's deadline
    │   └── QuorumMissed       too few valid updates arrived
    ├── ExamError              an exam's run cannot be finished; what was answered is kept
    │   ├── ModelUnavailable   no answer in spite of retries: busy, down or cut off; worth a retry in minutes
    │   ├── ModelRefused       wrong key, no such model, provider not installed: not worth a retry
    │   └── RunIncomplete      a call failed, the engine ended or was stopped, or its files do not fit: no run yet
    ├── UpdateRejected         the hub does not accept an update; `reason` is recorded in the round
    └── SiteStepFailed         a step at a site broke; carries the error's type and place, never its message
"""

from __future__ import annotations


class PharmafedError(Exception):
    """Base of all errors that pharmafed raises on purpose."""


class ConfigError(PharmafedError):
    """A study file, setting or deployment is wrong."""


class DataError(PharmafedError):
    """A site's data cannot be used."""


class DataPinMismatch(DataError):
    """The data on disk differs from what `data.dvc` pins."""


class ValidationFailed(DataError):
    """At least one expectation failed without a waiver."""


class StoreError(PharmafedError):
    """The object store refused an operation."""


class StoreUnavailable(StoreError):
    """The object store could not be reached or answered with a server error; retry later."""


class AccessDenied(StoreError):
    """The credential in use may not perform the operation."""


class ClockSkewed(StoreError):
    """The store refuses the time in a signature: one of the two clocks is wrong."""


class ObjectMissing(StoreError):
    """The key does not exist."""


class ObjectExists(StoreError):
    """A create-once or compare-and-swap write lost against an object that is already there."""


class PrivacyError(PharmafedError):
    """An update cannot be privatised, counted or recorded, so it must not leave the site."""


class BudgetExhausted(PrivacyError):
    """The remaining privacy budget cannot pay for the next round."""


class Withheld(PrivacyError):
    """A step failed after it had looked at patients. The round is paid for, and the reason does not leave the site."""


class AuditFailed(PharmafedError):
    """An attack on a study's releases beats its promise, or the attacks proved nothing."""


class DriftFound(PharmafedError):
    """A model answers otherwise than in its last run with equal settings, by more than chance."""


class RoundError(PharmafedError):
    """A round cannot go on."""


class RoundRefused(RoundError):
    """A round may not be opened."""


class DeadlinePassed(RoundError):
    """The round's deadline is over; a late answer is never mixed into another round."""


class QuorumMissed(RoundError):
    """Fewer valid updates than `min_sites` arrived before the deadline."""


class ExamError(PharmafedError):
    """An exam's run cannot be finished. What was answered is kept, and asking again asks only the rest."""


class ModelUnavailable(ExamError):
    """The model gave no answer in spite of retries: rate limit, server error, time-out, connection lost."""


class ModelRefused(ExamError):
    """The model will not answer before somebody changes a setting: key, model's name, provider's package."""


class RunIncomplete(ExamError):
    """An item has no response, or the run's files do not fit together: there is no run to score."""


class UpdateRejected(PharmafedError):
    """The hub does not accept a site's update. `reason` goes into the round's record."""

    def __init__(self, site: str, reason: str) -> None:
        super().__init__(f"update of site {site} rejected: {reason}")
        self.site = site
        self.reason = reason


class SiteStepFailed(PharmafedError):
    """A step at a site broke unexpectedly. Holds the error's type and place, never its message."""
