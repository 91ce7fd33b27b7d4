"""One evaluation of one model in one language: ask, score, compare with its last run, and report. See `archive`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tasks import settings
from tasks.errors import ConfigError, DriftFound
from tasks.exam import asking, report_files
from tasks.exam.archive import (
    BASELINE,
    COMPARISON,
    find_previous,
    load_comparison,
    load_scored,
    run_folder,
    score_folder,
)
from tasks.exam.comparing import compare
from tasks.exam.comparison_records import Comparison, Outcome
from tasks.exam.items import exam_folder, load_exam
from tasks.exam.practice import build_practice
from tasks.exam.prompts import load_prompt
from tasks.exam.questions import BUNDLED
from tasks.exam.records import Exam, Language, RunSettings
from tasks.exam.run_files import load_run, write_files
from tasks.exam.score_records import ScoredRun
from tasks.records import Record
from tasks.storage import to_json

PRACTICE = "practice"
_MODEL = re.compile(r"[A-Za-z0-9_-]+/\S+")

#: Of one reply. The bundled model does not reason, and writes ten tokens a second.
_MAX_TOKENS, _MAX_TOKENS_BUNDLED = 512, 48


class Arm(Record):
    """One process of its own: a model in a language."""

    model: str
    language: Language


class Evaluated(Record):
    """What an evaluation brought. `previous` and `verdict` are null on the first run with these settings."""

    run: str
    folder: Path
    correct: int
    entered: int
    items: int
    passed: bool | None
    previous: str | None
    verdict: Outcome | None

    @property
    def words(self) -> str:
        """One line for a log."""
        against = f"{self.verdict} against {self.previous}" if self.previous else "nothing to compare with yet"
        return f"run {self.run}: {self.correct} correct of {self.entered} entered, {self.items} in all; {against}"


def data_dir() -> Path:
    """The project's data, with a folder `exams/`."""
    return settings.project_dir() / "data"


def new_run_id(at: datetime | None = None) -> str:
    """The time in UTC: ids sort as runs came."""
    return (at or datetime.now(UTC)).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def plan_arms(exam_id: str, models: Sequence[str], languages: Sequence[str]) -> list[Arm]:
    """Every model in every language, once the exam is there and has the languages. Builds our own exam when missing.

    Raises:
        ConfigError: no model or language, one that the exam does not have, or a model that is named otherwise.
        DataError: there is no such exam.
    """
    if exam_id == PRACTICE and not (exam_folder(data_dir(), PRACTICE) / "exam.json").exists():
        build_practice(data_dir())
    exam = load_exam(exam_folder(data_dir(), exam_id))
    unknown = [language for language in languages if language not in exam.languages]
    if unknown or not models or not languages:
        raise ConfigError(
            f"exam {exam_id} is in {', '.join(exam.languages)}, asked for are languages {', '.join(languages) or '-'} "
            f"of models {', '.join(models) or '-'}: name at least one of each"
        )
    for model in models:
        _check_model(model)
    return [
        Arm.model_validate({"model": model, "language": language})
        for model in dict.fromkeys(models)
        for language in dict.fromkeys(languages)
    ]


def settings_for(
    exam: Exam,
    model: str,
    language: Language,
    *,
    prompt: str = "v1",
    epochs: int = 1,
    limit: int | None = None,
    temperature: float = 0.0,
    max_tokens: int | None = None,
    images: bool | None = None,
) -> RunSettings:
    """What a run asks; `images` and `max_tokens` are decided by the model unless they are given.

    Raises:
        ConfigError: no such prompt, or a model that is named otherwise than inspect names it.
    """
    _check_model(model)
    name = f"{language}/{prompt}"
    return RunSettings(
        exam=exam.id,
        exam_digest=exam.digest,
        model=model,
        language=language,
        prompt=name,
        prompt_digest=load_prompt(name)[1],
        temperature=temperature,
        epochs=epochs,
        max_tokens=max_tokens or (_MAX_TOKENS_BUNDLED if model.startswith(BUNDLED) else _MAX_TOKENS),
        limit=limit,
        images=not model.startswith(BUNDLED) if images is None else images,
    )


def evaluate(
    exam_id: str,
    model: str,
    language: Language,
    *,
    epochs: int = 1,
    limit: int | None = None,
    baseline: str | None = None,
    home: Path | None = None,
    run_id: str | None = None,
    dag_run: str | None = None,
    progress: asking.Progress | None = None,
) -> Evaluated:
    """Ask, score, compare and report, all in the run's folder. The same `run_id` again goes on where it was left.

    Args:
        baseline: a run's folder, absolute or below `<home>/exams/<exam>/`: `<model>/<language>/<run id>`.
        home: the deployment's directory unless given.
        dag_run: the run of Airflow that this is part of, for the web UI.

    Raises:
        DataError, ConfigError: exam, prompt, baseline or a run to compare with are not sound. A baseline is read before
            anything is asked.
        ExamError: the model did not answer everything; what it answered is kept.
    """
    home = home or settings.home()
    source = exam_folder(data_dir(), exam_id)
    exam = load_exam(source)
    reference = load_scored(exam, home / "exams" / exam_id / baseline) if baseline else None
    asked = settings_for(exam, model, language, epochs=epochs, limit=limit)
    folder = run_folder(home, exam_id, model, language, run_id or new_run_id())
    asking.ask(exam, source / "images", asked, folder, progress=progress)
    now = score_folder(exam, folder)
    previous = find_previous(exam, folder, now.run)
    comparison = _compared(exam, previous, now, folder / COMPARISON)
    _compared(exam, reference, now, folder / BASELINE)
    report_files.write_report(exam, source / "images", folder, dag_run=dag_run)
    report_files.write_history(exam, folder)
    return Evaluated(
        run=now.run.id,
        folder=folder,
        correct=now.scores.overall.correct,
        entered=now.scores.coverage.entered,
        items=now.scores.coverage.items,
        passed=now.scores.passed,
        previous=previous.run.id if previous else None,
        verdict=comparison.decision.verdict if comparison else None,
    )


def check_drift(folder: Path) -> str:
    """What the comparison of the run in `folder` says, in words.

    Raises:
        DriftFound: the run differs from the one before by more than chance, for better or worse.
        DataError: there is no finished run, or it or its comparison is damaged.
    """
    run, _ = load_run(folder)
    found = load_comparison(folder / COMPARISON)
    if found is None:
        return f"run {run.id} is the first of its kind: nothing to compare with"
    test, side = found.overall, found.b
    numbers = f"{test.lost} items lost and {test.gained} gained of {found.pairs}, p = {test.p:.2g}"
    if found.decision.verdict == "drift":
        raise DriftFound(
            f"{side.model} on exam {found.exam} in {side.language} is {found.decision.direction} than in run "
            f"{found.a.run}: {numbers}, the alarm is from a net change of {found.decision.threshold} on; see {folder}"
        )
    return f"{found.decision.verdict} against run {found.a.run}: {numbers}"


def _check_model(model: str) -> None:
    if not _MODEL.fullmatch(model):
        raise ConfigError(f"model {model!r} is not named <provider>/<model>, as openai/gpt-4o: correct the name")


def _compared(exam: Exam, earlier: ScoredRun | None, now: ScoredRun, path: Path) -> Comparison | None:
    """Write the comparison to `path`; what an earlier evaluation of the run left there goes when there is none."""
    if earlier is None:
        path.unlink(missing_ok=True)
        return None
    comparison = compare(exam, earlier, now)
    write_files(path.parent, {path.name: to_json(comparison)})
    return comparison
