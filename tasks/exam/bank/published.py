"""The published files of one examination, read line by line: what each item is, and every line that is at fault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import PydanticCustomError

from tasks.errors import DataError
from tasks.exam.bank.corrections import check_lines, corrected, is_whole
from tasks.exam.bank.faults import Faults, first_few
from tasks.exam.bank.jsonl import JsonLine, read_lines
from tasks.exam.bank.national import FIRST_YEAR, NUM_ITEMS
from tasks.exam.bank.records import Correction

MAX_CHOICES = 10
#: What a reader puts in place of bytes that it could not decode.
_LOST = "\ufffd"
#: Of a stem or an option; the longest stem that has been seen has 1,500.
MAX_CHARACTERS = 20_000
_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_CHARACTERS)]


def _apart(choices: list[str]) -> list[str]:
    if "IMAGES" in choices:
        raise PydanticCustomError("images", "IMAGES stands among the options and not in place of them all")
    if len(set(choices)) < len(choices):
        raise PydanticCustomError("twice", "two options are the same")
    return choices


class Problem(BaseModel):
    """A line of the items' file. What is not named here, the explanation above all, is not read."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    problem_id: str = Field(pattern=r"^[0-9]{6}$")
    problem_text: _Text
    choices: (
        Literal["IMAGES"] | Annotated[list[_Text], Field(min_length=2, max_length=MAX_CHOICES), AfterValidator(_apart)]
    )
    text_only: bool
    answer: list[str]

    @property
    def number(self) -> int:
        """Of the item in its examination."""
        return int(self.problem_id[3:])

    @property
    def flagged(self) -> bool:
        """Whether the file itself says that there is a picture."""
        return not self.text_only or self.choices == "IMAGES"


