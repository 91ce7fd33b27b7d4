"""The engine's process as seen from outside: started, watched, told about, and ended with whoever started it."""

from __future__ import annotations

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
from pathlib import Path
from types import FrameType

from tasks.errors import RunIncomplete
from tasks.exam.asking.questions import WAITING, EngineJob, Waiting
from tasks.exam.asking.redaction import redact
from tasks.exam.runs.journal import ReplyCount
from tasks.store.files import write_private
from tasks.store.kernels import COMMON
from tasks.store.settings import PROJECT

AskingProgress = Callable[[int, int], None]
Tell = Callable[[str], None]
_POLL_S = 0.2
#: Between two lines that tell of calls that are tried again.
_TELL_EVERY_S = 15.0
#: Without an answer, before that is told.
_QUIET_S = 30.0


def run_engine(
    folder: Path, job: EngineJob, lock: int, total: int, progress: AskingProgress | None, tell: Tell | None
) -> int:
    """Exit status of the engine's process. It ends with this one: its standard input is the leash.

    Raises:
        RunIncomplete: this process was told to stop: SIGTERM, or Ctrl-C.
    """
    show = _Shown(ReplyCount(folder / "answers.jsonl"), total, progress)
    (folder / WAITING).unlink(missing_ok=True)
    waits = _Waits(folder / WAITING, job, tell or _nobody)
    process = _start(folder, lock)
    assert process.stdin is not None
    try:
        process.stdin.write(job.model_dump_json().encode() + b"\n")
        process.stdin.flush()
        with _told_to_stop() as told:
            while process.poll() is None:
                if told.stop:
                    raise _stopped("SIGTERM", job, show, total)
                show()
                waits(show.count())
                time.sleep(_POLL_S)
            if told.stop or process.returncode == -signal.SIGTERM:  # it may reach the whole group
                raise _stopped("SIGTERM", job, show, total)
    except KeyboardInterrupt:
        raise _stopped("Ctrl-C", job, show, total) from None
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


def _nobody(line: str) -> None:
    """Is told, where nobody waits."""


def _start(folder: Path, lock: int) -> subprocess.Popen[bytes]:
    with os.fdopen(os.open(folder / "engine.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tasks.exam.asking.engine"],
            cwd=folder,
            env=_environment(folder),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(lock,),
        )


def _stopped(by: str, job: EngineJob, show: _Shown, total: int) -> RunIncomplete:
    return RunIncomplete(
        f"the run was stopped ({by}) while {job.settings.model} was asked. {show.count()} of {total} answers are kept: "
        "run it again and only the rest is asked"
    )


def _tidy(folder: Path) -> None:
    """Away with inspect's traces, and with keys in what the engine's libraries have logged."""
    shutil.rmtree(folder / "engine" / "inspect_ai", ignore_errors=True)
    (folder / WAITING).unlink(missing_ok=True)
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

    def __init__(self, count: ReplyCount, total: int, progress: AskingProgress | None) -> None:
        self.count, self._total, self._progress = count, total, progress
        self._last = -1

    def __call__(self) -> None:
        done = self.count()
        if self._progress is not None and done > self._last:
            self._progress(done, self._total)
        self._last = done


class _Waits:
    """Tells why one waits: of a call that failed and is tried again at once, of more every quarter of a minute.

    Providers' own libraries try a call again without a word; of them, that no answer comes.
    """

    def __init__(self, path: Path, job: EngineJob, tell: Tell) -> None:
        self._path, self._job, self._tell = path, job, tell
        self._failed, self._done, self._told_at = 0, 0, -_TELL_EVERY_S
        self._answered_at = time.monotonic()

    def __call__(self, done: int) -> None:
        """Look whether there is something to tell, with `done` answers so far."""
        now = time.monotonic()
        if done > self._done:
            self._done, self._answered_at = done, now
        if now - self._told_at < _TELL_EVERY_S:
            return
        lines = self._path.read_bytes().split(b"\n")[:-1] if self._path.exists() else []
        quiet = now - max(self._answered_at, self._told_at)
        if len(lines) > self._failed:
            self._tell(self._failing(lines))
        elif quiet >= _QUIET_S:
            self._tell(
                f"no answer from {self._job.settings.model} for {now - self._answered_at:.0f} s; {done} are kept"
            )
        else:
            return
        self._failed, self._told_at = len(lines), now

    def _failing(self, lines: Sequence[bytes]) -> str:
        last, tries = Waiting.model_validate_json(lines[-1]), self._job.patience.max_retries + 1
        return (
            f"no answer from {last.address or self._job.settings.model} ({last.message}): failed calls so far: "
            f"{len(lines)}; each is tried {tries} times, with longer and longer waits; {self._done} answers are kept"
        )


def _environment(folder: Path) -> dict[str, str]:
    """The engine traces nothing, and that in the run's folder, not in the user's home.

    A language model on this processor answers as on any other: a new machine is no drift (see `tasks.store.kernels`).
    """
    path = os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))
    data = str(folder.resolve() / "engine")
    return {
        **os.environ,
        **COMMON,
        "PYTHONPATH": path,
        "XDG_DATA_HOME": data,
        "INSPECT_TRACE_LEVEL": "CRITICAL",
        "TQDM_DISABLE": "1",
    }
