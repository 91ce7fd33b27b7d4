"""Where an exam's reports lie, on disk and in the object store, and which run of Airflow made them. Imports little.

exams/<exam>/<model>/<language>/<run>/report.html    with its plots, and `entry.json`, written last
exams/<exam>/<model>/history.html                    with its plot: all runs of a model
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.errors import ObjectMissing
from tasks.foreign.inside import MAX_BYTES, FolderName, read_inside
from tasks.report import pages
from tasks.report.stores import ReadableStore, readable
from tasks.store import layout, settings

ENTRY, REPORT, HISTORY = "entry.json", "report.html", "history.html"
#: Of one line of the index, and how many lines it has at most.
MAX_ENTRY_BYTES, MAX_LISTED = 1 << 16, 10_000
_HTML, _PNG = "text/html; charset=utf-8", "image/png"
#: Every file of a report, in the order in which they are written, and its type: no other name is ever served.
REPORT_TYPES = {
    "exam_subjects.png": _PNG,
    "exam_slices.png": _PNG,
    REPORT: _HTML,
    ENTRY: "application/json",
}
HISTORY_TYPES = {"exam_history.png": _PNG, HISTORY: _HTML}
#: A part of a key; never `.` or `..`.
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")


class ExamEntry(BaseModel):
    """`entry.json`: one line of the index. `dag_run` is null for a run that Airflow did not start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    exam: FolderName
    title: str
    model: str
    language: FolderName
    run: FolderName
    dag_run: str | None
    finished_at: datetime
    correct: int
    entered: int
    items: int
    passed: bool | None
    verdict: str | None

    @property
    def report(self) -> str:
        """Key of the report, relative to `exams/`."""
        key = layout.exam_run(self.exam, self.model, self.language, self.run, REPORT)
        return key.removeprefix(layout.EXAMS)

    @property
    def history(self) -> str:
        """Key of the model's history, relative to `exams/`."""
        return layout.exam_history(self.exam, self.model, HISTORY).removeprefix(layout.EXAMS)


def read_entry(folder: Path) -> ExamEntry | None:
    """The entry of a run's folder; None where there is no report, or one of another version of this code."""
    return _entry_in(folder, PurePosixPath())


def _entry_in(root: Path, run: PurePosixPath) -> ExamEntry | None:
    body = read_inside(root, str(run / ENTRY), MAX_ENTRY_BYTES)
    return _parse(body) if body is not None and (root / run / REPORT).is_file() else None


def list_entries(home: Path | None = None) -> list[ExamEntry]:
    """All runs with a report on this machine, newest first."""
    root = (home or settings.home()) / "exams"
    found = islice(root.glob(f"*/*/*/*/{ENTRY}"), MAX_LISTED)
    runs = [PurePosixPath(path.parent.relative_to(root)) for path in found]
    return _newest_first(entry for run in runs if (entry := _entry_in(root, run)) is not None)


def fetch_entries(store: ReadableStore) -> list[ExamEntry]:
    """The same from the object store, for a machine that did not write the reports."""
    runs = (key for key in store.keys(layout.EXAMS) if (place := layout.parse(key, "exam_run")) and place.name == ENTRY)
    bodies = readable(store, islice(runs, MAX_LISTED), MAX_ENTRY_BYTES)
    return _newest_first(entry for body in bodies if (entry := _parse(body)) is not None)


def find_entries(entries: Iterable[ExamEntry], dag_run: str) -> list[ExamEntry]:
    """Those that a run of Airflow made, one for each model and language."""
    return [entry for entry in entries if entry.dag_run == dag_run]


def report_key(exam: str, model: str, language: str, run: str, name: str) -> str:
    """Key of a report's file; `model` is its folder's name.

    Raises:
        ValueError: not the name of an exam, a model's folder, a language, a run, or a file that a report has.
    """
    _check((exam, model, language, run), name, REPORT_TYPES)
    return layout.exam_run(exam, model, language, run, name)


def checked_history_key(exam: str, model: str, name: str) -> str:
    """Key of a history's file. Raises ValueError as `report_key`."""
    _check((exam, model), name, HISTORY_TYPES)
    return layout.exam_history(exam, model, name)


def read(key: str, home: Path | None = None) -> bytes | None:
    """A file from disk by a checked key; None if it is not there, or only behind a link: see `tasks.foreign.inside`."""
    return read_inside(home or settings.home(), key)


def fetch(store: ReadableStore, key: str) -> bytes | None:
    """The same from the object store."""
    try:
        return store.get(key, max_bytes=MAX_BYTES)
    except ObjectMissing:
        return None


def exam_index_page(entries: Iterable[ExamEntry], *, heading: str, base: str) -> bytes:
    """Runs by exam and model, newest first; `base` leads from the page to `exams/`."""
    groups: dict[tuple[str, str], list[tuple[ExamEntry, bool]]] = {}
    found = _newest_first(entries)
    oldest = {(entry.exam, entry.model, entry.language): entry for entry in found}  # the last one of each stays
    for entry in found:
        alone = oldest[entry.exam, entry.model, entry.language] is entry
        groups.setdefault((entry.exam, entry.model), []).append((entry, alone))
    return pages.render("exam_index.html", heading=heading, base=base, groups=sorted(groups.items()))


def _newest_first(entries: Iterable[ExamEntry]) -> list[ExamEntry]:
    return sorted(entries, key=lambda entry: (entry.finished_at, entry.report), reverse=True)


def _check(parts: Iterable[str], name: str, names: Mapping[str, Any]) -> None:
    if name not in names or not all(_PART.fullmatch(part) for part in parts):
        raise ValueError("no report can lie there")


def _parse(body: bytes) -> ExamEntry | None:
    try:
        return ExamEntry.model_validate_json(body)
    except ValidationError:
        return None
