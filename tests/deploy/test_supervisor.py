"""The supervisor with small services instead of Airflow: one that behaves, one that hides and ignores SIGTERM."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tasks.deploy import local, processes
from tasks.deploy.ports import Ports
from tasks.deploy.services import Spec, marked, write_spec
from tasks.deploy.state import SUPERVISOR, living_supervisor, log_file, read_state
from tasks.deploy.supervisor import MAX_FAILURES, Runner, restart_delay
from tasks.files import private_folder
from tasks.settings import PROJECT

SERVICES = """
import os, signal, sys, time
from tasks.deploy import supervisor
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
    return [service("good", "import time; time.sleep(600)"), service("stubborn", STUBBORN),
            service("broken", "raise SystemExit('no such port')")]

supervisor.services = services
supervisor.restart_delay = lambda failures: 0.05
sys.exit(supervisor.main())
"""


def until(condition, timeout=20.0):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout} s")


@pytest.fixture
def home(tmp_path):
    """A home whose supervisor runs, with all of its processes there."""
    write_spec(Spec(home=tmp_path, project=PROJECT, dags_folder=tmp_path, ports=Ports()))
    private_folder(tmp_path / "logs")
    paths = {"PHARMAFED_HOME": str(tmp_path), "PYTHONPATH": str(PROJECT)}
    environ = marked({**os.environ, **paths}, tmp_path, SUPERVISOR)
    supervisor = subprocess.Popen([sys.executable, "-c", SERVICES], env=environ, start_new_session=True)
    until(lambda: read_state(tmp_path) and len(processes.family(tmp_path, "stubborn")) == 2)
    yield tmp_path
    local.down(tmp_path)
    supervisor.wait(timeout=10)


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
    assert local.status(home).strays >= 3
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


def test_two_homes_do_not_see_each_other(home, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    assert processes.family(other) == []
    assert processes.marker(other) != processes.marker(home)
