"""Every item with its pictures and the model's own words, as a page shows them.

What a model said is shown as text: the page escapes it, control characters are made visible, very long replies are cut.
"""

from __future__ import annotations

import base64
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import DataError
from tasks.exam.bank.items import IMAGE_FORMATS, MAX_PICTURE_BYTES
from tasks.exam.bank.records import SUBJECTS, Exam, ExamItem, ExamRun, ItemText, Response
from tasks.exam.reading.read import read_response
from tasks.exam.scoring.score_records import ItemScore, Scores
from tasks.foreign.files import read_ordinary
from tasks.report import words

#: Characters of one reply that a page shows; responses.jsonl has the whole.
SHOWN = 4000
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_TONES = {
    "correct": "good",
    "unasked": "good",
    "wrong": "bad",
    "unparsed": "warn",
    "cut off": "warn",
    "not entered": "",
}


@dataclass(frozen=True)
class Reply:
    """One reply in one epoch."""

    epoch: int
    by: str
    read: bool
    text: str
    facts: str


@dataclass(frozen=True)
class ShownItem:
    """An item, its verdict, and what was replied."""

    number: int
    id: str
    verdict: str
    tone: str
    answer: str
    key: str
    text: ItemText
    choices: tuple[tuple[str, str], ...]
    pictures: tuple[str, ...]
    replies: tuple[Reply, ...]


def items_by_subject(
    exam: Exam, run: ExamRun, responses: Sequence[Response], scores: Scores, images: Path
) -> dict[str, list[ShownItem]]:
    """By subject, in the paper's order, then by number. Raises DataError: a picture is missing from `images`."""
    replies: defaultdict[str, list[Response]] = defaultdict(list)
    for response in responses:
        replies[response.item].append(response)
    judged = {one.item: one for one in scores.items}
    groups: dict[str, list[ShownItem]] = {subject: [] for subject in SUBJECTS}
    for item in sorted(exam.items, key=lambda item: item.number):
        groups[item.subject].append(_shown(item, run, replies[item.id], judged, images))
    return {subject: group for subject, group in groups.items() if group}


def _shown(
    item: ExamItem, run: ExamRun, replies: Sequence[Response], judged: Mapping[str, ItemScore], images: Path
) -> ShownItem:
    found = judged.get(item.id)
    verdict = found.verdict if found else "not entered"
    text = item.text.get(run.settings.language) or next(iter(item.text.values()))
    return ShownItem(
        number=item.number,
        id=item.id,
        verdict=verdict,
        tone=_TONES[verdict],
        answer=options(item, found.answer if found else None),
        key="no solution" if item.no_solution else " or ".join(options(item, one) for one in item.answers),
        text=text,
        choices=tuple(zip(item.labels, text.choices, strict=False)),
        pictures=tuple(_picture(images / name, item) for name in (*item.case_images, *item.images)),
        replies=tuple(_reply(item, run, one) for one in replies),
    )


def _picture(path: Path, item: ExamItem) -> str:
    """The picture as a data URI: the page has all that was asked."""
    try:
        content = base64.b64encode(read_ordinary(path, MAX_PICTURE_BYTES, DataError)).decode()
    except FileNotFoundError:
        raise DataError(f"picture {path} of item {item.id} is missing: import the exam again") from None
    return f"data:image/{IMAGE_FORMATS[path.suffix.lower()].lower()};base64,{content}"


def _reply(item: ExamItem, run: ExamRun, response: Response) -> Reply:
    read = read_response(item, run.settings.language, response)
    cut = len(response.raw) - SHOWN
    more = f"\n[{cut} more characters in responses.jsonl]" if cut > 0 else ""
    tokens = f"{response.input_tokens} + {response.output_tokens} tokens"
    facts = f"{tokens}, {words.duration(response.seconds)}, {words.moment(response.asked_at)}"
    facts += ", cut off by the limit of tokens" if read == "cut off" else ""
    return Reply(
        response.epoch,
        made_visible(response.model),
        isinstance(read, tuple),
        made_visible(response.raw[:SHOWN]) + more,
        facts,
    )


def options(item: ExamItem, answer: tuple[str, ...] | None) -> str:
    """Option numbers as the item labels them."""
    return words.NONE if answer is None else ", ".join(item.labels[int(number) - 1] for number in answer)


def made_visible(text: str) -> str:
    """Control characters, turns of direction and halves of characters as a visible mark."""
    return _UNPRINTABLE.sub("\ufffd", text.replace("\r\n", "\n"))
