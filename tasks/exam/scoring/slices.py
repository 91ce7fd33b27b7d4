"""The properties by which scores and comparisons are split, and the counts of any group of items."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import Literal

from tasks.exam.bank.records import SUBJECTS, Exam, ExamItem, ResponseVerdict, Subject
from tasks.exam.scoring.score_records import Dimension, Tally
from tasks.exam.scoring.statistics import wilson

_ANSWERS = {1: "one answer", 2: "two answers"}
_DIAGRAM = ("without diagram", "with diagram")
_CASE = ("stands alone", "linked case")
_ORDINALS = ("1st", "2nd", "3rd")


@dataclass(frozen=True)
class ItemGroup:
    """Some items, and the accuracy that random guessing expects on them; null without items."""

    items: tuple[ExamItem, ...]
    guess: float | None

    @classmethod
    def of(cls, items: Iterable[ExamItem]) -> ItemGroup:
        """The group of these items."""
        members = tuple(items)
        return cls(members, math.fsum(map(guess_probability, members)) / len(members) if members else None)


def slices_of(exam: Exam) -> Iterator[tuple[Dimension, str, ItemGroup]]:
    """Every slice with its items, in the order in which reports show them; none is empty."""
    lengths = _length_names(exam)
    yield from _split(exam, "subject", lambda item: item.subject, SUBJECTS)
    yield from _split(exam, "section", lambda item: item.section, ("essential", "general"))
    yield from _split(exam, "answers", _answers, [_ANSWERS.get(n, f"{n} answers") for n in range(1, 6)])
    yield from _split(exam, "diagram", lambda item: _DIAGRAM[item.diagram], _DIAGRAM)
    yield from _split(exam, "length", lambda item: lengths[item.id], sorted(set(lengths.values())))
    yield from _split(exam, "case", lambda item: _CASE[item.case is not None], _CASE)


def table_of(exam: Exam) -> Iterator[tuple[Subject | Literal["total"], ItemGroup, ItemGroup, ItemGroup]]:
    """The rows of the paper's table: every subject and the total, each with its essential, general and all items."""
    for subject in SUBJECTS:
        yield subject, *_cells([item for item in exam.items if item.subject == subject])
    yield "total", *_cells(exam.items)


def tally(group: ItemGroup, verdicts: Mapping[str, ResponseVerdict]) -> Tally:
    """Counts over a group; an item without a verdict was not entered."""
    size = len(group.items)
    given = [verdicts[item.id] for item in group.items if item.id in verdicts]
    unasked = given.count("unasked")
    correct = given.count("correct") + unasked
    return Tally(
        items=size,
        entered=len(given),
        correct=correct,
        wrong=given.count("wrong"),
        unparsed=given.count("unparsed"),
        cut_off=given.count("cut off"),
        unasked=unasked,
        accuracy_1=correct / len(given) if given else None,
        accuracy_2=correct / size if size else None,
        interval_1=wilson(correct, len(given)),
        interval_2=wilson(correct, size),
        guess=group.guess,
    )


def guess_probability(item: ExamItem) -> float:
    """Chance that a random set of `n_select` options is accepted: accepted sets / C(n, k); 1 without a solution."""
    return 1.0 if item.no_solution else len(item.answers) / math.comb(item.num_choices, item.n_select)


def _split(
    exam: Exam, dimension: Dimension, value_of: Callable[[ExamItem], str], values: Iterable[str]
) -> Iterator[tuple[Dimension, str, ItemGroup]]:
    groups: dict[str, list[ExamItem]] = {}
    for item in exam.items:
        groups.setdefault(value_of(item), []).append(item)
    return ((dimension, value, ItemGroup.of(groups[value])) for value in values if value in groups)


def _cells(items: Sequence[ExamItem]) -> tuple[ItemGroup, ItemGroup, ItemGroup]:
    essential = ItemGroup.of(item for item in items if item.section == "essential")
    return essential, ItemGroup.of(item for item in items if item.section == "general"), ItemGroup.of(items)


def _answers(item: ExamItem) -> str:
    return _ANSWERS.get(item.n_select, f"{item.n_select} answers")


def _length_names(exam: Exam) -> dict[str, str]:
    """Item -> its quarter by text length, named with its upper end; items of one length stay together."""
    lengths = [item.text_length for item in exam.items]
    cuts = [math.floor(cut) for cut in quantiles(lengths, n=4, method="inclusive")] if len(lengths) > 1 else lengths
    names = [f"{name} quarter, up to {cut} characters" for name, cut in zip(_ORDINALS, cuts, strict=False)]
    names.append(f"4th quarter, over {cuts[-1]} characters")
    return {item.id: names[sum(item.text_length > cut for cut in cuts)] for item in exam.items}
