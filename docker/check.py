"""Whether docker/airflow.env says what tasks/deploy/airflow.py says. Exit code 1 and one line per difference if not.

The second is the source: `pharmafed up` uses it as it stands. What must differ between one machine and several
containers is listed here.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tasks.deploy import airflow
from tasks.deploy.ports import Ports

HOME, PROJECT = Path("/var/lib/pharmafed"), Path("/opt/pharmafed")
#: Held as secrets, so compose.yaml names a file for each.
SECRET = {
    "AIRFLOW__CORE__FERNET_KEY",
    "AIRFLOW__API__SECRET_KEY",
    "AIRFLOW__API_AUTH__JWT_SECRET",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
}
#: Addresses of other containers, a writable copy of the passwords, and the executor that hands tasks to the sites.
DIFFERENT = {
    "PYTHONPATH",
    "NO_PROXY",
    "no_proxy",
    "AIRFLOW__CORE__EXECUTOR",
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE",
    "AIRFLOW__API__HOST",
    "AIRFLOW__API__BASE_URL",
}
ONLY_HERE = {
    "PHARMAFED_SITE_EXECUTOR",
    "AIRFLOW__EDGE__API_ENABLED",
    "AIRFLOW__EDGE__API_URL",
    "AIRFLOW__EDGE__JOB_POLL_INTERVAL",
    "AIRFLOW__EDGE__HEARTBEAT_INTERVAL",
    "AIRFLOW__LOGGING__BASE_LOG_FOLDER",
}


def wanted() -> dict[str, str]:
    """The local deployment's settings, with the containers' paths."""
    with tempfile.TemporaryDirectory() as scratch:
        environ = airflow.environment(Path(scratch), Ports(), PROJECT, PROJECT / "dags", {})
        return {key: value.replace(scratch, str(HOME)) for key, value in environ.items() if key not in SECRET}


def read(path: Path) -> dict[str, str]:
    """The settings of an env file."""
    lines = (line for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """One line per setting that is missing, unknown or another."""
    missing = [f"{key} is missing: {value}" for key, value in expected.items() if key not in found]
    unknown = [f"{key} is not set by `pharmafed up`" for key in found.keys() - expected.keys() - ONLY_HERE]
    other = [
        f"{key}={found[key]}, but `pharmafed up` sets {value}"
        for key, value in expected.items()
        if key in found and found[key] != value and key not in DIFFERENT
    ]
    return sorted(missing + unknown + other)


def main() -> int:
    """Compare and print."""
    lines = differences(read(Path(__file__).with_name("airflow.env")), wanted())
    print("\n".join(f"docker/airflow.env: {line}" for line in lines) or "docker/airflow.env agrees with tasks/deploy")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
