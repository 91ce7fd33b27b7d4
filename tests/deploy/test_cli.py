import errno
import json
import os
import re
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from tasks import cli
from tasks.deploy.ports import Ports
from tasks.deploy.secret_files import write_secret
from tasks.deploy.services import Spec, marked, write_spec
from tasks.errors import ConfigError
from tasks.store import disk


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PHARMAFED_HOME", str(tmp_path))
    return tmp_path


def test_an_error_is_a_panel_on_stderr_and_exit_code_2(home, monkeypatch):
    def fail(home):
        raise ConfigError("port 8080 is held by nginx")

    monkeypatch.setattr("tasks.deploy.local.down", fail)
    result = CliRunner().invoke(cli.app, ["down"])
    assert result.exit_code == 2
    assert "port 8080 is held by nginx" in result.stderr
    assert "ConfigError" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_other_errors_keep_their_traceback(home, monkeypatch):
    monkeypatch.setattr("tasks.deploy.local.down", lambda home: 1 / 0)
    assert isinstance(CliRunner().invoke(cli.app, ["down"]).exception, ZeroDivisionError)


def test_a_full_disk_is_one_sentence_and_other_errors_of_files_are_not(home, monkeypatch):
    def fail(number):
        def down(home):
            raise OSError(number, os.strerror(number), str(home / "run" / "spec.json"))

        monkeypatch.setattr("tasks.deploy.local.down", down)
        return CliRunner().invoke(cli.app, ["down"])

    for number in (errno.ENOSPC, errno.EDQUOT):
        result = fail(number)
        assert result.exit_code == 2
        assert "no room on the disk of" in result.stderr
        assert "run the command again" in " ".join(result.stderr.replace("│", "").split())
        assert "Traceback" not in result.stderr
    assert isinstance(fail(errno.EACCES).exception, PermissionError)


def test_processes_without_a_supervisor_are_shown_and_not_called_nothing(home):
    left = subprocess.Popen(
        [sys.executable, "-c", "input()"], env=marked(os.environ, home, "scheduler"), stdin=-1, start_new_session=True
    )
    try:
        result = CliRunner().invoke(cli.app, ["status"])
    finally:
        left.kill()
        left.communicate()
    assert result.exit_code == 1
    assert re.search(rf"scheduler\s+│ running\s+│ no\s+│ {left.pid}", result.stdout)
    assert re.search(r"seaweedfs\s+│ not running\s+│ no\s+│ -", result.stdout)
    assert "The supervisor does not run, 1 processes do" in result.stdout
    assert "Run `pharmafed down`, then `pharmafed up`" in result.stdout
    assert "Nothing runs" not in result.stdout


def test_status_warns_of_a_disk_that_fills(home, monkeypatch):
    monkeypatch.setattr(disk, "HOME", disk.Limits(0, 10**18, 10**18))
    left = subprocess.Popen([sys.executable, "-c", "input()"], env=marked(os.environ, home, "scheduler"), stdin=-1)
    try:
        result = CliRunner().invoke(cli.app, ["status"])
    finally:
        left.kill()
        left.communicate()
    assert re.search(
        rf"^! little room on the disk: only .* are free under {home}: free some space", result.stdout, re.M
    )


def test_ctrl_c_while_a_round_is_followed_is_no_error(home, monkeypatch):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    addresses = {"s3_endpoint": "http://127.0.0.1:9", "bucket": "b", "airflow_url": "http://127.0.0.1:9"}
    write_secret(home / "deployment.json", json.dumps(addresses))
    write_secret(home / "secrets" / "s3" / "hub.json", json.dumps({"access_key": "a", "secret_key": "b"}))
    monkeypatch.setattr("tasks.deploy.follow.run_rounds", interrupt)
    result = CliRunner().invoke(cli.app, ["round", "xanomeline_derm56"])
    assert (result.exit_code, result.stderr) == (130, "")


def test_a_round_where_nothing_runs_is_refused_at_once(home, monkeypatch):
    addresses = {"s3_endpoint": "http://127.0.0.1:9", "bucket": "b", "airflow_url": "http://127.0.0.1:9"}
    write_secret(home / "deployment.json", json.dumps(addresses))
    write_secret(home / "secrets" / "s3" / "hub.json", json.dumps({"access_key": "a", "secret_key": "b"}))
    write_spec(Spec(home=home, project=home, dags_folder=home, ports=Ports()))
    result = CliRunner().invoke(cli.app, ["round", "xanomeline_derm56"])
    assert result.exit_code == 2
    assert "nothing runs in" in result.stderr


def test_status_and_down_without_a_deployment(home):
    result = CliRunner().invoke(cli.app, ["status"])
    assert (result.exit_code, result.stdout) == (1, f"Nothing runs in {home}\n")
    result = CliRunner().invoke(cli.app, ["down"])
    assert (result.exit_code, result.stdout) == (0, "Nothing was running.\n")


def test_help_imports_nothing_heavy():
    heavy = "{'boto3', 'httpx', 'torch', 'pandas', 'airflow', 'great_expectations'}"
    code = f"import sys; from tasks import cli; print(sorted({heavy} & set(sys.modules)))"
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert time.monotonic() - started < 10
