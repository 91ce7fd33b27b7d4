"""Finished runs: where they lie, and their scores and comparisons.

A run's files lie in `<home>/exams/<exam>/<model>/<language>/<run id>/` and under the same keys in the object store:
`run.json`, `responses.jsonl`, `scores.json`, `comparison.json` (with the last run of equal settings, where there is
one), `anchor.json` (with an older one, see `drift`), `baseline.json` (with the run that was chosen as baseline), and
the report's files (see `exam.page.store`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from tasks.errors import DataError
from tasks.exam.bank.records import Exam, ExamRun
from tasks.exam.comparing.comparison_records import RunComparison
from tasks.exam.runs.run_files import MAX_BYTES, RUN, SCORES, load_run, write_files
from tasks.exam.scoring.score import scored_run
from tasks.exam.scoring.score_records import ScoredRun, Scores
from tasks.foreign.files import read_ordinary
from tasks.store import layout
from tasks.store.objects import to_json

COMPARISON, ANCHOR, BASELINE = "comparison.json", "anchor.json", "baseline.json"


def exam_run_folder(home: Path, exam_id: str, model: str, language: str, run_id: str) -> Path:
    """Where a run lies on this machine."""
    return home / layout.exam_runs(exam_id, model, language) / run_id


def model_folder(folder: Path, run: ExamRun) -> Path | None:
    """Above all runs of the run's model; None where `folder` is not at its place in a deployment's directory."""
    asked, folder = run.settings, folder.resolve()
    place = exam_run_folder(Path(), asked.exam, asked.model, asked.language, run.id)
    return folder.parents[1] if folder.parts[-len(place.parts) :] == place.parts else None


def load_scored(exam: Exam, folder: Path) -> ScoredRun:
    """A saved run, scored from its responses. Raises DataError: no such run, edited, or of another exam."""
    return scored_run(exam, *load_run(folder))


def score_folder(exam: Exam, folder: Path) -> ScoredRun:
    """Score a saved run and write its scores.json. Raises DataError as `load_scored`."""
    found = load_scored(exam, folder)
    write_scores(folder, found.scores)
    return found


def write_scores(folder: Path, scores: Scores) -> None:
    """Write or replace scores.json: scoring again gives it again. Raises DataError when the disk does not take it."""
    write_files(folder, {SCORES: to_json(scores)})


def load_comparison(path: Path) -> RunComparison | None:
    """A saved comparison; None where there is none. Raises DataError: it is damaged."""
    if not path.exists():
        return None
    try:
        return RunComparison.model_validate_json(read_ordinary(path, MAX_BYTES, DataError))
    except ValidationError:
        raise DataError(f"{path} is no comparison: evaluate the run again") from None


def find_earlier(folder: Path, run: ExamRun, beside: Path | None = None) -> list[Path]:
    """The runs in `beside`, the folder above unless given, with equal settings that had ended when `run` began.

    Oldest first.

    Raises:
        DataError: a run there is damaged: a gap must not look like a steady history.
    """
    found = [
        (other.finished_at, path)
        for path, other in finished_in(beside or folder.parent)
        if path != folder and other.settings == run.settings and other.finished_at <= run.started_at
    ]
    return [path for _, path in sorted(found)]


def finished_in(language_folder: Path) -> Iterator[tuple[Path, ExamRun]]:
    """The finished runs in a folder, by id. Raises DataError: one is damaged."""
    for path in sorted(language_folder.glob(f"*/{RUN}")):
        yield path.parent, load_run(path.parent)[0]
