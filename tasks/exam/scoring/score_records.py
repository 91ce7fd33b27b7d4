"""What scoring says of one run: `scores.json`. Made from the exam, run.json and responses.jsonl alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from tasks.exam.bank.records import ExamRun, ResponseVerdict, Subject
from tasks.store.records.record import Digest, Record

Bounds = tuple[float, float]
Dimension = Literal["subject", "section", "answers", "diagram", "length", "case"]


class Tally(Record):
    """Counts over some items. `correct` holds the unasked items: the paper scores them as correct.

    entered = correct + wrong + unparsed + cut_off; what is not entered (no picture for it, no response yet) is not
    wrong.
    """

    items: int
    entered: int
    correct: int
    wrong: int
    unparsed: int
    cut_off: int = 0
    unasked: int
    accuracy_1: float | None = Field(description="correct / entered; null when nothing was entered")
    accuracy_2: float | None = Field(description="correct / items; null without items")
    interval_1: Bounds = Field(description="Wilson 95% of accuracy 1")
    interval_2: Bounds = Field(description="Wilson 95% of accuracy 2")
    guess: float | None = Field(description="accuracy 2 that random guessing expects")


class Slice(Record):
    """The items that share a property."""

    dimension: Dimension
    value: str
    tally: Tally


class TableRow(Record):
    """A row of the paper's table: a subject, or all of them."""

    subject: Subject | Literal["total"]
    essential: Tally
    general: Tally
    total: Tally


class CriterionLine(Record):
    """One bound inside a criterion: `value` out of `of` must be at least (or at most) `bound`."""

    name: str
    value: int
    of: int
    bound: int
    rule: Literal["at least", "at most"]
    passed: bool | None = Field(description="null while missing responses can still decide")


class Criterion(Record):
    """One of the three pass criteria. `passed` is null where it cannot be judged, or not yet."""

    name: Literal["points", "essential", "contraindicated"]
    lines: tuple[CriterionLine, ...]
    passed: bool | None
    note: str = ""


class Coverage(Record):
    """Which items were not entered, by number. A pass verdict needs `missing` to be empty."""

    items: int
    entered: int
    without_picture: tuple[int, ...] = Field(description="left out of the text-only arm: no points, as a blank")
    missing: tuple[int, ...] = Field(description="no response, or not in every epoch, or cut off by the limit")


class EpochScore(Record):
    """One epoch by itself."""

    epoch: int
    entered: int
    correct: int
    unparsed: int
    cut_off: int = 0
    accuracy_1: float | None


class Epochs(Record):
    """All epochs: how far one run's own repetitions differ."""

    scores: tuple[EpochScore, ...]
    mean: float | None
    variance: float | None = Field(description="of accuracy 1 between epochs, n - 1; null with one epoch")
    sd: float | None
    agreement: float | None = Field(description="share of asked items with the same answer in every epoch")


class Usage(Record):
    """What the run took. `cost` is null unless the price of every response is known."""

    responses: int
    input_tokens: int
    output_tokens: int
    cost: float | None
    seconds: float


class ItemScore(Record):
    """The verdict on one entered item: the majority of its epochs; among equals, the answer that came first."""

    item: str
    number: int
    verdict: ResponseVerdict
    answer: tuple[str, ...] | None


class Metrics(Record):
    """What `dvc metrics` shows of a run. Accuracy 1 is of the entered items, accuracy 2 of all, as in the paper."""

    items: int
    entered: int
    correct: int
    accuracy_1: float | None
    accuracy_2: float
    points: int
    points_possible: int
    unparsed: int
    cut_off: int
    passed: bool | None


class Scores(Record):
    """A scored run. Percentages are rounded only where they are shown (`statistics.percent`, half up)."""

    exam: str
    exam_digest: Digest
    run: str
    responses_sha256: Digest
    coverage: Coverage
    overall: Tally
    points: int
    points_possible: int
    criteria: tuple[Criterion, ...]
    passed: bool | None = Field(description="null while items are missing or a criterion cannot be judged")
    human_mean: float | None
    table: tuple[TableRow, ...]
    slices: tuple[Slice, ...]
    epochs: Epochs
    answered_by: dict[str, int] = Field(description="model that says it answered -> responses")
    usage: Usage
    unparsed: tuple[int, ...] = Field(description="numbers of the items whose majority is no readable answer")
    cut_off: tuple[int, ...] = Field(default=(), description="of those whose majority the limit of tokens has ended")
    items: tuple[ItemScore, ...]

    @property
    def most(self) -> tuple[int, int]:
        """Right items and points if all items that have no complete response were right: the end of the range."""
        right = {one.number for one in self.items if one.verdict in ("correct", "unasked")}
        more = len(set(self.coverage.missing) - right)
        return self.overall.correct + more, self.points + more * (self.points_possible // self.overall.items)

    def metrics(self) -> Metrics:
        """The headline figures, flat."""
        overall = self.overall
        return Metrics(
            items=overall.items,
            entered=overall.entered,
            correct=overall.correct,
            accuracy_1=round(overall.correct / overall.entered, 4) if overall.entered else None,
            accuracy_2=round(overall.correct / overall.items, 4),
            points=self.points,
            points_possible=self.points_possible,
            unparsed=overall.unparsed,
            cut_off=overall.cut_off,
            passed=self.passed,
        )


@dataclass(frozen=True)
class ScoredRun:
    """A run and what scoring says of it."""

    run: ExamRun
    scores: Scores
