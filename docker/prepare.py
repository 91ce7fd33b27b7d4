"""Makes what a deployment in containers needs before its first start: keys, passwords, identities, certificates.

    python docker/prepare.py secrets docker/deployment    run once, and again after an upgrade; keys are kept
    python docker/prepare.py preload FILE                 while the image is built

The folder is closed to other users of this machine. Inside it everything is readable, because the containers' users
have other ids; each container is given only the files that compose.yaml names for it.
"""

from __future__ import annotations

import secrets
import sys
import tempfile
from pathlib import Path

from tasks.deploy import airflow, seaweedfs
from tasks.deploy.ports import Ports
from tasks.deploy.secret_files import write_secret
from tasks.store import settings
from tasks.store.identity import ensure_authority, ensure_hub_identity, ensure_site_identity
from tasks.study.file import load_studies

DATABASE = "postgresql+psycopg2://airflow:{password}@postgres:5432/airflow"
#: File -> the setting that `tasks.deploy.airflow` makes for it.
AIRFLOW_KEYS = {
    "fernet_key": "AIRFLOW__CORE__FERNET_KEY",
    "jwt_secret": "AIRFLOW__API_AUTH__JWT_SECRET",
    "api_secret_key": "AIRFLOW__API__SECRET_KEY",
}


def make_secrets(home: Path) -> None:
    """Everything under `home/secrets`, the store's own certificate included, and `home/seaweedfs/security.toml`."""
    project = settings.project_dir()
    sites_by_study = {name: list(study.sites) for name, study in load_studies(project / "studies").items()}
    airflow.prepare(home)
    environ = airflow.environment(home, Ports(), project, project / "dags", {})
    for name, setting in AIRFLOW_KEYS.items():
        write_secret(home / "secrets" / name, environ[setting])
    _make_database_password(home / "secrets")
    seaweedfs.prepare(home, sites_by_study)
    authority = ensure_authority(home / "secrets" / "ca")
    ensure_hub_identity(home / "secrets" / "hub", authority)
    for site in sorted(set().union(*sites_by_study.values())):
        ensure_site_identity(home / "secrets" / "sites" / site, site, authority)
    _open_inside(home)


def _make_database_password(folder: Path) -> None:
    if not (folder / "database_url").exists():
        password = secrets.token_hex(24)
        write_secret(folder / "postgres_password", password)
        write_secret(folder / "database_url", DATABASE.format(password=password))


def _open_inside(home: Path) -> None:
    home.chmod(0o700)
    for path in home.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def write_preload_hook(target: Path) -> None:
    """Airflow's hook that imports what tasks need once, in the process that forks them."""
    with tempfile.TemporaryDirectory() as scratch:
        airflow.prepare(Path(scratch))
        hook = airflow.folder(Path(scratch)) / "config" / "airflow_local_settings.py"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(hook.read_text())


def main(arguments: list[str]) -> int:
    """Run one of the two commands above."""
    commands = {"secrets": make_secrets, "preload": write_preload_hook}
    if len(arguments) != 2 or arguments[0] not in commands:
        print(__doc__, file=sys.stderr)
        return 2
    commands[arguments[0]](Path(arguments[1]).resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
