"""One evaluation of one model in one language: ask, score, compare with earlier runs, and report. See `archive`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from tasks.errors import ConfigError
from tasks.exam.asking import ask as asking
from tasks.exam.asking.prompts import load_prompt
from tasks.exam.asking.questions import BUNDLED
from tasks.exam.bank.items import exam_folder, load_exam
from tasks.exam.bank.practice import build_practice
from tasks.exam.bank.records import Exam, Language, RunSettings
from tasks.exam.comparing.archive import load_scored, score_folder
from tasks.exam.comparing.comparison_records import ComparisonOutcome, most_telling
from tasks.exam.comparing.drift import compare_with_earlier
from tasks.exam.page import files as report_files
from tasks.store import layout, settings
from tasks.store.records.record import Record

PRACTICE = "practice"
_MODEL = re.compile(r"[A-Za-z0-9_-]+/\S+")

#: Of one reply, reasoning included. The bundled model does not reason, and writes ten tokens a second.
_MAX_TOKENS, _MAX_TOKENS_BUNDLED = 4096, 48
_PROMPT, _PROMPT_BUNDLED = "v1", "short"


class ExamArm(Record):
    """One process of its own: a model in a language."""

    model: str
    language: Language


class Evaluated(Record):
    """What an evaluation brought. `previous` and `verdict` are null on the first run with these settings.

    `against` is the run that the verdict is against: the run before, or the anchor that only slow drift shows against.
    """

    run: str
    folder: Path
    history: Path | None
    correct: int
    entered: int
    items: int
    passed: bool | None
    previous: str | None
    against: str | None
    verdict: ComparisonOutcome | None

    @property
    def words(self) -> str:
        """One line for a log."""
        against = f"{self.verdict} against {self.against}" if self.against else "nothing to compare with yet"
        return f"run {self.run}: {self.correct} correct of {self.entered} entered, {self.items} in all; {against}"


def data_dir() -> Path:
    """The project's data, with a folder `exams/`."""
    return settings.project_dir() / "data"


def new_run_id(at: datetime | None = None) -> str:
    """The time in UTC: ids sort as runs came."""
    return (at or datetime.now(UTC)).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def plan_arms(exam_id: str, models: Sequence[str], languages: Sequence[str]) -> list[ExamArm]:
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
        ExamArm.model_validate({"model": model, "language": language})
        for model in dict.fromkeys(models)
        for language in dict.fromkeys(languages)
    ]


def settings_for(
    exam: Exam,
    model: str,
    language: Language,
    *,
    prompt: str | None = None,
    epochs: int = 1,
    limit: int | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    images: bool | None = None,
) -> RunSettings:
    """What a run asks. Prompt, pictures and `max_tokens` are decided by the model unless given; temperature is then 0.

    Raises:
        ConfigError: no such prompt, or a model that is named otherwise than inspect names it.
    """
    _check_model(model)
    bundled = model.startswith(BUNDLED)
    name = f"{language}/{prompt or (_PROMPT_BUNDLED if bundled else _PROMPT)}"
    return RunSettings(
        exam=exam.id,
        exam_digest=exam.digest,
        model=model,
        language=language,
        prompt=name,
        prompt_digest=load_prompt(name)[1],
        temperature=temperature or 0.0,
        epochs=epochs,
        max_tokens=max_tokens or (_MAX_TOKENS_BUNDLED if bundled else _MAX_TOKENS),
        limit=limit,
        images=not bundled if images is None else images,
        corrections=exam.corrections,
    )


