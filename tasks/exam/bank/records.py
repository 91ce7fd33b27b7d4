"""What an exam is made of and what a run leaves behind: JSON records that anybody can rescore offline."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Literal, get_args

from pydantic import Field

from tasks.foreign.inside import FileName, FolderName
from tasks.store.objects import to_json
from tasks.store.records.record import Digest, Record

Subject = Literal[
    "physics",
    "chemistry",
    "biology",
    "hygiene",
    "pharmacology",
    "pharmaceutics",
    "pathophysiology",
    "regulations",
    "practice",
]
ExamSection = Literal["essential", "general"]
Language = Literal["ja", "en"]
#: In the order of the paper's tables.
SUBJECTS: tuple[Subject, ...] = get_args(Subject)
SECTIONS: tuple[ExamSection, ...] = get_args(ExamSection)
#: Where the flag comes from: the file's own `text_only`, a figure that belongs to the item, or a list by hand.
DiagramSource = Literal["text_only", "figure", "list", "none"]
#: What became of one reply. `unasked` is an item without a solution, which the paper counts as correct; `cut off` is a
#: reply that the limit of tokens ended: what the model would have answered is not known.
ResponseVerdict = Literal["correct", "wrong", "unparsed", "cut off", "unasked"]
#: Why a reply ended, as inspect names it: by itself, or at a limit of tokens.
STOP = "stop"
CUT_OFF = frozenset({"max_tokens", "model_length"})

#: Stands for the seal of a run whose responses are not written yet.
UNSEALED = "0" * 64


def _unset(value: object) -> bool:
    """Left out of the file, so that an exam that does not use the field keeps the digest that it had without it."""
    return not value


class ItemText(Record):
    """An item in one language. `choices` is empty where the options are only in the picture."""

    stem: str
    choices: tuple[str, ...]
    scenario: str | None = Field(default=None, description="what a linked item needs to be understood by itself")


class ExamItem(Record):
    """One item of an exam."""

    id: str
    exam: str
    number: int = Field(gt=0)
    section: ExamSection
    subject: Subject
    text: dict[Language, ItemText]
    num_choices: int = Field(ge=2, le=10)
    labels: tuple[str, ...] = Field(description="what a reply names the options by: 1, 2, 3 ... or A, B, C ...")
    n_select: int = Field(ge=1, le=5)
    answers: tuple[tuple[str, ...], ...] = Field(description="accepted sets of 1-based option numbers, each sorted")
    no_solution: bool = False
    contraindicated: tuple[str, ...] = ()
    diagram: bool
    diagram_source: DiagramSource
    images: tuple[FileName, ...] = Field(default=(), description="file names in the exam's folder `images/`")
    images_sha256: tuple[Digest, ...] = Field(default=(), description="of each image: a picture is part of its item")
    pictured: bool = Field(
        default=False,
        exclude_if=_unset,
        description="its source shows a picture that the exam's list does not count as a diagram: a text-only run asks "
        "the item and says that the picture is missing",
    )
    case: str | None = Field(default=None, description="linked items share one")
    case_pictured: bool = Field(
        default=False, exclude_if=_unset, description="what it is told of its case has a picture of its own"
    )
    case_images: tuple[FileName, ...] = Field(
        default=(), exclude_if=_unset, description="pictures of the earlier items of its case, sent with the scenario"
    )
    case_images_sha256: tuple[Digest, ...] = Field(default=(), exclude_if=_unset)
    text_length: int = Field(ge=0, description="characters of stem and choices in the exam's first language")
    source: str

    @property
    def digest(self) -> Digest:
        """sha256 of the item's JSON."""
        return hashlib.sha256(to_json(self)).hexdigest()

    def lacks_a_picture(self, *, sent: bool) -> bool:
        """Whether the item is asked without a picture that it or its case has. `sent`: what the exam has is sent."""
        own = (self.diagram or self.pictured) and not (sent and self.images)
        return own or (self.case_pictured and not (sent and self.case_images))


