"""Whatever a model, an exam or an entry says stays text on the exam's pages; without escaping each would show it."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from tasks.exam.bank.records import Exam, ItemText, Response
from tasks.exam.comparing.compare import compare
from tasks.exam.page.report import build_exam_report, build_history
from tasks.exam.page.store import ExamEntry, exam_index_page
from tasks.exam.scoring.score import scored_run
from tasks.report import pages
from tests.exam.exam_samples import PNG
from tests.exam.paper_samples import NOW, exam, item, response, run
from tests.page_structure import HARMLESS, HOSTILE, Structure, require_same_structure, with_texts

NUMBERS = range(1, 31)


def exam_of(text: str) -> Exam:
    """An exam whose every text is hostile; labels, keys and names of files are not free."""
    made = exam(item(number) for number in NUMBERS)
    told = ItemText(stem=text, choices=(text,) * 5, scenario=text)
    items = tuple(one.model_copy(update={"text": {"ja": told}, "source": text}) for one in made.items)
    pictured = items[0].model_copy(update={"diagram": True, "images": ("1.png",), "images_sha256": ("0" * 64,)})
    return made.model_copy(update={"title": text, "source": text, "licence": text, "items": (pictured, *items[1:])})


def said(of: Exam, text: str, right: int) -> list[Response]:
    """Replies that are right up to a number, wrong after it, and one that nothing can be read from."""
    read = [response(one, one.answers[0] if one.number <= right else ("5",)) for one in of.items]
    odd = [one.model_copy(update={"raw": f"{text} {one.raw}", "model": text, "stop_reason": text}) for one in read]
    return [odd[0].model_copy(update={"raw": text, "parsed": None}), *odd[1:]]


def pages_of(text: str, images: Path) -> dict[str, bytes]:
    """Report and history of the second of two runs, the first better than the second."""
    of = exam_of(text)
    runs = []
    for name, right, days in (("before", 29, 0), ("now", 5, 30)):
        replies = said(of, text, right)
        made = run(of, replies, name, model=text, prompt=text)
        at = {"finished_at": NOW + timedelta(days=days), "engine": text, "code_version": text}
        made = made.model_copy(update=at)
        runs.append((made, replies, scored_run(of, made, replies)))
    (first, _, earlier), (second, replies, scored) = runs
    comparison = compare(of, earlier, scored)
    report = build_exam_report(of, second, replies, scored.scores, comparison, images=images)
    history = build_history(of, text, [(second, scored.scores, comparison), (first, earlier.scores, None)])
    return {"report": report["report.html"], "history": history["history.html"]}


def entry(text: str) -> ExamEntry:
    known = ExamEntry(
        exam="paper",
        title="",
        model="",
        language="ja",
        run="r1",
        dag_run="",
        finished_at=NOW,
        correct=1,
        entered=2,
        items=3,
        passed=None,
        verdict="",
    )
    return with_texts(known, text, {"exam", "language", "run"})


@pytest.fixture
def build(tmp_path: Path) -> dict[str, Callable[[str], bytes]]:
    """Page -> what builds it of a text."""
    (tmp_path / "1.png").write_bytes(PNG)
    return {
        "report": lambda text: pages_of(text, tmp_path)["report"],
        "history": lambda text: pages_of(text, tmp_path)["history"],
        "index": lambda text: exam_index_page([entry(text)], heading=text, base="../"),
    }


PLACES = {"report": 200, "history": 4, "index": 5}


@pytest.mark.parametrize("page", PLACES)
def test_a_hostile_text_stays_text(page: str, build: dict[str, Callable[[str], bytes]]) -> None:
    body = require_same_structure(build[page], places=PLACES[page])
    if folder := os.environ.get("PAGES_FOR_A_BROWSER"):
        (Path(folder) / f"exam-{page}.html").write_bytes(body)


@pytest.mark.parametrize("page", PLACES)
def test_without_escaping_the_structure_would_differ(
    page: str, build: dict[str, Callable[[str], bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control."""
    careless = pages._environment().overlay(autoescape=False)
    monkeypatch.setattr(pages, "_environment", lambda: careless)
    hostile, harmless = Structure(build[page](HOSTILE)), Structure(build[page](HARMLESS))
    assert hostile.elements != harmless.elements
    assert {"script", "iframe", "onerror", "onload"} <= set(hostile.dangers)
    if folder := os.environ.get("PAGES_FOR_A_BROWSER"):
        (Path(folder) / f"exam-{page}-control.html").write_bytes(build[page](HOSTILE))


@pytest.mark.parametrize("name", ["exam", "language", "run"])
@pytest.mark.parametrize("value", ["javascript:alert(1)", "//evil.invalid", "..", "a/b", "https:evil", ""])
def test_an_entry_whose_link_would_lead_elsewhere_is_none(name: str, value: str) -> None:
    values = entry("text").model_dump()
    ExamEntry.model_validate(values)
    with pytest.raises(ValueError, match=name):
        ExamEntry.model_validate(values | {name: value})
