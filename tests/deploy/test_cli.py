import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from tasks import cli
from tasks.errors import ConfigError


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
