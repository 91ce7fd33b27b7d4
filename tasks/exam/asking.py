"""Ask a model an exam: `ask` begins a run in a folder, or goes on with the one that is there.

The engine (inspect-ai) runs in a process of its own, because it takes over the event loop, the working directory and
the log. While a run is on, its folder holds `asking.json` (what is asked, since when), `answers.jsonl` (answers so far)
and `engine.log`; when it is finished, `run.json` and `responses.jsonl`. A failed call leaves no run, but its answers.
`engine/` keeps inspect's own log, for `inspect view`, without its traces: they hold what providers echo.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError

from tasks import __version__
from tasks.errors import ConfigError, PharmafedError, RunIncomplete
from tasks.exam import collect
from tasks.exam.engine_process import Progress as Progress
from tasks.exam.engine_process import Tell as Tell
from tasks.exam.engine_process import run_engine
from tasks.exam.journal import Answer, Key, read_answers
from tasks.exam.questions import Failures, Job, Patience, items_to_ask, make_job
from tasks.exam.records import UNSEALED, Exam, Response, Run, RunSettings
from tasks.exam.report_store import ENTRY
from tasks.exam.run_files import RUN, load_run, write_run
from tasks.files import write_private
from tasks.foreign_files import read_ordinary
from tasks.records import Record
from tasks.storage import to_json

#: A child whose parent was killed ends within this time, and frees the folder.
_LOCK_WAIT_S = 15.0
_POLL_S = 0.2


class Started(Record):
    """`asking.json`: what the answers in this folder answer."""

    settings: RunSettings
    started_at: datetime


def ask(
    exam: Exam,
    images: Path,
    settings: RunSettings,
    folder: Path,
    *,
    max_connections: int = 10,
    leave: Collection[str] = (),
    progress: Progress | None = None,
    tell: Tell | None = None,
    patience: Patience | None = None,
) -> Run:
    """Ask every item that has a solution, in every epoch, and write the run to `folder`, whose name becomes its id.

    Called again after a failure or a kill, it asks what is not answered yet. Called on a finished run, it asks nothing.

    Args:
        exam: all of it; `settings.limit` cuts.
        images: the folder of the exam's pictures.
        settings: pins exam and prompt by digest.
        folder: of this run alone.
        max_connections: calls in flight.
        leave: ids of items that are not asked any more; those without an answer are left out of the run, which says so.
        progress: called with (answers so far, answers in all).
        tell: called with a line on calls that fail and are tried again.
        patience: with a call that fails.

    Raises:
        ConfigError, DataError: settings, exam, prompt or pictures do not fit, or `folder` cannot be written; nothing
            was sent.
        ModelRefused: wrong key, no such model, provider not installed.
        ModelUnavailable: no answer in spite of retries; worth a retry later.
        RunIncomplete: the engine ended, this process was told to (SIGTERM), or files in the folder are damaged.
    """
    job = make_job(exam, images, settings, max_connections, patience or Patience(), leave)
    items = items_to_ask(exam, settings)
    with _alone(folder) as lock:
        if (folder / RUN).exists():
            return _finished(folder, settings)
        started = _start(folder, settings)
        answers = _answers(folder, job, lock, progress, tell)
        left = collect.unanswered(items, settings, answers, leave)
        responses = collect.responses([item for item in items if item.id not in left], settings, answers)
        run = _write(folder, started, responses, left)
        for leftover in ("asking.json", "answers.jsonl", "failures.json"):
            (folder / leftover).unlink(missing_ok=True)
        return run


def _answers(folder: Path, job: Job, lock: int, progress: Progress | None, tell: Tell | None) -> Mapping[Key, Answer]:
    """All answers, of this process of the engine and of those before it.

    Raises:
        ExamError: some are missing.
    """
    path, failures = folder / "answers.jsonl", folder / "failures.json"
    failures.unlink(missing_ok=True)
    wanted = {(question.item, epoch) for question in job.questions for epoch in range(1, job.settings.epochs + 1)}
    status, total = 0, len(wanted)
    if not wanted <= read_answers(path).keys():
        status = run_engine(folder, job, lock, total, progress, tell)
    answers = read_answers(path)
    if failures.exists():
        found = Failures.model_validate_json(failures.read_bytes()).failures
        raise collect.error_of(found, job.settings.model, len(answers), total)
    if status != 0 and not wanted <= answers.keys():
        raise RunIncomplete(
            f"the engine ended with status {status} and {len(answers)} of {total} answers of {job.settings.model}, "
            f"which are kept: see {folder / 'engine.log'}, check that the disk has room, and run it again"
        )
    return answers


def _start(folder: Path, settings: RunSettings) -> Started:
    """Since when the folder asks `settings`: now, or since before the process was killed."""
    path = folder / "asking.json"
    if not path.exists():
        started = Started(settings=settings, started_at=datetime.now(UTC))
        write_private(path, to_json(started))
        return started
    try:
        started = Started.model_validate_json(path.read_bytes())
    except ValidationError:
        raise RunIncomplete(f"{path} is damaged: remove the run's folder and ask again") from None
    _same(folder, started.settings, settings)
    return started


def _finished(folder: Path, settings: RunSettings) -> Run:
    run, _ = load_run(folder)
    _same(folder, run.settings, settings)
    return run


def _same(folder: Path, there: RunSettings, asked: RunSettings) -> None:
    if differing := _differing(there, asked):
        raise ConfigError(f"{folder} holds a run with other {', '.join(differing)}: choose a new folder")


def _differing(there: RunSettings, asked: RunSettings) -> list[str]:
    return [name for name in RunSettings.model_fields if getattr(there, name) != getattr(asked, name)]


def _write(folder: Path, started: Started, responses: Sequence[Response], left: tuple[str, ...]) -> Run:
    run = Run(
        id=folder.name,
        settings=started.settings,
        started_at=started.started_at,
        finished_at=datetime.now(UTC),
        num_asked=len({response.item for response in responses}),
        left=left,
        responses_sha256=UNSEALED,
        engine=f"inspect-ai {version('inspect-ai')}",
        code_version=__version__,
    )
    return write_run(folder, run, responses)


def find_unfinished(beside: Path, settings: RunSettings) -> tuple[Path | None, list[tuple[Path, str]]]:
    """The newest run in `beside` that asks `settings` and has not been finished, and those that ask something else.

    A run without a report is unfinished too: it is then scored and reported, and asks nothing.

    Returns:
        Its folder, or None; and each other unfinished folder with the names of the settings that differ.
    """
    others: list[tuple[Path, str]] = []
    for path in sorted(beside.glob("*/"), reverse=True):
        there = _unfinished_settings(path)
        if there is None:
            continue
        if not (differing := _differing(there, settings)):
            return path, others
        others.append((path, ", ".join(differing)))
    return None, others


def _unfinished_settings(folder: Path) -> RunSettings | None:
    try:
        if (folder / RUN).exists():
            return None if (folder / ENTRY).exists() else load_run(folder)[0].settings
        return Started.model_validate_json(read_ordinary(folder / "asking.json")).settings
    except (OSError, ValidationError, PharmafedError):
        return None  # no run, or a damaged one: whoever names its folder is told


@contextmanager
def _alone(folder: Path) -> Iterator[int]:
    """Hold the folder's lock; the engine's process inherits it, so that a retry waits until it has ended, too."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "Permission denied")
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror or type(error).__name__
        raise ConfigError(f"{folder} cannot hold a run ({reason}): name a folder that can be written") from None
    try:
        deadline = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RunIncomplete(
                        f"another process is asking in {folder}: wait until it has finished, or begin another"
                    ) from None
                time.sleep(_POLL_S)
        yield descriptor
    finally:
        os.close(descriptor)
