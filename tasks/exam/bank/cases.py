"""Items that share a patient are asked with all that was told before: stems, and pictures.

An item goes on with the case of the item before it where it is the second of a numbered pair, where an earlier stem
announces it (問204〜207), where its own stem refers back to what the item before it tells, or where two neighbouring
pairs have one item each on practice only together. A correction decides before all of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.exam.bank.national import PAIRS
from tasks.exam.bank.records import ExamItem
from tasks.exam.bank.references import Reference, announced_case, refers_back, resolves, shows_a_picture

_SECONDS = frozenset(first + 1 for first in PAIRS)


@dataclass(frozen=True)
class Linked:
    """The items with their cases, and what an import has to tell of them, each by item id.

    `by_subject` are those that only the subjects of two pairs link, `idle` numbers whose `follows` says nothing new.
    """

    items: tuple[ExamItem, ...]
    by_text: tuple[str, ...]
    by_subject: tuple[str, ...]
    idle: tuple[int, ...]
    unlinked: tuple[str, ...]
    unpictured: tuple[str, ...]


def link(items: Sequence[ExamItem], follows: Mapping[int, bool]) -> Linked:
    """Link the items of one examination, which come by number. `follows` is what corrections say of a number."""
    references = {item.number: refers_back(_stem(item), item.number) for item in items}
    runs: list[list[ExamItem]] = []
    announced = 0
    by_subject: list[str] = []
    idle: list[int] = []
    for item in items:
        earlier = runs[-1] if runs else []
        worded = _resolves(references[item.number], earlier) or item.number <= announced
        subjects = _four_by_subject(items, item.number)
        found = bool(earlier) and (item.number in _SECONDS or worded or subjects)
        said = follows.get(item.number)
        if said is not None and (said == found or not earlier):
            idle.append(item.number)
        if earlier and (found if said is None else said):
            earlier.append(item)
            if subjects and not worded and said is None:
                by_subject.append(item.id)
        else:
            runs.append([item])
        announced = max(announced, announced_case(_stem(item), item.number))
    first = {run[0].id for run in runs}
    untold = {item.id for run in runs for place, item in enumerate(run) if _lacks(references, run[:place], item)}
    done = [linked for run in runs for linked in _with_case(run, references)]
    return Linked(
        items=tuple(done),
        by_text=tuple(item.id for item in done if item.id not in {*first, *by_subject} and item.number not in _SECONDS),
        by_subject=tuple(by_subject),
        idle=tuple(idle),
        unlinked=tuple(item.id for item in done if item.id in untold and not follows.get(item.number)),
        unpictured=tuple(item.id for item in done if _contradicted(item)),
    )


def _resolves(reference: Reference | None, earlier: Sequence[ExamItem]) -> bool:
    """Whether the earlier items of a case tell what a reference is to."""
    if reference is None or not reference.questions <= {item.number for item in earlier}:
        return False
    return resolves(reference, "\n".join(map(_stem, earlier)))


def _lacks(references: Mapping[int, Reference | None], earlier: Sequence[ExamItem], item: ExamItem) -> bool:
    """Whether an item refers to what its case neither tells nor, as far as can be known, shows."""
    reference = references[item.number]
    if reference is None or _resolves(reference, earlier):
        return False
    return bool(reference.questions) or not any(one.diagram or one.pictured for one in earlier)


def _with_case(run: Sequence[ExamItem], references: Mapping[int, Reference | None]) -> list[ExamItem]:
    """The items of one case, each with what the earlier ones tell and show."""
    if len(run) == 1:
        return list(run)
    case = f"{run[0].id}-{run[-1].id[3:]}"
    result = [run[0].model_copy(update={"case": case})]
    for place, item in enumerate(run[1:], 1):
        earlier, reference = run[:place], references[item.number]
        asked = reference.questions if reference else frozenset()
        told = "\n\n".join(_told(one, choices=one.number in asked) for one in earlier)
        update: dict[str, object] = {
            "case": case,
            "text": {"ja": item.text["ja"].model_copy(update={"scenario": told})},
            "case_pictured": any(one.diagram or one.pictured for one in earlier),
            "case_images": tuple(name for one in earlier for name in one.images),
            "case_images_sha256": tuple(digest for one in earlier for digest in one.images_sha256),
        }
        result.append(item.model_copy(update=update))
    return result


def _told(item: ExamItem, *, choices: bool) -> str:
    """A stem, with its options where a later item speaks of them."""
    options = item.text["ja"].choices if choices else ()
    return "\n".join([_stem(item), *(f"{label}. {text}" for label, text in zip(item.labels, options, strict=False))])


def _four_by_subject(items: Sequence[ExamItem], number: int) -> bool:
    """Whether the item begins the second pair of four: neither pair has just one item on practice, both have two."""
    if number not in PAIRS or number == PAIRS[0]:
        return False
    before, here = (
        sum(one.subject == "practice" for one in items if one.number in pair)
        for pair in ((number - 2, number - 1), (number, number + 1))
    )
    return before != 1 and before + here == 2


def _contradicted(item: ExamItem) -> bool:
    """Whether the item speaks of a picture that neither it nor its case is said to have."""
    has_one = item.diagram or item.pictured or item.case_pictured
    return not has_one and shows_a_picture(_stem(item), item.text["ja"].choices)


def _stem(item: ExamItem) -> str:
    return item.text["ja"].stem
