"""The `label` section of a study: which endpoint is learned, from which rows, in which public ranges.

Its `task` names what is learned of it; what a task computes is in `tasks.learning.tasks`, one module of that name each.
Everything here is known before data are seen: bounds, classes and intervals come from the protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Discriminator, Field, Tag, model_validator

from tasks.foreign.bounds import MAX_COUNT
from tasks.study.names import Cell, Identifier
from tasks.study.privacy import Section

#: Most intervals, and most classes, that a label may have.
MAX_PARTS = 64


class Condition(Section):
    """One comparison on a row. All conditions of a label must hold in the same row."""

    column: str
    is_: Cell | None = Field(default=None, alias="is")
    is_not: Cell | None = None
    at_most: float | None = None
    at_least: float | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Condition:
        if len(self.model_fields_set - {"column"}) != 1:
            raise ValueError("give exactly one of: is, is_not, at_most, at_least")
        return self


class LabelSection(Section):
    """What every label has. `per_patient`: its loss is a sum over patients, so that each one's part can be bounded."""

    per_patient: ClassVar[bool] = True

    name: Identifier
    table: Identifier

    @property
    def num_outputs(self) -> int | None:
        """Values that a model gives for one patient; None for a single one, without an axis of its own."""
        return None

    def columns(self) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
        """Each column that it reads: the key that names it, table and column."""
        yield from ()


def _of_conditions(table: str, key: str, conditions: tuple[Condition, ...]) -> Iterator[Any]:
    for place, condition in enumerate(conditions):
        yield ("label", key, place, "column"), table, condition.column


def _of_where(table: str, key: str, where: dict[str, Cell]) -> Iterator[Any]:
    for column in where:
        yield ("label", key, column), table, column


class BinaryLabel(LabelSection):
    """Yes or no: a subject is positive if any of its rows in `table` meets every condition."""

    task: Literal["binary"] = "binary"
    positive_when: tuple[Condition, ...] = Field(min_length=1)
    threshold: float = Field(default=0.5, gt=0, lt=1, description="risk from which on a patient counts as positive")

    def columns(self) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
        yield from _of_conditions(self.table, "positive_when", self.positive_when)


class MulticlassLabel(LabelSection):
    """One of several classes: the last of them in the list that any of a subject's rows has.

    classes: name -> the values of `column` that are this class; in order where they have one, such as severities.
    without_rows: the class of a subject that has no row with one of these values; where it is not said, such a
    subject has no endpoint and takes no part.
    """

    task: Literal["multiclass"]
    column: str
    where: dict[str, Cell] = Field(default_factory=dict)
    classes: dict[Identifier, tuple[Cell, ...]] = Field(min_length=2, max_length=MAX_PARTS)
    without_rows: Identifier | None = None

    @property
    def num_outputs(self) -> int | None:
        return len(self.classes)

    def columns(self) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
        yield ("label", "column"), self.table, self.column
        yield from _of_where(self.table, "where", self.where)

    @model_validator(mode="after")
    def _each_value_once(self) -> MulticlassLabel:
        values = [value for own in self.classes.values() for value in own]
        if len(values) != len(set(map(str, values))):
            raise ValueError("label.classes: a value stands for two classes")
        if self.without_rows is not None and self.without_rows not in self.classes:
            raise ValueError(f"label.without_rows is {self.without_rows}, which is none of {', '.join(self.classes)}")
        empty = [name for name, own in self.classes.items() if not own and name != self.without_rows]
        if empty:
            raise ValueError(f"label.classes: {empty[0]} has no value, and only the class without_rows needs none")
        return self


class RegressionLabel(LabelSection):
    """A number between public bounds: what `reduce` makes of a subject's values, less the one at baseline.

    A subject without one of the values has no endpoint and takes no part.
    """

    task: Literal["regression"]
    column: str
    where: dict[str, Cell] = Field(default_factory=dict)
    reduce: Literal["only", "last", "mean"] = "only"
    minus: dict[str, Cell] | None = Field(
        default=None, min_length=1, description="`where` of the baseline value, for an endpoint that is a change"
    )
    low: float
    high: float

    def columns(self) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
        yield ("label", "column"), self.table, self.column
        yield from _of_where(self.table, "where", self.where)
        yield from _of_where(self.table, "minus", self.minus or {})

    @model_validator(mode="after")
    def _ordered(self) -> RegressionLabel:
        if not self.low < self.high:
            raise ValueError(f"label.high must be above label.low, which is {self.low:g}")
        return self


