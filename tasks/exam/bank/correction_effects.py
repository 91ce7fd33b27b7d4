"""Whether corrections change the items that they name: a report must not tell of a correction that was none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from tasks.exam.bank.faults import Faults
from tasks.exam.bank.jsonl import JsonLine
from tasks.exam.bank.published import ByKey, Metadata, Problem, Published
from tasks.exam.bank.records import Correction, ExamItem

#: The two lines of an item, with what they say.
Lines = tuple[JsonLine, Problem, JsonLine, Metadata]
#: Fields of the published lines; those of a group say one thing together. A `category` may confirm.
_TOGETHER = (("problem_text",), ("choices",), ("text_only",), ("answer", "note"))
_Record = TypeVar("_Record", Problem, Metadata)


def check_changes(
    corrections: Mapping[str, Correction],
    published: Published,
    problems: ByKey[Problem],
    about: ByKey[Metadata],
    item_of: Callable[..., ExamItem | None],
    source: Path,
    faults: Faults,
) -> None:
    """What is given of an item is not what the files have, and the item would be another without it.

    Args:
        corrections: by item id, of the file `source`.
        published: the lines without corrections; what cannot be read there is not compared.
        problems, about: the lines with them.
        item_of: makes an item of its `Lines`, or None where they are at fault.
        source: named in `faults`, which take each field that changes nothing.
    """
    usable = problems.keys() & about.keys() & published.problems.keys() & published.about.keys()
    for key in sorted(corrections.keys() & usable - published.bad):
        new = (*problems[key], *about[key])
        old = published.problems[key][1], published.about[key][1]
        for names in _TOGETHER:
            given = [name for name in names if name in corrections[key].changes]
            for name in _idle(given, names, new, old, item_of):
                faults.add(source, f"`{name}` of item {key} changes nothing", "Leave it out, or give what it is to be")


def _idle(
    given: list[str],
    names: tuple[str, ...],
    new: Lines,
    old: tuple[Problem, Metadata],
    item_of: Callable[..., ExamItem | None],
) -> list[str]:
    """Those of the fields `given` that change nothing: all of them where the item is the same without them."""
    line, problem, about_line, about = new
    made = item_of(*new)
    if given and made and made == item_of(line, _as(old[0], problem, names), about_line, _as(old[1], about, names)):
        return given
    return [name for name in given if _same(name, problem, old[0]) and _same(name, about, old[1])]


def _as(old: _Record, new: _Record, names: tuple[str, ...]) -> _Record:
    """`new` with the fields `names` of `old`."""
    return new.model_copy(update={name: getattr(old, name) for name in names if name in type(new).model_fields})


def _same(name: str, new: BaseModel, old: BaseModel) -> bool:
    """Whether both have the same there, or neither has it."""
    return bool(getattr(new, name, None) == getattr(old, name, None))
