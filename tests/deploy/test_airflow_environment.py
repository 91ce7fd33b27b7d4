import json
import stat
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from tasks.deploy import airflow
from tasks.deploy.ports import Ports
from tasks.deploy.services import SERVICES, Spec, services
from tasks.store.settings import PROJECT


@pytest.fixture
def environ(tmp_path):
    return airflow.environment(tmp_path / "home", Ports(), tmp_path / "project", tmp_path / "dags", {"PATH": "/bin"})


def test_every_address_is_on_loopback(environ):
    urls = {key: value for key, value in environ.items() if value.startswith("http")}
    assert len(urls) == 2
    assert {urlsplit(url).hostname for url in urls.values()} == {"127.0.0.1"}
    hosts = {key: value for key, value in environ.items() if key.endswith("__HOST")}
    assert hosts == {"AIRFLOW__API__HOST": "127.0.0.1"}


def test_nothing_of_airflows_is_inherited_but_mail_and_connections(tmp_path):
    inherited = {
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__SMTP__SMTP_HOST": "mail",
        "AIRFLOW_CONN_HOOK": "https://hook",
        "AIRFLOW_CONFIG": "/etc/airflow.cfg",
        "PHARMAFED_WEBHOOK": "https://hook",
    }
    environ = airflow.environment(tmp_path, Ports(), tmp_path, tmp_path, inherited)
    assert environ["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert environ["AIRFLOW__SMTP__SMTP_HOST"] == "mail"
    assert environ["AIRFLOW_CONN_HOOK"] == environ["PHARMAFED_WEBHOOK"] == "https://hook"
    assert "AIRFLOW_CONFIG" not in environ


def test_any_setting_can_be_overridden(tmp_path):
    inherited = {"PHARMAFED_AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "7"}
    environ = airflow.environment(tmp_path, Ports(), tmp_path, tmp_path, inherited)
    assert environ["AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT"] == "7"


def test_keys_are_private_random_and_kept(tmp_path, environ):
    home = tmp_path / "home"
    again = airflow.environment(home, Ports(), tmp_path, tmp_path, {})
    names = ["AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API__SECRET_KEY", "AIRFLOW__API_AUTH__JWT_SECRET"]
    assert [environ[name] for name in names] == [again[name] for name in names]
    assert len({environ[name] for name in names}) == 3
    airflow.prepare(home)
    files = list((home / "secrets").iterdir())
    assert {f.name for f in files} == {"airflow.json", "ui.json", "ui_passwords.json"}
    assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}


def test_the_password_file_holds_the_one_user(tmp_path, environ):
    home = tmp_path / "home"
    airflow.prepare(home)
    login = airflow.ui_login(home)
    passwords = json.loads(Path(environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]).read_text())
    assert passwords == {"admin": login["password"]}
    assert environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS"] == "False"


def test_every_setting_is_known_to_airflow(environ):
    """A misspelt setting would be ignored in silence."""
    [package] = find_spec("airflow").submodule_search_locations
    described = yaml.safe_load((Path(package) / "config_templates" / "config.yml").read_text())
    known = {(section, key) for section, content in described.items() for key in content["options"]}
    known |= {("scheduler", "num_stuck_in_queued_retries"), ("scheduler", "mp_start_method")}  # read, not described
    known |= {("usage_data_collection", "enabled")}  # gone in 3.3; stays for older ones
    ours = {tuple(k.lower().removeprefix("airflow__").split("__")) for k in environ if k.startswith("AIRFLOW__")}
    assert len(ours) > 40
    assert ours - known == set()


@pytest.mark.parametrize(("argv", "preloads"), [("scheduler", True), ("edge", True), ("api-server", False)])
def test_only_processes_that_fork_tasks_preload(tmp_path, argv, preloads):
    airflow.prepare(tmp_path)
    (tmp_path / "tasks" / "deploy").mkdir(parents=True)
    (tmp_path / "dags").mkdir()
    for module in ("tasks/__init__", "tasks/deploy/__init__", "dags/__init__", "dags/preload"):
        (tmp_path / f"{module}.py").touch()
    (tmp_path / "tasks" / "deploy" / "preload.py").write_text("print('loaded')")
    script = tmp_path / "airflow" / "config" / "airflow_local_settings.py"
    environ = {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, script, argv], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ("loaded" if preloads else "")


def test_log_servers_are_off_and_every_service_is_marked(tmp_path):
    spec = Spec(home=tmp_path, project=tmp_path, dags_folder=tmp_path, ports=Ports())
    ours = {service.name: service for service in services(spec, {})}
    assert tuple(ours) == SERVICES
    assert all("--skip-serve-logs" in ours[name].argv for name in ("scheduler", "triggerer"))
    assert {s.environ["PHARMAFED_SERVICE"] for s in ours.values()} == set(SERVICES)
    assert {s.environ["SPT_NOENV"] for s in ours.values()} == {"1"}


def test_what_is_preloaded_starts_no_thread():
    """A fork has none of them, and may wait for ever for what they held."""
    code = "import threading, tasks.deploy.preload; print([thread.name for thread in threading.enumerate()])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert done.stdout.splitlines()[-1] == "['MainThread']"
