"""The supervisor with small services instead of Airflow: one that behaves, one that hides and ignores SIGTERM."""

import io
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import psutil
import pytest
from rich.console import Console

from tasks.deploy import local, overview, processes
from tasks.deploy.ports import Ports
from tasks.deploy.services import Spec, marked, write_spec
from tasks.deploy.state import SUPERVISOR, living_supervisor, log_file, read_state, state_file
from tasks.deploy.supervisor import MAX_FAILURES, Runner, restart_delay
from tasks.errors import ConfigError
from tasks.store.files import private_folder
from tasks.store.settings import PROJECT

SERVICES = """
import os, signal, sys, time
from tasks.store import disk, settings
from tasks.deploy import supervisor, watchdog
from tasks.deploy.services import Service, marked

STUBBORN = '''
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()          # its own session and group ...
    if os.fork() == 0:   # ... and, once its parent is gone, an orphan
        time.sleep(600)
    os._exit(0)
time.sleep(600)
'''

def services(spec, inherited):
    def service(name, code):
        argv = [sys.executable, "-c", code]
        return Service(name, argv, marked(inherited, spec.home, name), spec.home, 1, 0.5)
    late = f"import os, time; time.sleep(600 if os.path.exists({str(spec.home / 'room')!r}) else 0)"
    return [service("good", "import time; time.sleep(600)"), service("stubborn", STUBBORN), service("late", late),
            service("parent", "import os, time; os.fork(); time.sleep(600)"),
            service("broken", "raise SystemExit('no such port')")]

def silent(ports, started):
    return {name for name in started if (settings.home() / f"{name}.silent").exists()}

supervisor.services, supervisor.health.silent = services, silent
supervisor.restart_delay = lambda failures: 0.05
supervisor.RETRY_FAILED_S = 3.0
watchdog.CHECK_EVERY_S, watchdog.STUCK_S, watchdog.START_S = 0.2, 1.0, 1.0
disk.is_full = lambda home, was_full: False
sys.exit(supervisor.main())
"""


def until(condition, timeout=20.0):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout} s")


@contextmanager
def supervised(home):
    """A home whose supervisor runs, with all of its processes there."""
    write_spec(Spec(home=home, project=PROJECT, dags_folder=home, ports=Ports()))
    log = private_folder(home / "logs") / "supervisor.log"
    paths = {"PHARMAFED_HOME": str(home), "PYTHONPATH": str(PROJECT)}
    environ = marked({**os.environ, **paths}, home, SUPERVISOR)
    with log.open("ab") as output:
        supervisor = subprocess.Popen(
            [sys.executable, "-c", SERVICES], env=environ, start_new_session=True, stdout=output, stderr=output
        )
    until(lambda: read_state(home) and len(processes.family(home, "stubborn")) == 2)
    yield home
    local.down(home)
    supervisor.wait(timeout=10)


@pytest.fixture
def home(tmp_path):
    with supervised(tmp_path) as home:
        yield home


