import os
import re
import socket
import subprocess
import sys
import tempfile
from datetime import UTC, datetime

import pytest

from tasks.deploy import preflight
from tasks.deploy.ports import choose_ports
from tasks.deploy.secret_files import write_secret
from tasks.deploy.services import marked
from tasks.errors import ConfigError
from tasks.store import disk


@pytest.fixture
def ports():
    return choose_ports(auto=True, environ={})


def test_nothing_is_wrong_with_a_fresh_home(tmp_path, ports):
    assert list(preflight.find_problems(tmp_path / "new", ports)) == []


def test_a_held_port_is_named_with_its_process_and_the_remedy(tmp_path, ports):
    with socket.socket() as server:
        server.bind(("127.0.0.1", ports.airflow))
        server.listen()
        with pytest.raises(ConfigError) as caught:
            preflight.require_ready(tmp_path, ports)
    message = str(caught.value)
    assert f"port {ports.airflow} (airflow) is held by" in message
    assert f"pid {os.getpid()}" in message
    assert "PHARMAFED_PORT_AIRFLOW" in message
    assert message.count("→") == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_secret_that_others_may_read_is_named(tmp_path, mode):
    secret = tmp_path / "secrets" / "s3" / "hub.json"
    write_secret(secret, "{}")
    assert list(preflight.secret_problems(tmp_path)) == []
    secret.chmod(mode)
    [problem] = preflight.secret_problems(tmp_path)
    assert str(secret) in problem.what
    assert problem.remedy == f"run `chmod -R go= {tmp_path / 'secrets'}`"


def test_an_open_folder_of_secrets_is_named(tmp_path):
    write_secret(tmp_path / "secrets" / "ui.json", "{}")
    (tmp_path / "secrets").chmod(0o755)
    assert [str(tmp_path / "secrets") in p.what for p in preflight.secret_problems(tmp_path)] == [True]


def test_the_remedy_for_open_secrets_works(tmp_path):
    secret = tmp_path / "secrets" / "ui.json"
    write_secret(secret, "{}")
    secret.chmod(0o666)
    [problem] = preflight.secret_problems(tmp_path)
    subprocess.run(problem.remedy.split("`")[1], shell=True, check=True)
    assert list(preflight.secret_problems(tmp_path)) == []


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "HOME", disk.Limits(10**18, 10**18, 10**18))
    [problem] = preflight.disk_problems(tmp_path / "home")
    assert re.search(r"only .* GB of .* GB are free under .*/home; 1000000000\.0 GB.* are needed", problem.what)
    assert "PHARMAFED_HOME" in problem.remedy


def test_a_full_folder_for_scratch_files_is_named_too(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "SCRATCH", disk.Limits(10**18, 10**18, 10**18))
    [problem] = preflight.disk_problems(tmp_path)
    assert tempfile.gettempdir() in problem.what
    assert "TMPDIR" in problem.remedy


def test_a_home_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    [problem] = preflight.home_problems(tmp_path / "file" / "home")
    assert "is a file" in problem.what


def test_a_home_that_may_not_be_written_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight.os, "access", lambda path, mode: False)
    [problem] = preflight.home_problems(tmp_path)
    assert "not writable" in problem.what


@pytest.mark.parametrize("year", [1970, 2024, 2150])
def test_an_impossible_year_is_named(year):
    [problem] = preflight.clock_problems(datetime(year, 6, 1, tzinfo=UTC))
    assert str(year) in problem.what


def test_the_present_clock_passes():
    assert list(preflight.clock_problems()) == []


@pytest.mark.parametrize(("skew", "refused"), [(0, False), (299, False), (-301, True), (3600, True)])
def test_clocks_that_differ_are_refused(monkeypatch, skew, refused):
    monkeypatch.setattr(preflight, "clock_skew", lambda endpoint: float(skew))
    if refused:
        with pytest.raises(ConfigError, match="NTP"):
            preflight.require_same_time("http://store")
    else:
        preflight.require_same_time("http://store")


def test_leftovers_of_an_earlier_start_are_named_alone(tmp_path, ports):
    left = subprocess.Popen([sys.executable, "-c", "input()"], env=marked(os.environ, tmp_path, "scheduler"), stdin=-1)
    try:
        problems = list(preflight.find_problems(tmp_path, ports))
    finally:
        left.kill()
        left.communicate()
    assert len(problems) == 1
    assert str(left.pid) in problems[0].what
    assert problems[0].remedy == "run `pharmafed down`"
