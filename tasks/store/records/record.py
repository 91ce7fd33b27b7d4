"""What all records are, and the bounded parts that several of them have."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tasks.foreign.bounds import MAX_NAMED, MAX_SITES, Name, Sha256, Text
from tasks.study.names import SiteName

Digest = Sha256
Reasons = Annotated[dict[SiteName, Text], Field(max_length=MAX_SITES)]
Expectations = Annotated[tuple[Name, ...], Field(max_length=MAX_NAMED)]


class Record(BaseModel):
    """Frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