class Correction(Record):
    """What a person changed in one item of the published files, and why. Fields that are not given stay as published.

    `follows` says whether the item goes on with the case of the item before it, where its number or text do not say so;
    `line` which line of the items' file it is, where the id there is wrong.
    """

    item: str = Field(pattern=r"^[0-9]{6}$")
    reason: str = Field(min_length=1, max_length=500)
    problem_text: str | None = Field(default=None, min_length=1)
    choices: Literal["IMAGES"] | tuple[str, ...] | None = None
    text_only: bool | None = None
    answer: tuple[str, ...] | None = None
    category: str | None = None
    note: str | None = None
    follows: bool | None = None
    line: int | None = Field(default=None, gt=0)

    @property
    def changes(self) -> dict[str, object]:
        """Field -> value, of the fields that are given."""
        given = self.model_dump(mode="json", exclude={"item", "reason"})
        return {name: value for name, value in given.items() if value is not None}


class PassRules(Record):
    """When a sitting passes, as the examination of that year says. What is null is not judged."""

    points: int | None = Field(default=None, gt=0, description="at least so many, of 2 for each item")
    essential_percent: int | None = Field(default=None, ge=0, le=100, description="of all essential items")
    essential_subject_percent: int | None = Field(default=None, ge=0, le=100, description="of each subject's")
    max_contraindicated: int | None = Field(default=None, ge=0, description="options that harm a patient")


class Exam(Record):
    """An exam: its items by number, and where it is from. `human_mean` and `source` are shown in reports.

    `pass_rules` is null in an exam of our own, which is judged by the paper's rules for the 107th.
    """

    id: FolderName
    title: str
    languages: tuple[Language, ...]
    items: tuple[ExamItem, ...]
    source: str
    licence: str
    human_mean: float | None = Field(default=None, ge=0, le=1)
    pass_rules: PassRules | None = Field(default=None, exclude_if=lambda rules: rules is None)
    corrections: tuple[Correction, ...] = Field(default=(), exclude_if=_unset, description="of the published files")

    @property
    def digest(self) -> Digest:
        """sha256 of the exam's JSON."""
        return hashlib.sha256(to_json(self)).hexdigest()


class RunSettings(Record):
    """What a run asks, of whom and how: everything that must be equal for two runs to be comparable."""

    exam: FolderName
    exam_digest: Digest
    model: str = Field(description="as inspect names it: openai/gpt-4o, hf/local ...")
    language: Language
    prompt: str = Field(description="name of the prompt's file, with its version")
    prompt_digest: Digest
    temperature: float = Field(ge=0)
    epochs: int = Field(ge=1)
    max_tokens: int = Field(gt=0)
    limit: int | None = Field(default=None, gt=0, description="only so many items, from the first")
    images: bool = Field(description="whether diagrams are sent as pictures; if not, their items are left out")
    corrections: tuple[Correction, ...] = Field(
        default=(), exclude_if=_unset, description="what was changed in the published files of the exam"
    )

    def leaves_out(self, item: ExamItem) -> bool:
        """Whether the item is not asked for its diagram: the paper's text-only arm has no such items."""
        return item.diagram and not self.images


class Response(Record):
    """One reply to one item in one epoch. A call that failed is no response."""

    item: str
    item_digest: Digest
    epoch: int = Field(ge=1)
    model: str = Field(description="the model that says it answered")
    raw: str
    parsed: tuple[str, ...] | None = Field(
        description="1-based option numbers, sorted, as read when the reply came; null where none could be. Scores are "
        "made from `raw`"
    )
    stop_reason: str = Field(
        default=STOP,
        exclude_if=lambda value: value == STOP,
        description="why the reply ended, as inspect names it; left out of the file where it ended by itself",
    )
    input_tokens: int = Field(ge=0)
    output_tokens: int = Field(ge=0)
    cost: float | None = Field(default=None, ge=0, description="US dollars, where the price is known")
    seconds: float = Field(ge=0)
    asked_at: datetime


class ExamRun(Record):
    """A finished run: every item but those `left` has a response in every epoch. `responses_sha256` seals them."""

    id: FolderName
    settings: RunSettings
    started_at: datetime
    finished_at: datetime
    num_asked: int
    left: tuple[str, ...] = Field(
        default=(),
        exclude_if=lambda value: not value,
        description="items that were left without a response, as asked for; left out of the file where there is none",
    )
    responses_sha256: Digest
    engine: str = Field(description="inspect-ai with its version")
    code_version: str
