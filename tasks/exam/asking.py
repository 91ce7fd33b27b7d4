"""Ask a model an exam: `ask` begins a run in a folder, or goes on with the one that is there.

The engine (inspect-ai) runs in a process of its own, because it takes over the event loop, the working directory and
the log. While a run is on, its folder holds `asking.json` (what is asked, since when), `answers.jsonl` (answers so far)
and `engine.log`; when it is finished, `run.json` and `responses.jsonl`. A failed call leaves no run, but its answers.
`engine/` keeps inspect's own log, for `inspect view`, without its traces: they hold what providers echo.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import FrameType

from pydantic import ValidationError

from tasks import __version__
from tasks.errors import ConfigError, RunIncomplete
from tasks.exam import collect
from tasks.exam.journal import Answer, Count, Key, read_answers
from tasks.exam.questions import Failures, Job, Patience, items_to_ask, make_job
from tasks.exam.records import UNSEALED, Exam, Response, Run, RunSettings
from tasks.exam.redaction import redact
from tasks.exam.run_files import RUN, load_run, write_run
from tasks.files import write_private
from tasks.records import Record
from tasks.settings import PROJECT
from tasks.storage import to_json

Progress = Callable[[int, int], None]
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
    progress: Progress | None = None,
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
        progress: called with (answers so far, answers in all).
        patience: with a call that fails.

    Raises:
        ConfigError, DataError: settings, exam, prompt or pictures do not fit; nothing was sent.
        ModelRefused: wrong key, no such model, provider not installed.
        ModelUnavailable: no answer in spite of retries; worth a retry later.
        RunIncomplete: the engine ended, this process was told to (SIGTERM), or files in the folder are damaged.
    """
    job = make_job(exam, images, settings, max_connections, patience or Patience())
    with _alone(folder) as lock:
        if (folder / RUN).exists():
            return _finished(folder, settings)
        started = _start(folder, settings)
        total = len(job.questions) * settings.epochs
        answers = _answers(folder, job, lock, total, progress)
        responses = collect.responses(items_to_ask(exam, settings), settings, answers)
        run = _write(folder, started, responses)
        for leftover in ("asking.json", "answers.jsonl", "failures.json"):
            (folder / leftover).unlink(missing_ok=True)
        return run


def _answers(folder: Path, job: Job, lock: int, total: int, progress: Progress | None) -> dict[Key, Answer]:
    """All answers, of this process of the engine and of those before it.

    Raises:
        ExamError: some are missing.
    """
    path, failures = folder / "answers.jsonl", folder / "failures.json"
    failures.unlink(missing_ok=True)
    status = 0
    if len(read_answers(path)) < total:
        status = _run_engine(folder, job, lock, total, progress)
    answers = read_answers(path)
    if failures.exists():
        found = Failures.model_validate_json(failures.read_bytes()).failures
        raise collect.error_of(found, job.settings.model, len(answers), total)
    if status != 0 and len(answers) < total:
        raise RunIncomplete(
            f"the engine ended with status {status} and {len(answers)} of {total} answers of {job.settings.model}, "
            f"which are kept: see {folder / 'engine.log'}, check that the disk has room, and run it again"
        )
    return answers


def _run_engine(folder: Path, job: Job, lock: int, total: int, progress: Progress | None) -> int:
    """Exit status of the engine's process. It ends with this one: its standard input is the leash."""
    show = _Shown(Count(folder / "answers.jsonl"), total, progress)
    with os.fdopen(os.open(folder / "engine.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tasks.exam.engine"],
            cwd=folder,
            env=_environment(folder),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(lock,),
        )
    assert process.stdin is not None
    try:
        process.stdin.write(job.model_dump_json().encode() + b"\n")
        process.stdin.flush()
        with _told_to_stop() as told:
            while process.poll() is None:
                if told.stop:
                    raise RunIncomplete(
                        f"the run was stopped (SIGTERM) while {job.settings.model} was asked. {show.count()} of "
                        f"{total} answers are kept: run it again and only the rest is asked"
                    )
                show()
                time.sleep(_POLL_S)
    except BrokenPipeError:
        process.wait()
    finally:
        process.kill()
        process.wait()
        with suppress(BrokenPipeError):
            process.stdin.close()
        _tidy(folder)
    show()
    return process.returncode


def _tidy(folder: Path) -> None:
    """Away with inspect's traces, and with keys in what the engine's libraries have logged."""
    shutil.rmtree(folder / "engine" / "inspect_ai", ignore_errors=True)
    log = folder / "engine.log"
    said = log.read_text(encoding="utf-8", errors="replace")
    if redact(said) != said:
        write_private(log, redact(said).encode())


@dataclass
class _Told:
    stop: bool = False


@contextmanager
def _told_to_stop() -> Iterator[_Told]:
    """Notices SIGTERM, which Airflow sends to a task that is cleared, and hands it on. Only a main thread can."""
    told = _Told()
    if threading.current_thread() is not threading.main_thread():
        yield told
        return
    before = signal.getsignal(signal.SIGTERM)

    def notice(number: int, frame: FrameType | None) -> None:
        told.stop = True
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGTERM, notice)
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


class _Shown:
    """Calls `progress` when there are more answers than it was last told."""

    def __init__(self, count: Count, total: int, progress: Progress | None) -> None:
        self.count, self._total, self._progress = count, total, progress
        self._last = -1

    def __call__(self) -> None:
        done = self.count()
        if self._progress is not None and done > self._last:
            self._progress(done, self._total)
        self._last = done


def _environment(folder: Path) -> dict[str, str]:
    """The engine traces nothing, and that in the run's folder, not in the user's home."""
    path = os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))
    data = str(folder.resolve() / "engine")
    return {
        **os.environ,
        "PYTHONPATH": path,
        "XDG_DATA_HOME": data,
        "INSPECT_TRACE_LEVEL": "CRITICAL",
        "TQDM_DISABLE": "1",
    }


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
    differing = [name for name in RunSettings.model_fields if getattr(there, name) != getattr(asked, name)]
    if differing:
        raise ConfigError(f"{folder} holds a run with other {', '.join(differing)}: choose a new folder")


def _write(folder: Path, started: Started, responses: Sequence[Response]) -> Run:
    run = Run(
        id=folder.name,
        settings=started.settings,
        started_at=started.started_at,
        finished_at=datetime.now(UTC),
        num_asked=len({response.item for response in responses}),
        responses_sha256=UNSEALED,
        engine=f"inspect-ai {version('inspect-ai')}",
        code_version=__version__,
    )
    return write_run(folder, run, responses)


@contextmanager
def _alone(folder: Path) -> Iterator[int]:
    """Hold the folder's lock; the engine's process inherits it, so that a retry waits until it has ended, too."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RunIncomplete(f"another process is asking in {folder}: wait until it has finished") from None
                time.sleep(_POLL_S)
        yield descriptor
    finally:
        os.close(descriptor)
