"""The national examination's legal shape, the same every year since the 97th (2012), and what a year has of its own.

What a year has of its own - the points that pass, the candidates' mean, options that harm a patient - lies in
`exams/national/<exam>.yaml` of the project. A year without such a file is imported, and its verdict stays open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from tasks.errors import DataError
from tasks.exam.bank.records import ExamSection, PassRules, Subject
from tasks.foreign.yaml_file import read_yaml
from tasks.store import settings
from tasks.store.records.record import Record

FIRST_YEAR = 97
NUM_ITEMS = 345
#: Items 1-90 are the essential section.
NUM_ESSENTIAL = 90
#: The first items of the linked pairs: 196 and 197 share a patient, and so on to 324 and 325. Of each pair one item is
#: on practice; four items can share one patient as well.
PAIRS = range(196, 326, 2)
SUBJECTS: dict[str, Subject] = {
    "Physics": "physics",
    "Chemistry": "chemistry",
    "Biology": "biology",
    "Hygiene": "hygiene",
    "Pharmacology": "pharmacology",
    "Pharmacy": "pharmaceutics",
    "Pathology": "pathophysiology",
    "Law": "regulations",
    "Practice": "practice",
}
#: Items by section and subject, in the order of `SUBJECTS`.
_TABLE: dict[ExamSection, tuple[int, ...]] = {
    "essential": (5, 5, 5, 10, 15, 15, 15, 10, 10),
    "general": (15, 15, 15, 30, 25, 25, 25, 20, 85),
}
#: Where the subjects usually lie, in the same order: essential, theory, and the pairs, where practice is everywhere.
#: Items of related subjects stand among each other, so that a place alone proves nothing.
_USUAL: tuple[tuple[range, ...], ...] = (
    (range(1, 6), range(91, 101), range(196, 206)),
    (range(6, 11), range(101, 111), range(206, 216)),
    (range(11, 16), range(111, 121), range(216, 226)),
    (range(16, 26), range(121, 141), range(226, 246)),
    (range(26, 41), range(151, 166), range(246, 266)),
    (range(41, 56), range(168, 184), range(266, 286)),
    (range(56, 71), range(184, 196), range(286, 306)),
    (range(71, 81), range(141, 151), range(306, 326)),
    (range(81, 91), range(326, 346)),
)


class YearFacts(Record):
    """One year's file."""

    human_mean: float | None = Field(default=None, ge=0, le=1, description="of the candidates")
    points: int | None = Field(default=None, gt=0, le=2 * NUM_ITEMS)
    essential_percent: int | None = Field(default=None, ge=0, le=100)
    essential_subject_percent: int | None = Field(default=None, ge=0, le=100)
    max_contraindicated: int | None = Field(default=None, ge=0)
    contraindicated: dict[str, tuple[str, ...]] = Field(default={}, description="item id -> options that harm")

    @property
    def pass_rules(self) -> PassRules:
        """The criteria of this year."""
        return PassRules(**{name: getattr(self, name) for name in PassRules.model_fields})


@dataclass(frozen=True)
class Imbalance:
    """A section whose subjects are not as many as the examination's, and the items that may be filed wrongly."""

    section: ExamSection
    surplus: dict[Subject, tuple[int, int]]
    lack: dict[Subject, tuple[int, int]]
    suspects: tuple[int, ...]

    @property
    def words(self) -> str:
        """Subject by subject, with what the examination has."""
        parts = [f"{name} {found} instead of {legal}" for name, (found, legal) in {**self.surplus, **self.lack}.items()]
        return f"the {self.section} section has {', '.join(parts)}"


def facts_path(exam: str) -> Path:
    """Where a year's own facts lie."""
    return settings.project_dir() / "exams" / "national" / f"{exam}.yaml"


def year_facts(exam: str) -> YearFacts:
    """What is known of a year; nothing without its file.

    Raises:
        DataError: the file is not one of these.
    """
    path = facts_path(exam)
    try:
        return YearFacts.model_validate(read_yaml(path, error=DataError).content)
    except FileNotFoundError:
        return YearFacts()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DataError(f"{path}: `{where}` is not as a year's facts have it ({first['msg']}): correct it") from None


def section_of(number: int) -> ExamSection:
    """Of an item."""
    return "essential" if number <= NUM_ESSENTIAL else "general"


def imbalances(subjects: Mapping[int, Subject]) -> Iterator[Imbalance]:
    """Where the 345 subjects do not add up to the examination's."""
    names = tuple(SUBJECTS.values())
    counts = Counter((section_of(number), subject) for number, subject in subjects.items())
    for section, table in _TABLE.items():
        legal = dict(zip(names, table, strict=True))
        found = {name: counts[section, name] for name in names}
        surplus = {name: (found[name], legal[name]) for name in names if found[name] > legal[name]}
        lack = {name: (found[name], legal[name]) for name in names if found[name] < legal[name]}
        if surplus or lack:
            yield Imbalance(section, surplus, lack, _suspects(subjects, section, set(surplus), set(lack)))


def _suspects(
    subjects: Mapping[int, Subject], section: ExamSection, surplus: set[Subject], lack: set[Subject]
) -> tuple[int, ...]:
    """Items of a subject that has too many, where one that lacks items usually lies; else all of those subjects."""
    members = [number for number, name in subjects.items() if name in surplus and section_of(number) == section]
    usual = dict(zip(SUBJECTS.values(), _USUAL, strict=True))
    there = [number for number in members if any(number in part for name in lack for part in usual[name])]
    odd = [number for number in there if subjects[number] != "practice" or not _paired(subjects, number)]
    return tuple(sorted(odd or there or members))


def _paired(subjects: Mapping[int, Subject], number: int) -> bool:
    """Whether the item's pair has one item on practice, as a pair should."""
    first = number - number % 2
    return first in PAIRS and (subjects[first] == "practice") != (subjects[first + 1] == "practice")
