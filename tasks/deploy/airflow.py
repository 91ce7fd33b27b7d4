"""The environment of Airflow's processes: every setting that differs from Airflow's default, and why.

Nothing is written to `airflow.cfg`. `PHARMAFED_AIRFLOW__SECTION__KEY` overrides any setting;
mail, connections and variables of Airflow (AIRFLOW__SMTP__*, AIRFLOW_CONN_*, ...) pass through.
"""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from tasks.deploy.ports import LOOPBACK, Ports
from tasks.deploy.secret_files import open_private, read_or_create, write_secret
from tasks.deploy.state import log_file
from tasks.errors import ConfigError
from tasks.store.files import private_folder
from tasks.store.settings import PROJECT

UI_USER = "admin"
OVERRIDE = "PHARMAFED_AIRFLOW__"
_PASSED_THROUGH = ("AIRFLOW__SMTP__", "AIRFLOW__EMAIL__", "AIRFLOW_CONN_", "AIRFLOW_VAR_")
#: Name, slots, description.
POOLS = (("llm", "2", "language models that are asked at once"),)
_HEARTBEAT_TIMEOUT_S = 60
_QUEUED_TIMEOUT_S = 120

_LOCAL_SETTINGS = '''"""Written by `pharmafed up`: imports what tasks need once, in the process that forks them."""

import importlib
import importlib.util
import sys

PRELOADED = ["tasks.deploy.preload", "dags.preload"]

if {"scheduler", "edge"} & set(sys.argv):
    for module in PRELOADED:
        if importlib.util.find_spec(module) is not None:
            importlib.import_module(module)
'''


def folder(home: Path) -> Path:
    """AIRFLOW_HOME."""
    return home / "airflow"


def ui_file(home: Path) -> Path:
    """Where the web UI's user and password lie."""
    return home / "secrets" / "ui.json"


def ui_login(home: Path) -> dict[str, str]:
    """`username` and `password` of the web UI, made at first use and kept."""
    return read_or_create(ui_file(home), lambda: {"username": UI_USER, "password": secrets.token_urlsafe(18)})


def _password_file(home: Path) -> Path:
    return home / "secrets" / "ui_passwords.json"


def _keys(home: Path) -> dict[str, str]:
    return read_or_create(home / "secrets" / "airflow.json", _new_keys)


def _new_keys() -> dict[str, str]:
    fernet = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    return {"fernet_key": fernet, "jwt_secret": secrets.token_hex(32), "secret_key": secrets.token_hex(32)}


def prepare(home: Path) -> None:
    """Create Airflow's folder, its preload hook and its password file."""
    login = ui_login(home)
    write_secret(_password_file(home), json.dumps({login["username"]: login["password"]}) + "\n")
    write_secret(folder(home) / "config" / "airflow_local_settings.py", _LOCAL_SETTINGS)
    private_folder(home / "logs")


def environment(
    home: Path, ports: Ports, project: Path, dags_folder: Path, inherited: Mapping[str, str]
) -> dict[str, str]:
    """The complete environment of an Airflow process; of Airflow's own variables only some are inherited, see above."""
    settings = _core(home, dags_folder, project) | _api(home, ports) | _scheduling() | _workers() | _quiet()
    configured = {f"AIRFLOW__{key}": value for key, value in settings.items()}
    overrides = {key.removeprefix("PHARMAFED_"): value for key, value in inherited.items() if key.startswith(OVERRIDE)}
    return _inherited(inherited) | _surroundings(home, project) | configured | overrides


def _inherited(environ: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in environ.items() if not k.startswith("AIRFLOW") or k.startswith(_PASSED_THROUGH)}


def _surroundings(home: Path, project: Path) -> dict[str, str]:
    loopback = f"{LOOPBACK},localhost"
    return {
        "AIRFLOW_HOME": str(folder(home)),
        "PHARMAFED_HOME": str(home),
        "PHARMAFED_PROJECT": str(project),
        "PYTHONPATH": ":".join(dict.fromkeys([str(PROJECT), str(project)])),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",  # many tasks run side by side: one thread each
        "GX_ANALYTICS_ENABLED": "False",
        "NO_PROXY": loopback,
        "no_proxy": loopback,
    }


