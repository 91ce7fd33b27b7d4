"""The reports of finished runs, written beside them from what is saved: offline, whole, and as often as wanted."""

from __future__ import annotations

from pathlib import Path

from tasks.errors import DataError
from tasks.exam.bank.records import Exam
from tasks.exam.comparing.archive import (
    ANCHOR,
    BASELINE,
    COMPARISON,
    finished_in,
    load_comparison,
    load_scored,
    model_folder,
)
from tasks.exam.comparing.comparison_records import RunComparison, most_telling
from tasks.exam.page.report import build_exam_report, build_history
from tasks.exam.page.store import ENTRY, HISTORY, HISTORY_TYPES, REPORT, REPORT_TYPES, ExamEntry, read_entry
from tasks.exam.runs.run_files import load_run, write_files
from tasks.exam.scoring.score import scored_run
from tasks.exam.scoring.score_records import ScoredRun
from tasks.store.files import alone
from tasks.store.objects import to_json


def write_report(exam: Exam, images: Path, folder: Path, *, dag_run: str | None = None) -> Path:
    """Write the report of the run in `folder` and return its page, which is written after its plots.

    Args:
        images: the folder of the exam's pictures.
        dag_run: the run of Airflow that asks for it; unless given, what an earlier report says.

    Raises:
        DataError: run, comparison or pictures are damaged or missing, or the disk does not take the report.
    """
    run, responses = load_run(folder)
    found = scored_run(exam, run, responses)
    comparison, anchor, baseline = (load_comparison(folder / name) for name in (COMPARISON, ANCHOR, BASELINE))
    files = build_exam_report(exam, run, responses, found.scores, comparison, baseline, anchor=anchor, images=images)
    before = read_entry(folder)
    entry = _entry(exam, found, most_telling(comparison, anchor), dag_run or (before.dag_run if before else None))
    files[ENTRY] = to_json(entry)
    write_files(folder, {name: files[name] for name in REPORT_TYPES if name in files})
    return folder / REPORT


def write_history(exam: Exam, folder: Path) -> Path | None:
    """Write the history of the model whose run is in `folder`, and return its page.

    None where `folder` lies by itself and has no other runs beside it. Runs of an earlier edition of the exam cannot be
    scored with this one; the page says how many.

    Raises:
        DataError: a run of the model is damaged, or the disk does not take the page.
    """
    run, _ = load_run(folder)
    above = model_folder(folder, run)
    if above is None:
        return None
    try:
        with alone(above):
            runs = [
                (path, one)
                for language in exam.languages
                for path, one in finished_in(above / language)
                if one.settings.model == run.settings.model
            ]
            ours = [path for path, one in runs if one.settings.exam_digest == exam.digest]
            entries = [
                (found.run, found.scores, compared) for found, compared in (_sitting(exam, path) for path in ours)
            ]
            files = build_history(exam, run.settings.model, entries, left_out=len(runs) - len(ours))
            write_files(above, {name: files[name] for name in HISTORY_TYPES})
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{above} could not be written ({reason}): mend its rights and try again") from None
    return above / HISTORY


def _sitting(exam: Exam, folder: Path) -> tuple[ScoredRun, RunComparison | None]:
    comparison, anchor = (load_comparison(folder / name) for name in (COMPARISON, ANCHOR))
    return load_scored(exam, folder), most_telling(comparison, anchor)


def _entry(exam: Exam, found: ScoredRun, comparison: RunComparison | None, dag_run: str | None) -> ExamEntry:
    asked, scores = found.run.settings, found.scores
    return ExamEntry(
        exam=exam.id,
        title=exam.title,
        model=asked.model,
        language=asked.language,
        run=found.run.id,
        dag_run=dag_run,
        finished_at=found.run.finished_at,
        correct=scores.overall.correct,
        entered=scores.coverage.entered,
        items=scores.coverage.items,
        passed=scores.passed,
        verdict=comparison.decision.verdict if comparison else None,
    )
