"""Corrections of the published files: a YAML list that a person writes, kept with the exam and with every run of it.

    - item: "109330"
      reason: the ministry's table of answers has no solution for it
      answer: [解なし]

Fields are those of the published lines (problem_text, choices, text_only, answer, category, note); `follows` says
whether the item goes on with the case of the item before it, and `line` which line of the items' file it is, where the
id there is wrong. An item can be given whole, where the files lack it or its `line` cannot be read.

Words and numbers are taken as they are written: 1:2 and 5.00 need no quotes. What changes nothing is refused, so that
no report tells of a correction that was none; only a `category` that is the published one is taken, as it confirms it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from tasks.errors import DataError
from tasks.exam.bank.faults import Faults
from tasks.exam.bank.jsonl import JsonLine
from tasks.exam.bank.records import Correction
from tasks.foreign.yaml_file import as_written, read_yaml

_METADATA = frozenset({"category", "note"})
_NOT_PUBLISHED = frozenset({"follows", "line"})
#: Read as YAML has it; everything else as it is written.
_TYPED = frozenset({"text_only", "follows", "line"})
_WHOLE = frozenset({"problem_text", "choices", "text_only", "answer"})


def read_corrections(path: Path, exam: str) -> dict[str, Correction]:
    """By item id, in the order of the file.

    Raises:
        DataError: with every entry that is not as above, is of another exam, changes nothing, or names an item twice.
    """
    faults = Faults()
    found: dict[str, Correction] = {}
    lines: set[int] = set()
    for number, entry in enumerate(_entries(path), 1):
        correction = _read(path, f"entry {number}", entry, exam, faults)
        if correction is None:
            continue
        if correction.item in found:
            faults.add(path, f"item {correction.item} is named twice", "Make one entry of the two", f"entry {number}")
        elif correction.line in lines:
            faults.add(path, f"line {correction.line} is named twice", "A line is one item", f"entry {number}")
        found.setdefault(correction.item, correction)
        lines |= {correction.line} if correction.line else set()
    faults.refuse()
    return found


def _entries(path: Path) -> list[object]:
    """With every scalar as it is written, but for flags, line numbers and what has no value."""
    if path.is_dir():
        raise DataError(f"{path} is a folder: name the file of corrections; nothing has been imported")
    try:
        document = read_yaml(path, error=DataError)
    except FileNotFoundError:
        raise DataError(f"{path} is missing: name the file of corrections") from None
    if not isinstance(document.content, list) or not document.content:
        raise DataError(f"{path} is not a list of corrections: begin each with `- item:`; nothing has been imported")
    return [
        {key: typed[key] if key in _TYPED else value for key, value in written.items()}
        if isinstance(typed, dict)
        else typed
        for typed, written in zip(document.content, as_written(document), strict=True)
    ]


def _read(path: Path, place: str, entry: object, exam: str, faults: Faults) -> Correction | None:
    """None where the entry is at fault."""
    if not isinstance(entry, dict):
        faults.add(path, "not a mapping with `item` and `reason`", "Write it as the others", place)
        return None
    if empty := [str(key) for key, value in entry.items() if value is None]:
        faults.add(path, f"`{empty[0]}` has no value", "Give it one, or leave the field out", place)
        return None
    try:
        correction = Correction.model_validate(entry)
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


def corrected(
    lines: Sequence[JsonLine], corrections: Mapping[str, Correction], *, metadata: bool, source: Path
) -> list[JsonLine]:
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
            result.append(JsonLine(source, number, {"problem_id": item, **given}))
    return result


def is_whole(one: Correction) -> bool:
    """Whether it gives all that the items' file has of an item."""
    return one.changes.keys() >= _WHOLE


def _published(one: Correction) -> dict[str, object]:
    return {name: value for name, value in one.changes.items() if name not in _NOT_PUBLISHED}


def check_lines(
    published: Mapping[int, object], total: int, corrections: Mapping[str, Correction], source: Path, faults: Faults
) -> None:
    """Each `line` is one of the `total` of the items' file; `published` has the id of each that can be read."""
    for item, one in corrections.items():
        if one.line is None:
            continue
        if one.line > total or (one.line not in published and not is_whole(one)):
            faults.add(source, f"item {item} is to be line {one.line}, which has no item", "Correct its `line`")
        elif published.get(one.line) == item:
            faults.add(source, f"line {one.line} is item {item} as it was published", "Leave its `line` out")


def _apply(line: JsonLine, identity: str | None, fields: Mapping[str, Mapping[str, object]]) -> JsonLine:
    value = line.value if identity is None else {**line.value, "problem_id": identity}
    given = fields.get(str(value.get("problem_id")), {})
    return JsonLine(line.path, line.number, {**value, **given})
