"""How things are called in a study: identifiers, sites, and what a cell may be compared with."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tasks.foreign.bounds import SITE_PATTERN

Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
SiteName = Annotated[str, Field(pattern=SITE_PATTERN, max_length=32)]
Cell = str | int | float
