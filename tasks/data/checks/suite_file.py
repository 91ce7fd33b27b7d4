"""Reads one suite's file, and tells everything that is wrong with it at once, each by its line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from tasks.data.checks.suite import Expectation, ExpectationMeta, Suite, SuiteMeta
from tasks.data.checks.suite_faults import Fault, suite_faults
from tasks.errors import ConfigError
from tasks.foreign.bounds import MAX_NOTE, shorten
from tasks.foreign.json_file import JsonPath, read_json
from tasks.foreign.spelling import nearest

#: Faults that one message tells; the rest is counted.
MAX_TOLD = 20


def read_suite(path: Path, *, for_columns: bool = False) -> Suite:
    """The suite of the table that the file is named after; `for_columns`: its expectations are held to their form only.

    Raises:
        ConfigError: with a line of text for each fault: file, line, expectation, argument and remedy.
    """
    file = read_json(path)
    faults = _shape_faults(file.content)
    suite, indices = _sound_part(file.content, [fault.place for fault in faults])
    if suite is not None:
        if suite.name != path.stem:
            name = f"the suite's name is {suite.name!r}, but the file is named {path.name}: rename one of them"
            faults.append(Fault(("name",), name))
        if not for_columns:
            faults += suite_faults(suite, indices)
    if suite is None or faults:
        told = sorted((file.line(fault.place), fault.text) for fault in faults)
        lines = [f"{path}:{line}: {shorten(text, MAX_NOTE)}" for line, text in told[:MAX_TOLD]]
        more = f"and {len(told) - MAX_TOLD} more faults. " if len(told) > MAX_TOLD else ""
        raise ConfigError("\n".join([*lines, f"{more}The suite is wrong, whatever the data are: correct {path.name}"]))
    return suite


def _shape_faults(content: Any) -> list[Fault]:
    """What has not the form of a suite."""
    try:
        Suite.model_validate(content)
    except ValidationError as error:
        problems = {tuple(each["loc"]): each for each in error.errors()}
        # pydantic does not count an item that is wrong, and then tells of too few
        few = {place for place, each in problems.items() if each["type"] == "too_short" and len(problems) > 1}
        return [Fault(place, _told(place, each)) for place, each in problems.items() if place not in few]
    return []


def _told(place: JsonPath, problem: Any) -> str:
    name = ".".join(map(str, place)) or "suite"
    if problem["type"] == "extra_forbidden":
        return f"{name}: unknown key; {nearest(str(place[-1]), _model_at(place[:-1]).model_fields)}"
    return f"{name}: {str(problem['msg']).removeprefix('Value error, ')}"


def _model_at(place: JsonPath) -> type[BaseModel]:
    if not place:
        return Suite
    if place[0] == "meta":
        return SuiteMeta
    return ExpectationMeta if place[-1] == "meta" else Expectation


def _sound_part(content: Any, faulty: Iterable[JsonPath]) -> tuple[Suite | None, list[int]]:
    """The suite without the expectations of a wrong form, and where the others stand; None if there is none such."""
    wrong = {place[1] if len(place) > 1 and place[0] == "expectations" else None for place in faulty}
    if None in wrong:
        return None, []
    indices = [index for index in range(len(content["expectations"])) if index not in wrong]
    if not indices:
        return None, []
    return Suite.model_validate({**content, "expectations": [content["expectations"][i] for i in indices]}), indices