class CountLabel(LabelSection):
    """How many: a subject's rows that meet every condition, no more than `most` of them.

    time_column: exposure in `time_table`, whose logarithm in units of `time_unit` is the model's offset, so that
    the model gives a rate; without it everybody counts as exposed for the same time.
    """

    task: Literal["count"]
    counted_when: tuple[Condition, ...] = ()
    most: int = Field(gt=0, le=MAX_COUNT)
    time_table: Identifier | None = None
    time_column: str | None = None
    time_where: dict[str, Cell] = Field(default_factory=dict)
    time_unit: float = Field(default=1.0, gt=0)
    time_most: float | None = Field(default=None, gt=0)

    def columns(self) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
        yield from _of_conditions(self.table, "counted_when", self.counted_when)
        if self.time_table is not None and self.time_column is not None:
            yield ("label", "time_column"), self.time_table, self.time_column
            yield from _of_where(self.time_table, "time_where", self.time_where)

    @model_validator(mode="after")
    def _time_whole(self) -> CountLabel:
        given = (self.time_table is None, self.time_column is None, self.time_most is None)
        if len(set(given)) != 1:
            raise ValueError("label.time_column, time_table and time_most go together: give all of them or none")
        return self


class TimeLabel(LabelSection):
    """When: the time to an event, or to the end of a subject's follow-up without one.

    time: column of `table` in the row that `where` leaves, counted from the start of follow-up. event_when: this row
    is an event, not a censoring. A subject without such a row has no endpoint and takes no part.
    """

    where: dict[str, Cell] = Field(default_factory=dict)
    time: str
    event_when: tuple[Condition, ...] = Field(min_length=1)

    def columns(self) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
        yield ("label", "time"), self.table, self.time
        yield from _of_where(self.table, "where", self.where)
        yield from _of_conditions(self.table, "event_when", self.event_when)


class SurvivalLabel(TimeLabel):
    """In discrete time: the chance of an event in each of these intervals for who has come so far.

    until: the end of each interval, in the units of `time`. The last one is the cut-off: what comes later counts as
    followed up to there without an event.
    """

    task: Literal["survival"]
    until: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1, max_length=MAX_PARTS)

    @property
    def num_outputs(self) -> int | None:
        return len(self.until)

    @model_validator(mode="after")
    def _ascending(self) -> SurvivalLabel:
        if any(later <= earlier for earlier, later in pairwise(self.until)):
            raise ValueError("label.until must ascend: the ends of intervals, each later than the one before")
        return self


class CoxLabel(TimeLabel):
    """By Cox's partial likelihood, which compares each event with everybody still at risk: no sum over patients."""

    per_patient: ClassVar[bool] = False

    task: Literal["cox"]
    cut_off: float = Field(gt=0, description="what comes later counts as followed up to there without an event")


def _task_of(value: Any) -> str:
    return str(value.get("task", "binary") if isinstance(value, dict) else getattr(value, "task", "binary"))


Label = Annotated[
    Annotated[BinaryLabel, Tag("binary")]
    | Annotated[MulticlassLabel, Tag("multiclass")]
    | Annotated[RegressionLabel, Tag("regression")]
    | Annotated[CountLabel, Tag("count")]
    | Annotated[SurvivalLabel, Tag("survival")]
    | Annotated[CoxLabel, Tag("cox")],
    Discriminator(_task_of),
]
#: Task -> its section.
LABEL_SECTIONS: dict[str, type[LabelSection]] = {
    get_args(section.model_fields["task"].annotation)[0]: section
    for section in (BinaryLabel, MulticlassLabel, RegressionLabel, CountLabel, SurvivalLabel, CoxLabel)
}
