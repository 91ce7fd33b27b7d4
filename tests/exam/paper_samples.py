"""A made-up exam with the layout of the 107th examination, and runs of it that match the paper's counts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime

from tasks.exam.bank.records import SUBJECTS, Exam, ExamItem, ExamRun, ItemText, Response, RunSettings
from tasks.exam.runs.run_files import responses_sha256
from tasks.exam.scoring.score import scored_run
from tasks.exam.scoring.score_records import ScoredRun

ESSENTIAL = (5, 5, 5, 10, 15, 15, 15, 10, 10)
GENERAL = (15, 15, 15, 30, 25, 25, 25, 20, 85)
#: 60 diagrams: as the paper counts them, 16 among the essential items.
ESSENTIAL_DIAGRAMS = (2, 2, 2, 2, 2, 2, 2, 1, 1)
GENERAL_DIAGRAMS = (5, 5, 5, 6, 5, 5, 5, 3, 5)
#: As many items of exam 107 ask for two answers, and as many of them have four options; all others have five.
TWO_ANSWERS, FOUR_CHOICES = 155, 2
UNSOLVED = 328
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def item(number: int, **changes: object) -> ExamItem:
    """An essential item on physics with five options, whose answer is 1, unless said otherwise."""
    values: dict[str, object] = {
        "id": f"p{number:03}",
        "exam": "paper",
        "number": number,
        "section": "essential",
        "subject": "physics",
        "text": {"ja": ItemText(stem=f"問{number}", choices=("甲", "乙", "丙", "丁", "戊"))},
        "num_choices": 5,
        "labels": ("1", "2", "3", "4", "5"),
        "n_select": 1,
        "answers": (("1",),),
        "diagram": False,
        "diagram_source": "list",
        "text_length": 40 + number * 7 % 200,
        "source": "made up",
    }
    return ExamItem.model_validate(values | changes)


def exam(items: Iterable[ExamItem]) -> Exam:
    """An exam of these items."""
    return Exam(id="paper", title="t", languages=("ja",), items=tuple(items), source="s", licence="l", human_mean=0.682)


def paper_exam() -> Exam:
    """345 items: subjects, sections, diagrams, two-answer items and the item without a solution as in exam 107."""
    items: list[ExamItem] = []
    for section, sizes, diagrams in (
        ("essential", ESSENTIAL, ESSENTIAL_DIAGRAMS),
        ("general", GENERAL, GENERAL_DIAGRAMS),
    ):
        for subject, size, num_diagrams in zip(SUBJECTS, sizes, diagrams, strict=True):
            for index in range(size):
                items.append(_paper_item(len(items) + 1, section, subject, index < num_diagrams))
    return exam(items)


def _paper_item(number: int, section: str, subject: str, diagram: bool) -> ExamItem:
    changes: dict[str, object] = {"section": section, "subject": subject, "diagram": diagram}
    if diagram:
        changes["images"] = (f"{number}.png",)
    if number == UNSOLVED:
        changes |= {"no_solution": True, "answers": ()}
    elif 90 < number <= 90 + TWO_ANSWERS:
        changes |= {"n_select": 2, "answers": (("1", "3"),)}
        if number <= 90 + FOUR_CHOICES:
            changes |= {"num_choices": 4, "labels": ("1", "2", "3", "4")}
    if 196 <= number <= 325:
        changes["case"] = f"case {number // 2}"
    return item(number, **changes)


def gpt_4_right(of: Exam) -> set[int]:
    """250 right: 228 of 285 without diagrams and 22 of 60 with; 73 of the 90 essential items."""
    return (
        _first(of, 67, section="essential", diagram=False)
        | _first(of, 6, section="essential", diagram=True)
        | (_first(of, 160, section="general", diagram=False) | {UNSOLVED})
        | _first(of, 16, section="general", diagram=True)
    )


def gpt_35_right(of: Exam) -> set[int]:
    """124 right of the 285 without diagrams: 46 of 74 essential ones, 4 of them on physics, chemistry and biology."""
    essential = [one for one in of.items if one.section == "essential" and not one.diagram]
    grouped = [one.number for one in essential if one.subject in SUBJECTS[:3]]
    others = [one.number for one in essential if one.subject not in SUBJECTS[:3]]
    general = _first(of, 77, section="general", diagram=False) | {UNSOLVED}
    return {*grouped[:4], *_spread(others, 42)} | general


def _first(of: Exam, count: int, *, section: str, diagram: bool) -> set[int]:
    numbers = [
        one.number for one in of.items if one.section == section and one.diagram == diagram and not one.no_solution
    ]
    return _spread(numbers, count)


def _spread(numbers: Sequence[int], count: int) -> set[int]:
    """`count` of the numbers, evenly."""
    return {numbers[index * len(numbers) // count] for index in range(count)}


def wrong(of: ExamItem) -> tuple[str, ...]:
    """An answer of the right size that is not accepted."""
    return tuple(str(of.num_choices - index) for index in reversed(range(of.n_select)))


def response(of: ExamItem, parsed: tuple[str, ...] | None, epoch: int = 1, **changes: object) -> Response:
    """A response that reads as `parsed`."""
    values: dict[str, object] = {
        "item": of.id,
        "item_digest": of.digest,
        "epoch": epoch,
        "model": "gpt-test-1",
        "raw": "Answer: " + ", ".join([of.labels[int(number) - 1] for number in parsed] if parsed else "?"),
        "parsed": parsed,
        "input_tokens": 100,
        "output_tokens": 5,
        "cost": 0.001,
        "seconds": 0.5,
        "asked_at": NOW,
    }
    return Response.model_validate(values | changes)


def responses(of: Exam, right: Collection[int], *, diagrams: bool = True, epoch: int = 1) -> list[Response]:
    """One response per item that can be asked: right for these numbers, wrong for all others."""
    return [
        response(one, one.answers[0] if one.number in right else wrong(one), epoch)
        for one in of.items
        if not one.no_solution and (diagrams or not one.diagram)
    ]


def run(of: Exam, given: Sequence[Response], name: str = "run", **settings: object) -> ExamRun:
    """A sealed run of these responses."""
    values: dict[str, object] = {
        "exam": of.id,
        "exam_digest": of.digest,
        "model": "openai/gpt-test",
        "language": "ja",
        "prompt": "ja/v1",
        "prompt_digest": "0" * 64,
        "temperature": 0.0,
        "epochs": 1,
        "max_tokens": 64,
        "images": True,
    }
    return ExamRun(
        id=name,
        settings=RunSettings.model_validate(values | settings),
        started_at=NOW,
        finished_at=NOW,
        num_asked=len({one.item for one in given}),
        responses_sha256=responses_sha256(given),
        engine="none",
        code_version="0",
    )


def scored(of: Exam, right: Collection[int], name: str = "run", **settings: object) -> ScoredRun:
    """A scored run with these items right and every item entered."""
    given = responses(of, right)
    return scored_run(of, run(of, given, name, **settings), given)
