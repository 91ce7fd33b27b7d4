"""A project with a small exam of its own, and a model whose answers are made up."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks.exam.asking.questions import items_to_ask
from tasks.exam.bank.items import exam_folder, save_exam
from tasks.exam.bank.records import Exam, ExamRun, RunSettings
from tasks.exam.page import plots
from tasks.exam.runs.run_files import write_run
from tasks.report.canvas import Chart
from tests.exam.paper_samples import exam, item, responses, run

MODEL = "openai/gpt-test"
EXAM = exam(item(number) for number in range(1, 41))
ALL = frozenset(range(1, 41))


def save_small_exam(project: Path) -> None:
    """Where the code under test looks for exam `paper`."""
    save_exam(EXAM, exam_folder(project / "data", EXAM.id))


def draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plot takes a second, and most tests do not look at it."""
    empty = Chart("exam_history", "", "", b"png", "<svg/>")
    monkeypatch.setattr(plots, "draw_run", lambda *_: [])
    monkeypatch.setattr(plots, "draw_history", lambda *_: empty)


class FakeModel:
    """Stands for `asking.ask`: each call takes the next set of item numbers to answer rightly, one minute a run."""

    def __init__(self, *right: Collection[int]) -> None:
        self.right = list(right)
        self.asked: list[RunSettings] = []

    def __call__(self, of: Exam, images: Path, settings: RunSettings, folder: Path, **_: object) -> ExamRun:
        """Write the run, as `asking.ask` does."""
        wanted = {item.id for item in items_to_ask(of, settings)}
        given = [one for one in responses(of, self.right[len(self.asked)]) if one.item in wanted]
        minute = datetime(2026, 1, 1, 0, len(self.asked), tzinfo=UTC)
        self.asked.append(settings)
        times = {"started_at": minute, "finished_at": minute, "settings": settings}
        return write_run(folder, run(of, given, folder.name).model_copy(update=times), given)
