"""A site by itself: its enrolment and the daily check of its data."""

from __future__ import annotations

from pydantic import Field

from tasks.foreign.bounds import MAX_STUDIES, Moment, Name, Pem, Text
from tasks.store.records.record import Record
from tasks.study.names import SiteName


class Enrolment(Record):
    """A site that the hub has admitted: its certificate, and the token that identifies its contributions."""

    site: SiteName
    token: Name
    certificate_pem: Pem
    enrolled_at: Moment
    active: bool = True


class DailyValidation(Record):
    """The daily check of a site's data: per study "valid", or what failed."""

    site: SiteName
    outcomes: dict[Name, Text] = Field(max_length=MAX_STUDIES)
