"""Recorded waivers: who let which expectation of which site go, why, and until when.

A waiver is data-manager speech on the record. It never hides a failure: the result keeps it and says who waived it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import date
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tasks.errors import ConfigError
from tasks.foreign.spelling import nearest
from tasks.foreign.yaml_file import read_yaml


class Waiver(BaseModel):
    """One line of `expectations/waivers.yaml`. It holds through the day `until`, UTC."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: str = Field(min_length=1)
    expectation: str = Field(pattern=r"^[a-z0-9_]+/.+$")
    who: str = Field(min_length=3, description="a role, not a person")
    why: str = Field(min_length=10)
    granted: date
    until: date

    @model_validator(mode="after")
    def _ends_after_grant(self) -> Self:
        if self.until < self.granted:
            raise ValueError("until lies before granted")
        return self


def load_waivers(path: Path, known: Collection[str], *, any_input: bool = False) -> tuple[Waiver, ...]:
    """Read the waivers of all sites; a missing file means that there are none.

    Args:
        path: the YAML file: a list of waivers.
        known: the ids that exist, see `known_expectations`.
        any_input: ids of inputs may be others too: those of a study whose file cannot be read now.

    Raises:
        ConfigError: with the line: unknown key, missing key, unknown expectation, two waivers for one thing.
    """
    if not path.is_file():
        return ()
    entries = _read(path)
    waivers = tuple(_parse(path, line, entry) for line, entry in entries)
    for (line, _), waiver in zip(entries, waivers, strict=True):
        if waiver.expectation not in known and not (any_input and waiver.expectation.startswith("inputs/")):
            hint = nearest(waiver.expectation, known, "see the suites in " + str(path.parent))
            raise ConfigError(f"{path}:{line}: no expectation {waiver.expectation}; {hint}")
    _refuse_twins(path, waivers)
    return waivers


def find_waiver(waivers: Iterable[Waiver], expectation: str) -> Waiver | None:
    return next((waiver for waiver in waivers if waiver.expectation == expectation), None)


def _read(path: Path) -> list[tuple[int, Any]]:
    """Each entry with its 1-based line."""
    document = read_yaml(path)
    if document.root is None:
        return []
    if not isinstance(document.root, yaml.SequenceNode):
        raise ConfigError(f"{path}:1: waivers are a list; each begins with `- site:`")
    pairs = zip(document.root.value, document.content, strict=True)
    return [(node.start_mark.line + 1, entry) for node, entry in pairs]


def _parse(path: Path, line: int, entry: Any) -> Waiver:
    try:
        return Waiver.model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
    if first["type"] == "extra_forbidden":
        raise ConfigError(f"{path}:{line}: unknown key {first['loc'][0]}; allowed: {', '.join(Waiver.model_fields)}")
    place = ".".join(map(str, first["loc"])) or "waiver"
    raise ConfigError(f"{path}:{line}: {place}: {str(first['msg']).removeprefix('Value error, ')}")


def _refuse_twins(path: Path, waivers: Iterable[Waiver]) -> None:
    seen: set[tuple[str, str]] = set()
    for waiver in waivers:
        if (waiver.site, waiver.expectation) in seen:
            raise ConfigError(f"{path}: two waivers for {waiver.expectation} at site {waiver.site}; keep one")
        seen.add((waiver.site, waiver.expectation))
