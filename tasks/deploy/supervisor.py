"""The background process that keeps a deployment's services running: `python -m tasks.deploy.supervisor`.

A service that dies is restarted after 1, 2, 4, ... seconds; after `MAX_FAILURES` deaths within `FAILURE_WINDOW_S`
it is marked `failed` and tried again every `RETRY_FAILED_S`. One that lives and does not work is killed and restarted,
see `watchdog`. On SIGTERM everything stops, whatever process group it hides in.

What the supervisor cannot do now, because the disk is full or the machine out of processes, it tries again: neither a
state nor a log that cannot be written, nor a service that cannot be started, ends it.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from pathlib import Path
from types import FrameType

from tasks.deploy import health, logs, processes
from tasks.deploy.services import Service, read_spec, services
from tasks.deploy.state import ServicePhase, ServiceState, State, log_file, run_folder, write_state
from tasks.deploy.watchdog import Watchdog
from tasks.store import disk, settings
from tasks.store.files import private_folder

MAX_FAILURES = 5
FAILURE_WINDOW_S = 300.0
RETRY_FAILED_S = 30.0
_WAKE_EVERY_S = 1.0


class Runner:
    """One service: its process, and when it has to be started again."""

    def __init__(self, service: Service, home: Path) -> None:
        self.service = service
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        self._failures: list[float] = []
        self._due: float | None = 0.0
        self._restarts = -1
        self._exit_code: int | None = None
        self._started_at = datetime.now(UTC)
        self.phase: ServicePhase = "restarting"

    @property
    def pid(self) -> int | None:
        """The running process's id."""
        return self._process.pid if self._process else None

    def start_if_due(self, now: float) -> bool:
        """Start the service when its time has come; `now` is monotonic, in seconds. Returns whether it did."""
        if self._due is None or now < self._due:
            return False
        self._due = None
        self._restarts += 1
        self._started_at = datetime.now(UTC)
        try:
            self._process = self._spawn()
        except OSError as error:  # no room for a log, no memory, no more processes
            _say(f"{self.service.name} cannot be started now: {error.strerror}")
            self._failed(now)
            return True
        self.phase = "running"
        return True

    def _spawn(self) -> subprocess.Popen[bytes]:
        with log_file(self._home, self.service.name).open("ab") as output:
            return subprocess.Popen(
                self.service.argv,
                env=self.service.environ,
                cwd=self.service.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ended(self, code: int, now: float) -> None:
        """Note that the process has ended and decide whether, and when, to start it again."""
        if self._process:
            self._process.returncode = code
        self._process, self._exit_code = None, code
        self._failed(now)

    def _failed(self, now: float) -> None:
        self._failures = [*(t for t in self._failures if now - t < FAILURE_WINDOW_S), now]
        if len(self._failures) >= MAX_FAILURES:
            self.phase, self._due = "failed", now + RETRY_FAILED_S
            return
        self.phase, self._due = "restarting", now + restart_delay(len(self._failures))

    def stopped(self) -> None:
        """Note that the service was stopped on purpose."""
        if self._process:
            self._process.returncode = 0
        self._process, self._due, self.phase = None, None, "stopped"

    def state(self) -> ServiceState:
        """What `run/state.json` says about this service."""
        return ServiceState(
            phase=self.phase,
            pid=self.pid,
            started_at=self._started_at,
            restarts=max(self._restarts, 0),
            exit_code=self._exit_code,
        )


def restart_delay(failures: int) -> float:
    """Seconds to wait before the start that follows the given number of recent failures, the last one included."""
    return float(2 ** (failures - 1))


class Supervisor:
    """Runs the services of one deployment until it is told to stop."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._spec = read_spec(home)
        inherited = {k: v for k, v in os.environ.items() if k not in (processes.MARKER, processes.SERVICE)}
        self._runners = [Runner(service, home) for service in services(self._spec, inherited)]
        self._started_at = datetime.now(UTC)
        self._stopping = False
        self._unwritten = False
        self._watchdog = Watchdog(self._silent, partial(disk.is_full, home))

    def run(self) -> None:
        """Start everything, restart what dies, and return once all of it has been stopped."""
        processes.become_subreaper()
        with _signals(self._on_stop) as wake:
            while not self._stopping:
                try:
                    self._step()
                except Exception:  # nobody would start anything again if this process ended
                    _say(traceback.format_exc())
                _wait(wake)
            self._stop_all()
        self._write()

    def _on_stop(self, signum: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _step(self) -> None:
        ended = processes.reap()
        now = time.monotonic()
        changed = [self._note_end(runner, ended, now) for runner in self._runners]
        changed += [self._start(runner, now) for runner in self._runners]
        if any(changed) or self._unwritten:
            self._unwritten = not self._write()
        self._restart_stuck(now)
        logs.keep_small(log_file(self._home, runner.service.name) for runner in self._runners)

    def _start(self, runner: Runner, now: float) -> bool:
        started = runner.start_if_due(now)
        if started:
            self._watchdog.started(runner.service.name, now)
        return started

    def _silent(self) -> set[str]:
        started = {runner.service.name: runner.state().started_at for runner in self._runners}
        return health.silent(self._spec.ports, started)

    def _restart_stuck(self, now: float) -> None:
        """Kill what lives and does not work; its end is then noted like any other."""
        running = [runner.service.name for runner in self._runners if runner.pid]
        for name in self._watchdog.stuck(running, now):
            _say(f"{name} runs and does not work, or did not on a full disk: it is started again")
            processes.send(processes.family(self._home, name), signal.SIGKILL)

    def _note_end(self, runner: Runner, ended: dict[int, int], now: float) -> bool:
        """Record a death. What the dead service had started goes too: a new one does not know it."""
        if runner.pid not in ended:
            return False
        code = ended[runner.pid]
        _say(f"{runner.service.name} ended with code {code}")
        processes.send(processes.family(self._home, runner.service.name), signal.SIGKILL)
        runner.ended(code, now)
        return True

    def _stop_all(self) -> None:
        in_order = sorted(self._runners, key=lambda runner: runner.service.stop_order)
        for _, group in groupby(in_order, key=lambda runner: runner.service.stop_order):
            self._stop(list(group))
        processes.stop(processes.family(self._home), grace=1.0)
        processes.reap()

    def _stop(self, runners: list[Runner]) -> None:
        members = [process for r in runners for process in processes.family(self._home, r.service.name)]
        processes.stop(members, grace=max(r.service.grace for r in runners))
        for runner in runners:
            runner.stopped()
            _say(f"{runner.service.name} stopped")

    def _state(self) -> State:
        by_name = {runner.service.name: runner.state() for runner in self._runners}
        return State(supervisor_pid=os.getpid(), started_at=self._started_at, ports=self._spec.ports, services=by_name)

    def _write(self) -> bool:
        """Write the state file; gives whether that worked."""
        try:
            write_state(self._home, self._state())
        except OSError as error:
            if not self._unwritten:  # told once, tried again every second
                _say(f"the state cannot be written now: {error.strerror}")
            return False
        return True


@contextmanager
def _signals(on_stop: signal.Handlers | object) -> Iterator[int]:
    """Route SIGTERM and SIGINT to `on_stop`; yields a descriptor that becomes readable at every signal."""
    readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, on_stop)  # type: ignore[arg-type]
    try:
        yield readable
    finally:
        signal.set_wakeup_fd(-1)


def _wait(wake: int) -> None:
    """Sleep until a signal arrives, at most `_WAKE_EVERY_S`."""
    if select.select([wake], [], [], _WAKE_EVERY_S)[0]:
        os.read(wake, 4096)


def _say(message: str) -> None:
    with suppress(OSError):  # what does not fit on the disk waits in the buffer
        print(f"{datetime.now(UTC).isoformat(timespec='seconds')} {message}", flush=True)


def main() -> int:
    """Run the supervisor of `settings.home()`; returns 1 when another one already does."""
    os.umask(0o077)
    home = settings.home()
    with (private_folder(run_folder(home)) / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"another supervisor already runs {home}")
            return 1
        Supervisor(home).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
