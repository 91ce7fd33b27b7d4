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
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

from pydantic import Field, ValidationError

from tasks import __version__
from tasks.errors import ConfigError, PharmafedError, RunIncomplete
from tasks.exam.asking import collect
from tasks.exam.asking.engine_process import AskingProgress as AskingProgress
from tasks.exam.asking.engine_process import Tell as Tell
from tasks.exam.asking.engine_process import run_engine
from tasks.exam.asking.model_address import model_address
from tasks.exam.asking.questions import EngineJob, Failures, Patience, items_to_ask, make_job
from tasks.exam.bank.records import UNSEALED, Exam, ExamRun, Response, RunSettings
from tasks.exam.page.store import ENTRY
from tasks.exam.runs.journal import RawReply, ReplyKey, read_replies
from tasks.exam.runs.run_files import RUN, load_run, write_run
from tasks.foreign.files import read_ordinary
from tasks.store.files import write_private
from tasks.store.objects import to_json
from tasks.store.records.record import Record

#: A child whose parent was killed ends within this time, and frees the folder.
_LOCK_WAIT_S = 15.0
_POLL_S = 0.2
#: How long answers wait for the rest of their run, and a finished run for its report, unless its folder is named: what
#: is called by the same name may be another model by then.
_FRESH, _FRESH_REPORT = timedelta(days=7), timedelta(days=1)


class Started(Record):
    """`asking.json`: what the answers in this folder answer."""

    settings: RunSettings
    started_at: datetime
    address: str | None = Field(default=None, description="of the model's host; null in a file of an earlier version")


class Unfinished(Record):
    """A run that is not finished: without some answers, or (`finished_at`) without its report."""

    folder: Path
    started_at: datetime
    finished_at: datetime | None
    answers: int
    why_left: str = Field(description="why it does not go on by itself; empty where it does")

    @property
    def words(self) -> str:
        """Since when, and with how much."""
        if self.finished_at is not None:
            return f"finished on {self.finished_at:%Y-%m-%d %H:%M} UTC without a report"
        return f"begun on {self.started_at:%Y-%m-%d %H:%M} UTC, {self.answers} answers are kept"


def ask(
    exam: Exam,
    images: Path,
    settings: RunSettings,
    folder: Path,
    *,
    max_connections: int = 10,
    leave: Collection[str] = (),
    progress: AskingProgress | None = None,
    tell: Tell | None = None,
    patience: Patience | None = None,
) -> ExamRun:
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


def _answers(
    folder: Path, job: EngineJob, lock: int, progress: AskingProgress | None, tell: Tell | None
) -> Mapping[ReplyKey, RawReply]:
    """All answers, of this process of the engine and of those before it.

    Raises:
        ExamError: some are missing.
    """
    path, failures = folder / "answers.jsonl", folder / "failures.json"
    failures.unlink(missing_ok=True)
    wanted = {(question.item, epoch) for question in job.questions for epoch in range(1, job.settings.epochs + 1)}
    status, total = 0, len(wanted)
    if not wanted <= read_replies(path).keys():
        status = run_engine(folder, job, lock, total, progress, tell)
    answers = read_replies(path)
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
    path, address = folder / "asking.json", model_address(settings.model)
    if not path.exists():
        started = Started(settings=settings, started_at=datetime.now(UTC), address=address)
        write_private(path, to_json(started))
        return started
    try:
        started = Started.model_validate_json(path.read_bytes())
    except ValidationError:
        raise RunIncomplete(f"{path} is damaged: remove the run's folder and ask again") from None
    _same(folder, started.settings, settings)
    if started.address not in (None, address):
        raise ConfigError(
            f"{folder} holds answers of {started.address}, and the environment names {address}: choose a new folder"
        )
    return started


def _finished(folder: Path, settings: RunSettings) -> ExamRun:
    run, _ = load_run(folder)
    _same(folder, run.settings, settings)
    return run


def _same(folder: Path, there: RunSettings, asked: RunSettings) -> None:
    if differing := _differing(there, asked):
        raise ConfigError(f"{folder} holds a run with other {', '.join(differing)}: choose a new folder")


def _differing(there: RunSettings, asked: RunSettings) -> list[str]:
    return [name for name in RunSettings.model_fields if getattr(there, name) != getattr(asked, name)]


def _write(folder: Path, started: Started, responses: Sequence[Response], left: tuple[str, ...]) -> ExamRun:
    run = ExamRun(
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


def find_unfinished(beside: Path, settings: RunSettings) -> tuple[Unfinished | None, list[Unfinished]]:
    """The newest run in `beside` that asks `settings` of this host and may go on, and those that are left.

    A run without a report is unfinished too: it is then scored and reported, and asks nothing. What is old is left: a
    week where answers are missing, a day where only the report is.

    Raises:
        ConfigError: the environment's address of the model is none.
    """
    others: list[Unfinished] = []
    for path in sorted(beside.glob("*/"), reverse=True):
        there = _unfinished(path, settings)
        if there is not None and not there.why_left:
            return there, others
        others += [there] if there is not None else []
    return None, others


def _unfinished(folder: Path, settings: RunSettings) -> Unfinished | None:
    address, now = model_address(settings.model), datetime.now(UTC)
    finished_at, there = None, address
    try:
        if (folder / RUN).exists():
            if (folder / ENTRY).exists():
                return None
            run, responses = load_run(folder)
            asked, started_at, answers, finished_at = run.settings, run.started_at, len(responses), run.finished_at
        else:
            started = Started.model_validate_json(read_ordinary(folder / "asking.json"))
            asked, started_at, there = started.settings, started.started_at, started.address or address
            answers = len(read_replies(folder / "answers.jsonl"))
    except (OSError, ValidationError, PharmafedError):
        return None  # no run, or a damaged one: whoever names its folder is told
    old = now - started_at > _FRESH if finished_at is None else now - finished_at > _FRESH_REPORT
    return Unfinished(
        folder=folder,
        started_at=started_at,
        finished_at=finished_at,
        answers=answers,
        why_left=_why_left(_differing(asked, settings) + (["host"] if there != address else []), old=old),
    )


def _why_left(differing: Sequence[str], *, old: bool) -> str:
    if differing:
        return f"asks with other {', '.join(differing)}"
    return "is too old to go on by itself; `--out` with its folder goes on with it" if old else ""


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
