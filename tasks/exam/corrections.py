"""Corrections of the published files: a YAML list that a person writes, kept with the exam and with every run of it.

    - item: "109330"
      reason: the ministry's table of answers has no solution for it
      answer: [解なし]

Fields are those of the published lines (problem_text, choices, text_only, answer, category, note); `follows` says
whether the item goes on with the case of the item before it, and `line` which line of the items' file it is, where the
id there is wrong. A `category` that is the published one confirms it. An item can be given whole, where the files lack
it or its `line` cannot be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tasks.errors import DataError
from tasks.exam.faults import Faults
from tasks.exam.jsonl import Line
from tasks.exam.records import Correction
from tasks.yaml_file import read_yaml

_METADATA = frozenset({"category", "note"})
_NOT_PUBLISHED = frozenset({"follows", "line"})
_WHOLE = frozenset({"problem_text", "choices", "text_only", "answer"})


def read_corrections(path: Path, exam: str) -> dict[str, Correction]:
    """By item id, in the order of the file.

    Raises:
        DataError: with every entry that is not as above, is of another exam, changes nothing, or names an item twice.
    """
    try:
        content = read_yaml(path, error=DataError).content
    except FileNotFoundError:
        raise DataError(f"{path} is missing: name the file of corrections") from None
    if not isinstance(content, list) or not content:
        raise DataError(f"{path} is not a list of corrections: begin each with `- item:`; nothing has been imported")
    faults = Faults()
    found: dict[str, Correction] = {}
    for number, entry in enumerate(content, 1):
        correction = _read(path, f"entry {number}", entry, exam, faults)
        if correction and correction.item in found:
            faults.add(path, f"item {correction.item} is named twice", "Make one entry of the two", f"entry {number}")
        elif correction:
            found[correction.item] = correction
    faults.refuse()
    return found


def _read(path: Path, place: str, entry: object, exam: str, faults: Faults) -> Correction | None:
    """None where the entry is at fault."""
    if not isinstance(entry, dict):
        faults.add(path, "not a mapping with `item` and `reason`", "Write it as the others", place)
        return None
    try:
        correction = Correction.model_validate(_with_text(entry))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = first["loc"][0] if first["loc"] else "entry"
        faults.add(path, f"`{where}` is not as a correction has it ({first['msg']})", "Correct it", place)
        return None
    if not correction.item.startswith(exam):
        faults.add(path, f"item {correction.item} is not of exam {exam}", "Use a file for each exam", place)
        return None
    if not correction.changes:
        faults.add(path, f"item {correction.item} is given no field", "Say what is to be changed", place)
        return None
    return correction


def _with_text(entry: Mapping[Any, Any]) -> dict[Any, Any]:
    """Ids and option numbers may be written without quotes."""
    plain = {key: f"{value:06}" if key == "item" and _whole(value) else value for key, value in entry.items()}
    for key in ("answer", "choices"):
        if isinstance(plain.get(key), list):
            plain[key] = [str(part) if _whole(part) or isinstance(part, float) else part for part in plain[key]]
    return plain


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def corrected(
    lines: Sequence[Line], corrections: Mapping[str, Correction], *, metadata: bool, source: Path
) -> list[Line]:
    """The lines with their corrections, each in every line of its item, and items that only the corrections have."""
    named = {one.line: item for item, one in corrections.items() if one.line and not metadata}
    fields = {
        item: {name: value for name, value in _published(one).items() if (name in _METADATA) == metadata}
        for item, one in corrections.items()
    }
    result = [_apply(line, named.get(line.number), fields) for line in lines]
    known = {line.value.get("problem_id") for line in result}
    needed = {"category"} if metadata else _WHOLE
    for number, (item, given) in enumerate(fields.items(), 1):
        if item not in known and needed <= given.keys():
            result.append(Line(source, number, {"problem_id": item, **given}))
    return result


def is_whole(one: Correction) -> bool:
    """Whether it gives all that the items' file has of an item."""
    return one.changes.keys() >= _WHOLE


def _published(one: Correction) -> dict[str, object]:
    return {name: value for name, value in one.changes.items() if name not in _NOT_PUBLISHED}


def _apply(line: Line, identity: str | None, fields: Mapping[str, Mapping[str, object]]) -> Line:
    value = line.value if identity is None else {**line.value, "problem_id": identity}
    given = fields.get(str(value.get("problem_id")), {})
    return Line(line.path, line.number, {**value, **given})
