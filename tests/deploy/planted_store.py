"""A real object store with objects that can be recognised, and what has become of them."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from botocore.exceptions import BotoCoreError, ClientError

from tasks.deploy import seaweedfs, sockets, store_security
from tasks.deploy.ports import Ports, choose_ports
from tasks.store import layout

STUDIES = {"derm": ["701", "702"]}
BUCKET = f"/buckets/{layout.BUCKET}"
PLAN, UPDATE, OTHER = layout.plan("derm", 1), layout.update_tensors("derm", 1, "701"), layout.model("derm", 0)
_START_S = 60.0


class Listener(NamedTuple):
    """A TCP port or the path of a Unix socket of the running store."""

    address: str
    port: int | None

    def __str__(self) -> str:
        return self.address if self.port is None else f"{self.address}:{self.port}"


@dataclass
class Store:
    """A running object store with objects that can be recognised wherever they turn up."""

    home: Path
    ports: Ports
    argv: list[str]
    endpoint: str
    process: subprocess.Popen[bytes] | None = None
    marker: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    objects: dict[str, bytes] = field(default_factory=dict)

    def start(self) -> float:
        """Start it, as the supervisor does, and wait until it takes objects. Returns the seconds that took."""
        began = time.monotonic()
        with (self.home / "store.log").open("ab") as log:
            environ = seaweedfs.environment(os.environ)
            where = seaweedfs.folder(self.home)
            self.process = subprocess.Popen(self.argv, cwd=where, env=environ, stdout=log, stderr=log, umask=0o077)
        while not seaweedfs.accepts_writes(self.endpoint, seaweedfs.credential(self.home, "hub")):
            assert self.process.poll() is None, (self.home / "store.log").read_text()[-2000:]
            assert time.monotonic() < began + _START_S, (self.home / "store.log").read_text()[-2000:]
            time.sleep(0.1)
        return time.monotonic() - began

    def stop(self) -> None:
        """End it as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            sockets.remove_abandoned(self.ports.model_dump())

    def reload(self) -> None:
        """Have it read the list of identities again."""
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def s3(self, identity: str = "hub") -> Any:
        """A boto3 client that acts as `hub` or `site-<site>`."""
        return seaweedfs.client(self.endpoint, seaweedfs.credential(self.home, identity))

    def plant(self) -> None:
        """Store the objects, or store them again. They are random, so that no volume holds them compressed."""
        keys = (PLAN, UPDATE, OTHER, layout.update_tensors("derm", 1, "702"), layout.enrolment("702"))
        sizes = dict.fromkeys(keys, 2_000) | {layout.model("derm", 1): 9_000_000}
        self.objects = self.objects or {
            key: key.encode() + self.marker + secrets.token_bytes(size) for key, size in sizes.items()
        }
        for key, body in self.objects.items():
            self.s3().put_object(Bucket=layout.BUCKET, Key=key, Body=body)

    def listeners(self) -> list[Listener]:
        """Every socket on which the process listens, once: a connection to a Unix socket looks just like it."""
        assert self.process is not None
        found = psutil.Process(self.process.pid).net_connections("all")
        tcp = {Listener(c.laddr.ip, c.laddr.port) for c in found if c.status == psutil.CONN_LISTEN}
        here = seaweedfs.folder(self.home)
        return sorted(tcp) + sorted(
            {Listener(str(here / c.laddr), None) for c in found if c.family == socket.AF_UNIX and c.laddr}
        )


def harm(store: Store) -> dict[str, str]:
    """What is no longer as it was planted, and how: nothing is if the store is whole."""
    found: dict[str, str] = {}
    for key, body in store.objects.items():
        try:
            if store.s3().get_object(Bucket=layout.BUCKET, Key=key)["Body"].read() != body:
                found[key] = "other bytes"
        except (ClientError, BotoCoreError) as error:
            found[key] = str(error)[:200]
    try:
        listed = {item["Key"] for item in store.s3().list_objects_v2(Bucket=layout.BUCKET)["Contents"]}
    except (ClientError, BotoCoreError, KeyError) as error:
        return found | {"the list": str(error)[:200]}
    probes = {"federation/health", *seaweedfs.probes()}
    return found | dict.fromkeys(listed - store.objects.keys() - probes, "not planted")


def as_before(store: Store) -> None:
    """The store as it was started before its inner interfaces were closed: tokens only."""
    file = store_security.security_file(store.home)
    tokens, closed, _ = file.read_text().partition("[grpc]")
    assert closed, "there is no TLS to leave out"
    file.write_text(tokens)
    closing = ("-disableHttp=true", "-s3.iam=false")
    assert set(closing) <= set(store.argv)
    store.argv = [argument for argument in store.argv if argument not in closing]


@contextmanager
def running(home: Path, change: Callable[[Store], None] = lambda store: None) -> Iterator[Store]:
    """A store with planted objects; `change` may alter its files and command line before it starts."""
    ports = choose_ports(auto=True)
    seaweedfs.prepare(home, STUDIES)
    store = Store(home, ports, seaweedfs.command(home, ports), ports.s3_endpoint)
    change(store)
    try:
        store.start()
        store.plant()
        yield store
    finally:
        store.stop()