def evaluate(
    exam_id: str,
    model: str,
    language: Language,
    *,
    prompt: str | None = None,
    epochs: int = 1,
    limit: int | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    images: bool | None = None,
    leave: Sequence[str] = (),
    baseline: str | None = None,
    home: Path | None = None,
    run_id: str | None = None,
    out: Path | None = None,
    dag_run: str | None = None,
    progress: asking.AskingProgress | None = None,
    tell: asking.Tell | None = None,
) -> Evaluated:
    """Ask, score, compare and report, all in the run's folder. An unfinished run there goes on where it was left.

    Args:
        prompt, epochs, limit, temperature, max_tokens, images: see `settings_for`.
        leave: items, by id or number, that are not asked any more; where one has no answer, there is no pass verdict.
        baseline: a run's folder below `<home>/exams/<exam>/`: `<model>/<language>/<run id>`.
        home: the deployment's directory unless given.
        run_id: unless given, that of the model's unfinished run with these settings, or else a new one.
        out: the run's folder, instead of its place in `home`; it is compared with the runs in that place.
        dag_run: the run of Airflow that this is part of, for the web UI.
        progress: called with (answers so far, answers in all).
        tell: called with a line on the run's folder, and on calls that fail and are tried again.

    Raises:
        DataError, ConfigError: exam, prompt, baseline or a run to compare with are not sound. A baseline is read before
            anything is asked.
        ExamError: the model did not answer everything; what it answered is kept.
    """
    home = home or settings.home()
    source = exam_folder(data_dir(), exam_id)
    exam = load_exam(source)
    reference = load_scored(exam, _below(home / "exams" / exam_id, baseline)) if baseline else None
    asked = settings_for(
        exam,
        model,
        language,
        prompt=prompt,
        epochs=epochs,
        limit=limit,
        temperature=temperature,
        max_tokens=max_tokens,
        images=images,
    )
    left, beside = _ids(exam, leave), home / layout.exam_runs(exam_id, model, language)
    folder = out or (beside / run_id if run_id else _go_on_or_begin(beside, asked, tell))
    if tell is not None:
        tell(f"run  {folder}")
    asking.ask(exam, source / "images", asked, folder, leave=left, progress=progress, tell=tell)
    now = score_folder(exam, folder)
    previous, anchor = compare_with_earlier(exam, folder, now, reference, beside=beside)
    found = most_telling(previous, anchor)
    report_files.write_report(exam, source / "images", folder, dag_run=dag_run)
    history = report_files.write_history(exam, folder)
    return Evaluated(
        run=now.run.id,
        folder=folder,
        history=history,
        correct=now.scores.overall.correct,
        entered=now.scores.coverage.entered,
        items=now.scores.coverage.items,
        passed=now.scores.passed,
        previous=previous.a.run if previous else None,
        against=found.a.run if found else None,
        verdict=found.decision.verdict if found else None,
    )


def _check_model(model: str) -> None:
    if not _MODEL.fullmatch(model):
        raise ConfigError(f"model {model!r} is not named <provider>/<model>, as openai/gpt-4o: correct the name")


def _go_on_or_begin(beside: Path, asked: RunSettings, tell: asking.Tell | None) -> Path:
    """The folder of the unfinished run with these settings, or a new one; says which, and which others are left."""
    found, others = asking.find_unfinished(beside, asked)
    if tell is not None and found is not None:
        tell(f"goes on with the run that was not finished ({found.words}): only what was not answered is asked")
    if tell is not None and found is None:
        for one in others:
            tell(f"left alone: the unfinished run {one.folder} ({one.words}), which {one.why_left}")
    return found.folder if found else beside / new_run_id()


def _ids(exam: Exam, named: Sequence[str]) -> tuple[str, ...]:
    """Items by id or number, as ids. Raises ConfigError: there is no such item."""
    known = {item.id: item.id for item in exam.items} | {str(item.number): item.id for item in exam.items}
    unknown = [name for name in named if name not in known]
    if unknown:
        raise ConfigError(
            f"exam {exam.id} has no item {', '.join(unknown)}: name items by id, as {exam.items[0].id}, or by number"
        )
    return tuple(known[name] for name in named)


def _below(folder: Path, baseline: str) -> Path:
    """The baseline's folder. Raises ConfigError: it would lie elsewhere."""
    parts = PurePosixPath(baseline)
    if parts.is_absolute() or ".." in parts.parts:
        raise ConfigError(f"baseline {baseline!r} is not below {folder}: name it <model>/<language>/<run id>")
    return folder / parts