def _core(home: Path, dags_folder: Path, project: Path) -> dict[str, str]:
    keys = _keys(home)
    return {
        "CORE__DAGS_FOLDER": str(dags_folder),
        "CORE__PLUGINS_FOLDER": str(dags_folder / "plugins"),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": "16",
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__EXECUTE_TASKS_NEW_PYTHON_INTERPRETER": "False",  # tasks are forked, with the heavy modules loaded
        "CORE__HOSTNAME_CALLABLE": "socket.gethostname",  # the default asks DNS
        "CORE__FERNET_KEY": keys["fernet_key"],
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{ui_login(home)['username']}:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(_password_file(home)),
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder(home) / 'airflow.db'}",  # Airflow switches WAL on itself
        "API__SECRET_KEY": keys["secret_key"],
        "API_AUTH__JWT_SECRET": keys["jwt_secret"],
    }


def _api(home: Path, ports: Ports) -> dict[str, str]:
    return {
        "API__HOST": LOOPBACK,
        "API__PORT": str(ports.airflow),
        "API__BASE_URL": ports.airflow_url,
        "API__WORKERS": "2",
        "API__WORKER_TIMEOUT": "30",
        "API__EXPOSE_CONFIG": "False",
        "CORE__EXECUTION_API_SERVER_URL": f"{ports.airflow_url}/execution/",
    }


def _scheduling() -> dict[str, str]:
    """A dead worker or scheduler must show within a round's deadline of two minutes. Unit: seconds."""
    return {
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
        "SCHEDULER__MP_START_METHOD": "fork",
        "SCHEDULER__TASK_QUEUED_TIMEOUT": str(_QUEUED_TIMEOUT_S),
        "SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
        "SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES": "0",
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(_HEARTBEAT_TIMEOUT_S),
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "10",
        "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "30",  # how soon a restarted scheduler takes up a dead one's tasks
        "SCHEDULER__ENABLE_HEALTH_CHECK": "False",
        "DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
        "DAG_PROCESSOR__PRINT_STATS_INTERVAL": "300",
        "CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "5",
        "CORE__DAGBAG_IMPORT_TIMEOUT": "60",
    }


def _workers() -> dict[str, str]:
    """Patience with a busy machine. Unit: seconds."""
    return {"WORKERS__EXECUTION_API_TIMEOUT": "30"}


def _quiet() -> dict[str, str]:
    """Logs are for this user only and of bounded chatter; nothing is sent to anyone."""
    return {
        "LOGGING__LOGGING_LEVEL": "INFO",
        "LOGGING__UVICORN_LOGGING_LEVEL": "WARNING",
        "LOGGING__COLORED_CONSOLE_LOG": "False",
        "LOGGING__FILE_TASK_HANDLER_NEW_FOLDER_PERMISSIONS": "0o700",
        "LOGGING__FILE_TASK_HANDLER_NEW_FILE_PERMISSIONS": "0o600",
        "METRICS__STATSD_ON": "False",
        "METRICS__OTEL_ON": "False",
        "TRACES__OTEL_ON": "False",
        "USAGE_DATA_COLLECTION__ENABLED": "False",
    }


def needs_migration(home: Path) -> bool:
    """Whether the metadata database is missing, or was made by another version of Airflow or without our pools."""
    stamp = folder(home) / "migrated"
    return not stamp.exists() or stamp.read_text() != _stamp()


def migrate(home: Path, environ: Mapping[str, str]) -> None:
    """Bring the metadata database to this Airflow's schema, and make the pools that DAGs name.

    Raises:
        ConfigError: a command failed; the message holds the end of its log.
    """
    log = log_file(home, "migrate")
    log.unlink(missing_ok=True)
    for command in (("db", "migrate"), *(("pools", "set", *pool) for pool in POOLS)):
        with open_private(log) as output:
            done = subprocess.run(
                [sys.executable, "-m", "airflow", *command],
                env=dict(environ),
                cwd=folder(home),
                stdout=output,
                stderr=subprocess.STDOUT,
                umask=0o077,
                check=False,
            )
        if done.returncode:
            tail = "\n".join(log.read_text().splitlines()[-15:])
            name = " ".join(command[:2])
            raise ConfigError(f"`airflow {name}` failed with code {done.returncode}; full log: {log}\n{tail}")
    write_secret(folder(home) / "migrated", _stamp())


def _stamp() -> str:
    return f"{version('apache-airflow')} {json.dumps(POOLS)}\n"
