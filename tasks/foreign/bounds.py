"""How large what comes from elsewhere may be: bounded types for the records between hub and sites, and `shorten`.

Every text, list, number and time of a record has one of these types, or a bound of its own, so that a record's largest
size follows from its fields (`tasks.store.record_size`) and nothing that is computed from it can overflow.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, Field

#: Sites of one study.
MAX_SITES = 1024
#: Tensors of one model or update.
MAX_TENSORS = 4096
#: Dimensions of a tensor, and values in it.
MAX_RANK, MAX_VALUES = 8, 1 << 40
#: No weight of a model may be larger: with inputs as they are clipped, no logit then leaves float64 or float32.
MAX_WEIGHT = 1e6
#: Expectations that one site's data are checked against, and those of one kind that a round's record names.
MAX_EXPECTATIONS, MAX_NAMED = 1000, 100
#: Inputs of a model, and studies that one site takes part in.
MAX_INPUTS, MAX_STUDIES = 4096, 256
#: Steps of a round that a site timed.
MAX_STEPS = 16
#: Characters of a reason as a site writes it, as the hub records it, and as a record may hold it.
SITE_REASON, HUB_REASON, MAX_TEXT = 3000, 3500, 4000
#: Characters of a note beside a figure.
MAX_NOTE = 1000
#: Characters of a name, and of a text that people wrote at length.
MAX_NAME, MAX_LONG_TEXT = 300, 20_000
#: Any count that is not bounded elsewhere; a float holds it exactly.
MAX_COUNT = 1 << 53
#: Years in which a record can have been written: far from where arithmetic on times overflows.
_YEARS = range(2000, 3000)

#: Characters that no name or reason needs: control, formatting (text that runs backwards) and line separators.
_HIDDEN = r"\p{Cc}\p{Cf}\p{Zl}\p{Zp}"
NAME_PATTERN = rf"^[^{_HIDDEN}]*$"
#: The same, but lines may end.
TEXT_PATTERN = rf"^(?:[^{_HIDDEN}]|[\n\t])*$"
SITE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
SHA256_PATTERN = r"^[0-9a-f]{64}$"
#: Base64 of 64 bytes in its one spelling, or nothing.
SIGNATURE_PATTERN = r"^(?:[A-Za-z0-9+/]{85}[AQgw]==)?$"
PEM_PATTERN = r"^[A-Za-z0-9+/= :,.()\r\n-]*$"
#: Pattern -> the most bytes that JSON takes for a character that it lets through; six (`\u0000`) for any other.
BYTES_PER_CHARACTER = {
    NAME_PATTERN: 4,
    TEXT_PATTERN: 4,
    SITE_PATTERN: 1,
    SHA256_PATTERN: 1,
    SIGNATURE_PATTERN: 1,
    PEM_PATTERN: 2,
}


def _in_our_time(when: datetime) -> datetime:
    if when.year not in _YEARS:
        raise ValueError(f"the year {when.year} is not in {_YEARS.start} to {_YEARS.stop - 1}")
    return when


Name = Annotated[str, Field(max_length=MAX_NAME, pattern=NAME_PATTERN)]
Text = Annotated[str, Field(max_length=MAX_TEXT, pattern=TEXT_PATTERN)]
Note = Annotated[str, Field(max_length=MAX_NOTE, pattern=TEXT_PATTERN)]
LongText = Annotated[str, Field(max_length=MAX_LONG_TEXT, pattern=TEXT_PATTERN)]
Sha256 = Annotated[str, Field(max_length=64, pattern=SHA256_PATTERN)]
Signature = Annotated[str, Field(max_length=88, pattern=SIGNATURE_PATTERN)]
Pem = Annotated[str, Field(max_length=8000, pattern=PEM_PATTERN)]
Round = Annotated[int, Field(ge=0, le=999_999)]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Length = Annotated[int, Field(ge=0, le=MAX_VALUES)]
#: A part of a privacy spend.
Amount = Annotated[float, Field(ge=0, le=1e12)]
#: What one step at a site took, and what all sites took together: 11 days, and 1024 times as long with room to spare.
StepSeconds = Annotated[float, Field(ge=0, le=1e6)]
Duration = Annotated[float, Field(ge=0, le=1e10)]
Moment = Annotated[AwareDatetime, AfterValidator(_in_our_time)]
Seconds = Annotated[dict[Name, StepSeconds], Field(max_length=MAX_STEPS, description="step -> seconds")]


def shorten(text: str, most: int = HUB_REASON) -> str:
    """One line of at most `most` characters, with a space for whatever cannot be printed.

    Whatever the text is, the result is a valid `Text`: who composes a reason ends with this.
    """
    head = text[: most + 1]
    line = "".join(character if character.isprintable() else " " for character in head)
    return line if len(head) <= most else f"{line[: most - 1]}…"


def _is_plain(value: object, depth: int = 5) -> bool:
    """Whether any model can be sure what it gets: a number, text, true, false or nothing, or lists and maps of such."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list):
        return depth > 0 and all(_is_plain(item, depth - 1) for item in value)
    if isinstance(value, dict):
        return depth > 0 and all(isinstance(k, str) and _is_plain(item, depth - 1) for k, item in value.items())
    return value is None or isinstance(value, str | int)


def _plain_options(options: dict[str, Any]) -> dict[str, Any]:
    for name, value in options.items():
        if not _is_plain(value):
            raise ValueError(f"{name} must be a finite number, a text, true, false, null, or lists or maps of such")
    return options


#: What a model is called with, from a study file.
PlainOptions = Annotated[dict[str, Any], AfterValidator(_plain_options)]
