"""What all records are, and the bounded parts that several of them have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from tasks.foreign.bounds import MAX_NAMED, MAX_SITES, Name, Sha256, Text
from tasks.study.names import SiteName

Digest = Sha256
Reasons = Annotated[dict[SiteName, Text], Field(max_length=MAX_SITES)]
Figures = Annotated[
    dict[Name, Annotated[float, Field(ge=-1e12, le=1e12)]],
    Field(max_length=16, description="metric -> what was found; one that is not known is not there"),
]
Expectations = Annotated[tuple[Name, ...], Field(max_length=MAX_NAMED)]


class Record(BaseModel):
    """Frozen, and strict about its keys.

    LATER: keys that came after records of the kind had been signed or named by digest. At its default one is not
    written, so older signatures and digests hold.
    """

    LATER: ClassVar[frozenset[str]] = frozenset()

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def gathered(data: Any, field: str, earlier: Mapping[str, str]) -> Any:
    """A record as it is written, `field` with what stood under keys of their own before: earlier key -> metric."""
    if not isinstance(data, dict) or not set(earlier) & set(data) or not isinstance(data.get(field, {}), dict):
        return data
    found = {metric: data[key] for key, metric in earlier.items() if data.get(key) is not None}
    rest = {key: value for key, value in data.items() if key not in earlier}
    return {**rest, field: {**found, **rest.get(field, {})}}