class Metadata(BaseModel):
    """A line of the metadata's file."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    problem_id: str = Field(pattern=r"^[0-9]{6}$")
    category: str
    note: str = ""


LineRecord = TypeVar("LineRecord", Problem, Metadata)
#: By id: the first line that has it, and what it says.
ByKey = dict[str, tuple[JsonLine, LineRecord]]


class Published(NamedTuple):
    """What the two files have, what was dropped of it, and the ids whose lines are at fault."""

    problems: ByKey[Problem]
    about: ByKey[Metadata]
    dropped: list[str]
    bad: set[str]


def find_files(folder: Path, exam: str) -> tuple[Path, Path]:
    """The items' and the metadata's file, under either pair of names."""
    if not (exam.isascii() and exam.isdecimal() and len(exam) == 3):
        raise DataError(f"exam {exam!r} is not the number of an examination: give three digits, as 107 or 097")
    if int(exam) < FIRST_YEAR:
        raise DataError(
            f"exam {exam} had another form, without {NUM_ITEMS} items: import the {FIRST_YEAR}th or a later one"
        )
    pairs = (("data.jsonl", "metadata.jsonl"), (f"{exam}.jsonl", f"metadata_{exam}.jsonl"))
    found = [(folder / data, folder / about) for data, about in pairs if (folder / data).exists()]
    if len(found) != 1:
        names = " or ".join(f"{data} and {about}" for data, about in pairs)
        raise DataError(f"{folder} needs {names}, and has {len(found)} of the two: name the folder of one examination")
    return found[0]


def read_both(
    paths: tuple[Path, Path], exam: str, corrections: Mapping[str, Correction], own: Path | None, faults: Faults
) -> Published:
    """The items and their metadata, corrected. `own` is the file of the corrections."""
    found = _read(paths, exam, corrections, own, faults)
    for path, ids in zip(paths, (found.problems.keys(), found.about.keys()), strict=True):
        _check_ids(path, ids | found.bad, exam, faults)
    for item in corrections.keys() - found.problems.keys() - found.bad:
        faults.add(own or "", f"item {item} is not in the files", "Correct its number, or give the item whole")
    return found


def read_uncorrected(
    paths: tuple[Path, Path], exam: str, corrections: Mapping[str, Correction], own: Path, faults: Faults
) -> Published:
    """The same as the files have it, under the ids that corrections give to lines; what is at fault is in `bad`."""
    try:
        lines = read_lines(paths[0], Faults())
    except DataError:  # of the file as a whole: `read_both` tells
        return Published({}, {}, [], set())
    total = paths[0].read_bytes().count(b"\n") + 1
    check_lines({line.number: line.value.get("problem_id") for line in lines}, total, corrections, own, faults)
    named = {item: Correction(item=item, reason=one.reason, line=one.line) for item, one in corrections.items()}
    return _read(paths, exam, named, own, Faults())


def _read(
    paths: tuple[Path, Path], exam: str, corrections: Mapping[str, Correction], own: Path | None, faults: Faults
) -> Published:
    data, metadata = paths
    bad: set[str] = set()
    dropped: list[str] = []
    problems = _by_id(_lines(data, corrections, own, faults, metadata=False), Problem, exam, faults, bad, dropped)
    about = _by_id(_lines(metadata, corrections, own, faults, metadata=True), Metadata, exam, faults, bad, dropped)
    return Published(problems, about, dropped, bad)


def _lines(
    path: Path, corrections: Mapping[str, Correction], own: Path | None, faults: Faults, *, metadata: bool
) -> list[JsonLine]:
    """None where the file as a whole is at fault."""
    try:
        replaced = set() if metadata else {one.line for one in corrections.values() if one.line and is_whole(one)}
        lines = read_lines(path, faults, replaced=replaced)
        return corrected(lines, corrections, metadata=metadata, source=own or path)
    except DataError as error:
        faults.add_error(error)
        return []


def _by_id(
    lines: Sequence[JsonLine], record: type[LineRecord], exam: str, faults: Faults, bad: set[str], dropped: list[str]
) -> ByKey[LineRecord]:
    """One record for each id. A line that repeats another one is dropped; what cannot be read has its id in `bad`."""
    found: dict[str, tuple[JsonLine, LineRecord]] = {}
    repeated = 0
    for line in lines:
        value = read_record(line, record, exam, faults)
        if value is None:
            bad.add(str(line.value.get("problem_id")))
            continue
        first = found.setdefault(value.problem_id, (line, value))
        if first[1] != value:
            problem = f"it contradicts line {first[0].number} of the same id"
            line.fault(faults, problem, "Keep the right one of the two, or correct what differs")
            bad.add(value.problem_id)
        repeated += first[0] is not line
    if repeated:
        dropped.append(f"{lines[0].path.name}: {repeated} repeated lines dropped")
    return found


def read_record(line: JsonLine, record: type[LineRecord], exam: str, faults: Faults) -> LineRecord | None:
    """None where the line is at fault."""
    try:
        value = record.model_validate(line.value)
    except ValidationError as error:
        for one in error.errors(include_input=False, include_url=False):
            where = one["loc"][0] if one["loc"] else "line"
            line.fault(faults, f"`{where}` is not as the layout has it ({one['msg']})", "Correct the line")
        return None
    if not value.problem_id.startswith(exam) or not 1 <= int(value.problem_id[3:]) <= NUM_ITEMS:
        remedy = "Import each examination from its own folder, or correct the id of this `line`"
        line.fault(faults, f"the id is not one of {exam}001 to {exam}{NUM_ITEMS}", remedy)
        return None
    if _LOST in value.model_dump_json():
        remedy = "Fetch the file again and convert it from the encoding it was written in, or correct the item"
        line.fault(faults, "characters were lost in an earlier conversion (U+FFFD)", remedy)
        return None
    return value


def _check_ids(path: Path, found: set[str], exam: str, faults: Faults) -> None:
    """Every one of the 345 items is there."""
    expected = [f"{exam}{number:03}" for number in range(1, NUM_ITEMS + 1)]
    if missing := [key for key in expected if key not in found]:
        faults.add(path, f"lacks {len(missing)} of {NUM_ITEMS} ids: {first_few(missing)}", "Fetch the whole file")
