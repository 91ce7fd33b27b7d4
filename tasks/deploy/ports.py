"""Which port each listener of the deployment gets. All of them are on 127.0.0.1."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Mapping
from typing import Any

import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.deploy import sockets
from tasks.errors import ConfigError

LOOPBACK = "127.0.0.1"
_AUTO_RANGE = range(20_000, 32_000)
"""Below the ports that Linux hands to outgoing connections (32768 and up), so no client takes one meanwhile."""


class Ports(BaseModel):
    """One port per listener. SeaweedFS would put gRPC at +10000, past 65535 for high ports: so each is named."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    airflow: int = Field(8080, ge=1, le=65535)
    s3: int = Field(8333, ge=1, le=65535)
    s3_grpc: int = Field(18333, ge=1, le=65535)
    filer: int = Field(8888, ge=1, le=65535)
    filer_grpc: int = Field(18888, ge=1, le=65535)
    master: int = Field(9333, ge=1, le=65535)
    master_grpc: int = Field(19333, ge=1, le=65535)
    volume: int = Field(8334, ge=1, le=65535)
    volume_grpc: int = Field(18334, ge=1, le=65535)

    @property
    def airflow_url(self) -> str:
        """Where the web UI and the REST interface answer."""
        return f"http://{LOOPBACK}:{self.airflow}"

    @property
    def s3_endpoint(self) -> str:
        """Where S3 clients connect."""
        return f"http://{LOOPBACK}:{self.s3}"


def variable(name: str) -> str:
    """The environment variable that overrides one port: `PHARMAFED_PORT_S3` for `s3`."""
    return f"PHARMAFED_PORT_{name.upper()}"


def choose_ports(auto: bool = False, environ: Mapping[str, str] = os.environ) -> Ports:
    """The defaults, or free ports when `auto`; either way PHARMAFED_PORT_<NAME> has the last word.

    Raises:
        ConfigError: a variable is no port number, or two listeners would share one.
    """
    names = list(Ports.model_fields)
    chosen: dict[str, int | str] = dict(zip(names, _free_ports(len(names)), strict=True)) if auto else {}
    chosen |= {name: environ[variable(name)] for name in names if environ.get(variable(name))}
    try:
        ports = Ports.model_validate(chosen)
    except ValidationError as error:
        wrong = ", ".join(f"{variable(str(e['loc'][0]))}={e['input']!r}" for e in error.errors())
        raise ConfigError(f"not a port number between 1 and 65535: {wrong}") from None
    _require_distinct(ports)
    return ports


def _require_distinct(ports: Ports) -> None:
    by_port: dict[int, list[str]] = {}
    for name, port in ports.model_dump().items():
        by_port.setdefault(port, []).append(variable(name))
    for port, names in by_port.items():
        if len(names) > 1:
            raise ConfigError(f"{' and '.join(names)} are both {port}: give each its own port")


def _free_ports(count: int) -> list[int]:
    candidates = random.SystemRandom().sample(_AUTO_RANGE, len(_AUTO_RANGE))
    free: list[int] = []
    for port in candidates:
        if is_free(port) and sockets.is_clear(port):
            free.append(port)
        if len(free) == count:
            return free
    raise ConfigError(f"fewer than {count} free ports between {_AUTO_RANGE.start} and {_AUTO_RANGE.stop}")


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def holder(port: int) -> str:
    """Who listens on `port`: name, pid and, where it is one of ours, its deployment."""
    try:
        pids = [c.pid for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and _port(c) == port]
    except psutil.AccessDenied:
        pids = []
    known = [pid for pid in pids if pid is not None]
    return _describe(known[0]) if known else "a process of another user"


def _port(connection: Any) -> int | None:
    return connection.laddr.port if connection.laddr else None


def _describe(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        text = f"{process.name()} (pid {pid})"
        home = process.environ().get("PHARMAFED_HOME")
    except psutil.Error:
        return f"pid {pid}"
    return f"{text}, part of the deployment in {home}" if home else text
