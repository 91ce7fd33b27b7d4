"""The DVC remote `store`: where pinned data is pushed to and pulled from.

The repository names the bucket, and an address that leads nowhere: before `pharmafed up` nothing is pushed anywhere,
to no cloud that the environment has keys of either. Address and keys belong to a deployment and live in
`.dvc/config.local`, which git ignores and only its owner may read.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from tasks.errors import ConfigError

REMOTE = "store"
BUCKET = "pharmafed-dvc"


def configure_remote(project_dir: Path, endpoint: str, access_key: str, secret_key: str) -> Path:
    """Write address and keys of the remote `store` to `.dvc/config.local` (mode 0600) and return its path.

    The same as `dvc remote modify --local store endpointurl ...` and so on, but no key appears on a command line.

    Raises:
        ConfigError: `project_dir` is not a DVC repository, or a proxy would carry the data off this machine.
    """
    from dvc.config import Config  # a second of import

    _refuse_proxy(endpoint)
    dvc_dir = project_dir / ".dvc"
    if not dvc_dir.is_dir():
        raise ConfigError(f"{project_dir} is not a DVC repository: run `dvc init` there")
    path = dvc_dir / "config.local"
    _create_private(path)
    options = {"endpointurl": endpoint, "access_key_id": access_key, "secret_access_key": secret_key}
    with Config(dvc_dir=str(dvc_dir)).edit("local") as config:
        config.setdefault("remote", {}).setdefault(REMOTE, {}).update(options)
    return path


def _refuse_proxy(endpoint: str) -> None:
    """DVC asks the environment's proxy for every address, this machine's own too."""
    where = urlsplit(endpoint)
    if where.scheme in getproxies() and not proxy_bypass(where.netloc):
        raise ConfigError(
            f"`dvc push` would send data through the proxy in {where.scheme.upper()}_PROXY: set NO_PROXY="
            f"{where.hostname}, here and wherever dvc runs, then run `pharmafed up` again"
        )


def _create_private(path: Path) -> None:
    """The file must be private before a key is in it, not after."""
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    path.chmod(0o600)
