"""What an exam is made of and what a run leaves behind: JSON records that anybody can rescore offline."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Literal, get_args

from pydantic import Field

from tasks.inside import FileName, FolderName
from tasks.records import Digest, Record
from tasks.storage import to_json

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
Section = Literal["essential", "general"]
Language = Literal["ja", "en"]
#: In the order of the paper's tables.
SUBJECTS: tuple[Subject, ...] = get_args(Subject)
SECTIONS: tuple[Section, ...] = get_args(Section)
#: Where the flag comes from: the file's own `text_only`, a figure that belongs to the item, or a list by hand.
DiagramSource = Literal["text_only", "figure", "list", "none"]
#: What became of one reply. `unasked` is an item without a solution, which the paper counts as correct; `cut off` is a
#: reply that the limit of tokens ended: what the model would have answered is not known.
Verdict = Literal["correct", "wrong", "unparsed", "cut off", "unasked"]
#: Why a reply ended, as inspect names it: by itself, or at a limit of tokens.
STOP = "stop"
CUT_OFF = frozenset({"max_tokens", "model_length"})

#: Stands for the seal of a run whose responses are not written yet.
UNSEALED = "0" * 64


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
    section: Section
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
    case: str | None = Field(default=None, description="linked items share one")
    text_length: int = Field(ge=0, description="characters of stem and choices in the exam's first language")
    source: str

    @property
    def digest(self) -> Digest:
        """sha256 of the item's JSON."""
        return hashlib.sha256(to_json(self)).hexdigest()


class Exam(Record):
    """An exam: its items by number, and where it is from. `human_mean` and `source` are shown in reports."""

    id: FolderName
    title: str
    languages: tuple[Language, ...]
    items: tuple[ExamItem, ...]
    source: str
    licence: str
    human_mean: float | None = Field(default=None, ge=0, le=1)

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


class Run(Record):
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
