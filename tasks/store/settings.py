"""Where this deployment lives: one directory, named by PHARMAFED_HOME, and nothing outside it.

deployment.json            addresses of the object store and of Airflow
secrets/s3/hub.json        {"access_key", "secret_key"} of the hub
secrets/s3/site-701.json   the same for a site: may read models, write only its own prefix
secrets/hub/               the hub's signing key and certificate
secrets/sites/701/         the site's signing key, certificate, sealing key, and the authority's certificate
secrets/ca/                the consortium's certificate authority
secrets/ui.json            {"username", "password"} of the web UI
sites/701/                 what a site keeps for itself: never uploaded
reports/                   copies of the reports
airflow/ seaweedfs/ logs/ run/
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tasks.errors import ConfigError

PROJECT = Path(__file__).resolve().parents[2]


class Addresses(BaseModel):
    """What `deployment.json` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    s3_endpoint: str
    bucket: str
    airflow_url: str


class S3Credential(BaseModel):
    """One identity of the object store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    access_key: str
    secret_key: str

    def __repr__(self) -> str:
        return f"S3Credential(access_key={self.access_key!r})"


def project_dir() -> Path:
    """The folder with `studies/`, `expectations/` and `data/`: PHARMAFED_PROJECT, or where the code lies."""
    return Path(os.environ.get("PHARMAFED_PROJECT", PROJECT)).resolve()


def home() -> Path:
    """The deployment's directory: PHARMAFED_HOME, or `.pharmafed` in the project."""
    return Path(os.environ.get("PHARMAFED_HOME", project_dir() / ".pharmafed")).resolve()


def is_deployed() -> bool:
    """Whether `pharmafed up` has made a deployment here, running or not."""
    return (home() / "deployment.json").exists()


def addresses() -> Addresses:
    """Read `deployment.json`.

    Raises:
        ConfigError: nothing is deployed under `home()`.
    """
    return _addresses(home() / "deployment.json")


@cache
def _addresses(path: Path) -> Addresses:
    try:
        return Addresses.model_validate_json(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"no deployment at {path.parent}: run `pharmafed up`, or set PHARMAFED_HOME") from None
    except ValueError:
        raise ConfigError(
            f"{path} is damaged: run `pharmafed down`, then `pharmafed up`, which writes it anew"
        ) from None


def hub_credential() -> S3Credential:
    return _credential("hub")


def site_credential(site: str) -> S3Credential:
    return _credential(f"site-{site}")


def _credential(identity: str) -> S3Credential:
    path = home() / "secrets" / "s3" / f"{identity}.json"
    try:
        return S3Credential.model_validate_json(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"no credential for {identity} at {path}: enrol the site, or run `pharmafed up`") from None
    except ValueError:
        raise ConfigError(
            f"the credential {path} is damaged: put it back from a copy, or remove it and run `pharmafed up`"
        ) from None


def hub_secrets() -> Path:
    """The key and certificate with which the hub signs plans and models' cards."""
    return home() / "secrets" / "hub"


def site_secrets(site: str) -> Path:
    return home() / "secrets" / "sites" / site


def site_work(site: str) -> Path:
    """The site's own scratch folder, created with rights for its owner only."""
    path = home() / "sites" / site
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path