def fill(home):
    """Take all that is left of the disk."""
    with (home / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while filler.write(b"x" * 512):
            pass


def view(home, service):
    """The service as `status` shows it."""
    return next(view for view in overview.status(home).services if view.name == service)


def phase(home, service):
    return read_state(home).services[service].phase


def test_a_killed_service_comes_back(home):
    before = read_state(home).services["good"]
    os.kill(before.pid, signal.SIGKILL)
    after = until(lambda: (s := read_state(home).services["good"]).restarts == 1 and s)
    assert after.exit_code == -signal.SIGKILL
    assert after.pid != before.pid
    assert psutil.pid_exists(after.pid)


def test_what_a_dead_service_left_is_removed_before_its_restart(home):
    old = processes.family(home, "stubborn")
    os.kill(read_state(home).services["stubborn"].pid, signal.SIGKILL)
    until(lambda: read_state(home).services["stubborn"].restarts == 1)
    assert processes.wait(old, timeout=5) == []


def test_a_service_that_keeps_failing_is_given_up_and_the_others_go_on(home):
    until(lambda: phase(home, "broken") == "failed")
    broken = read_state(home).services["broken"]
    assert (broken.restarts, broken.exit_code, broken.pid) == (MAX_FAILURES - 1, 1, None)
    assert log_file(home, "broken").read_text().count("no such port") == MAX_FAILURES
    assert phase(home, "good") == phase(home, "stubborn") == "running"


def test_down_leaves_no_process_however_stubborn(home):
    everything = processes.family(home)
    assert len(everything) >= 4
    assert local.down(home) >= 4
    assert processes.family(home) == []
    assert processes.wait(everything, timeout=0) == []
    assert read_state(home) is None


def test_down_finds_everything_after_the_supervisor_was_killed(home):
    living_supervisor(home).kill()
    until(lambda: living_supervisor(home) is None)
    found = overview.status(home)
    assert (found.supervised, found.well, found.running >= 3) == (False, False, True)
    assert (view(home, "good").process, view(home, "good").pid) == ("running", read_state(home).services["good"].pid)
    assert local.down(home) >= 3
    assert processes.family(home) == []


def test_a_second_supervisor_steps_back(home):
    environ = {**os.environ, "PHARMAFED_HOME": str(home), "PYTHONPATH": str(PROJECT)}
    second = subprocess.run(
        [sys.executable, "-m", "tasks.deploy.supervisor"], env=environ, capture_output=True, text=True
    )
    assert second.returncode == 1
    assert f"another supervisor already runs {home}" in second.stdout
    assert phase(home, "good") == "running"


def test_down_without_a_deployment_does_nothing(tmp_path):
    assert local.down(tmp_path) == 0


def test_the_wait_between_restarts_doubles():
    assert [restart_delay(n) for n in (1, 2, 3, 4)] == [1, 2, 4, 8]


def test_old_failures_are_forgiven(tmp_path):
    runner = Runner(None, tmp_path)
    for hour in range(2 * MAX_FAILURES):
        runner.ended(1, hour * 3600.0)
        assert runner.phase == "restarting"
    for second in range(MAX_FAILURES):
        runner.ended(1, 1e6 + second)
    assert runner.phase == "failed"


def test_a_service_that_was_given_up_comes_back_once_it_can(home):
    until(lambda: phase(home, "late") == "failed")
    (home / "room").touch()
    state = until(lambda: (s := read_state(home).services["late"]).phase == "running" and s)
    assert (state.restarts, psutil.pid_exists(state.pid)) == (MAX_FAILURES, True)


def test_a_service_that_runs_and_does_not_work_is_started_again(home):
    before = read_state(home).services["stubborn"].pid
    (home / "stubborn.silent").touch()
    until(lambda: read_state(home).services["stubborn"].restarts == 1)
    (home / "stubborn.silent").unlink()
    assert not psutil.pid_exists(before)
    assert read_state(home).services["good"].restarts == 0
    assert "stubborn runs and does not work" in log_file(home, "supervisor").read_text()


def restarts_while_nothing_can_be_written(home, full, room):
    """Kill a service while `full` holds: it is started again, `status` shows it, and after `room` the state says so."""
    before = read_state(home).services["good"].pid
    full()
    os.kill(before, signal.SIGKILL)
    after = until(lambda: (v := view(home, "good")).pid not in (None, before) and v)
    assert after.process == "running"
    time.sleep(2)  # two more attempts to write the state
    assert read_state(home).services["good"].pid == before
    assert overview.status(home).supervised
    assert list((home / "run").glob(".state.json.*")) == []
    room()
    written = until(lambda: (s := read_state(home).services["good"]).restarts == 1 and s)
    assert written.pid == after.pid


@pytest.mark.parametrize("small_disk", ["size=1m"], indirect=True)
def test_a_full_disk_ends_neither_supervisor_nor_restarts(small_disk):
    with supervised(small_disk / "home") as home:
        until(lambda: phase(home, "broken") == "failed")
        restarts_while_nothing_can_be_written(home, lambda: fill(home), (home / "filler").unlink)
        os.kill(read_state(home).services["good"].pid, signal.SIGKILL)  # what is told of it comes after what waited
        until(lambda: "the state cannot be written now: No space left" in log_file(home, "supervisor").read_text())


@pytest.mark.parametrize("small_disk", ["size=1m"], indirect=True)
def test_down_and_up_on_a_full_disk(small_disk):
    with supervised(small_disk / "home") as home:
        fill(home)
        assert local.down(home) >= 4
        assert (processes.family(home), overview.status(home).running) == ([], 0)
        with pytest.raises(ConfigError, match=rf"only .* are free under {home}; 2\.0 GB"):
            local.up(home, PROJECT, {}, auto_ports=True, console=Console(file=(said := io.StringIO()), width=500))
        assert "! little room on the disk: only 0 MB of 1 MB" in said.getvalue()
        assert processes.family(home) == []


def test_a_disk_that_takes_nothing_ends_neither_supervisor_nor_restarts(home):
    """The same on every machine: the supervisor may write nothing to any file."""
    pid, hard = living_supervisor(home).pid, resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    restarts_while_nothing_can_be_written(
        home,
        lambda: resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard)),
        lambda: resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard)),
    )


def test_a_service_that_cannot_be_started_now_is_tried_again(home):
    """Its log cannot be opened: what stands for a folder that is gone, no memory, no more processes."""
    log = log_file(home, "good")
    log.unlink()
    log.mkdir()
    os.kill(read_state(home).services["good"].pid, signal.SIGKILL)
    until(lambda: phase(home, "good") in ("restarting", "failed"))
    until(lambda: "good cannot be started now: Is a directory" in log_file(home, "supervisor").read_text())
    log.rmdir()
    until(lambda: phase(home, "good") == "running")
    assert living_supervisor(home) is not None


@pytest.mark.parametrize("content", [None, "", "{", '{"supervisor_pid": 1}'])
def test_a_state_that_is_gone_or_broken_hides_nothing_that_runs(home, content):
    """The supervisor is held up, so that it does not write its state anew at the next event."""
    good = read_state(home).services["good"].pid
    supervisor = living_supervisor(home)
    supervisor.suspend()
    try:
        state_file(home).unlink() if content is None else state_file(home).write_text(content)
        assert read_state(home) is None
        assert living_supervisor(home) == supervisor
        assert supervisor.environ()[processes.SERVICE] == SUPERVISOR
        found = overview.status(home)
        assert (found.supervised, found.running >= 4) == (True, True)
        assert good in [process.pid for process in processes.by_service(home)["good"]]
    finally:
        supervisor.resume()
    assert local.down(home) >= 4
    assert (processes.family(home), overview.status(home).running) == ([], 0)


def test_an_old_state_of_a_supervisor_that_is_gone_is_not_believed(home):
    living_supervisor(home).kill()
    until(lambda: living_supervisor(home) is None)
    stubborn = read_state(home).services["stubborn"].pid
    for pid in (read_state(home).services["good"].pid, stubborn):
        os.kill(pid, signal.SIGKILL)
    until(lambda: view(home, "good").process == "not running")
    assert (view(home, "stubborn").process, view(home, "stubborn").pid) == ("left over", None)
    overview.require_running(home)
    local.down(home)
    with pytest.raises(ConfigError, match=r"nothing runs in .*: run `pharmafed up`"):
        overview.require_running(home)


def test_what_a_dead_service_has_left_is_not_taken_for_the_service(home):
    """The supervisor is held up, so that it neither notes the death nor removes what is left."""
    supervisor = living_supervisor(home)
    until(lambda: len(processes.by_service(home).get("parent", [])) > 1)
    main = read_state(home).services["parent"].pid
    supervisor.suspend()
    try:
        os.kill(main, signal.SIGKILL)
        until(lambda: view(home, "parent").process == "left over")
        assert (view(home, "parent").pid, overview.status(home).supervised) == (None, True)
    finally:
        supervisor.resume()
    until(lambda: view(home, "parent").process == "running")
    assert view(home, "parent").pid not in (None, main)


def test_two_homes_do_not_see_each_other(home, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    assert processes.family(other) == []
    assert processes.marker(other) != processes.marker(home)
