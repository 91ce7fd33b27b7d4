"""What would keep a deployment from starting, found before anything is started; each with its remedy."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil

from tasks.deploy import sockets
from tasks.deploy.ports import Ports, holder, is_free, variable
from tasks.deploy.processes import family
from tasks.deploy.secret_files import readable_by_others
from tasks.errors import ConfigError
from tasks.store import disk

MAX_CLOCK_SKEW_S = 300.0
"""S3 signatures are refused beyond 15 minutes and tokens beyond seconds; five minutes is already a broken clock."""
_EARLIEST = datetime(2025, 1, 1, tzinfo=UTC)
_LATEST = datetime(2100, 1, 1, tzinfo=UTC)


class Obstacle(NamedTuple):
    """Something in the way, and what to do about it."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}\n    → {self.remedy}"


def require_ready(home: Path, ports: Ports) -> None:
    """Check everything at once.

    Raises:
        ConfigError: lists every problem with its remedy.
    """
    problems = list(find_problems(home, ports))
    if problems:
        raise ConfigError("cannot start:\n" + "\n".join(f"- {problem}" for problem in problems))


def find_problems(home: Path, ports: Ports) -> Iterator[Obstacle]:
    """All problems. Leftovers are named alone, since they explain every held port."""
    leftovers = list(leftover_problems(home))
    if leftovers:
        return iter(leftovers)
    return chain(
        home_problems(home),
        disk_problems(home),
        secret_problems(home),
        clock_problems(),
        port_problems(ports),
        socket_problems(ports),
    )


def leftover_problems(home: Path) -> Iterator[Obstacle]:
    """Processes of an earlier start whose supervisor is gone."""
    pids = [process.pid for process in family(home)]
    if pids:
        shown = ", ".join(map(str, pids[:5])) + (", …" if len(pids) > 5 else "")
        yield Obstacle(
            f"{len(pids)} processes of an earlier start of {home} still run (pid {shown})", "run `pharmafed down`"
        )


def port_problems(ports: Ports) -> Iterator[Obstacle]:
    """Ports that something else listens on."""
    for name, port in ports.model_dump().items():
        if not is_free(port):
            remedy = f"stop that process, set {variable(name)} to a free port, or run `pharmafed up --ports auto`"
            yield Obstacle(f"port {port} ({name}) is held by {holder(port)}", remedy)


def socket_problems(ports: Ports) -> Iterator[Obstacle]:
    """Sockets of an earlier store that this user cannot remove, or that something listens behind.

    A port that is held is named by `port_problems`, and so is the deployment that its socket belongs to.
    """
    for name, path in sockets.left_over(ports.model_dump()).items():
        port = getattr(ports, name)
        if is_free(port):
            user = sockets.user_of(path)
            remedy = f"let {user} remove it, set {variable(name)} to another port, or run `pharmafed up --ports auto`"
            yield Obstacle(f"{path} of user {user} is in the way of port {port} ({name})", remedy)


def disk_problems(home: Path) -> Iterator[Obstacle]:
    """Too little space or too few files for the home or for scratch files; on a full disk the store is read-only."""
    for room in disk.rooms(home):
        if room.too_little:
            variable = "PHARMAFED_HOME" if room.limits == disk.HOME else "TMPDIR"
            yield Obstacle(
                f"only {room}; {room.needed} are needed", f"free some space, or set {variable} to a folder elsewhere"
            )


def home_problems(home: Path) -> Iterator[Obstacle]:
    """A home that is no folder, or that this user may not write to."""
    place = _existing(home)
    if not place.is_dir():
        yield Obstacle(f"{place} is a file, so {home} cannot be a folder", "set PHARMAFED_HOME to a folder")
    elif not os.access(place, os.W_OK | os.X_OK):
        remedy = "set PHARMAFED_HOME to a folder of yours, or change the folder's rights"
        yield Obstacle(f"{place} is not writable for user {psutil.Process().username()}", remedy)


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def secret_problems(home: Path) -> Iterator[Obstacle]:
    """Secrets that others on this machine could read."""
    secrets = home / "secrets"
    exposed = list(readable_by_others(secrets))
    if exposed:
        shown = ", ".join(str(path) for path in exposed[:3]) + (", …" if len(exposed) > 3 else "")
        yield Obstacle(f"{len(exposed)} secrets are open to other users: {shown}", f"run `chmod -R go= {secrets}`")


def clock_problems(now: datetime | None = None) -> Iterator[Obstacle]:
    """A clock that is plainly wrong, or that started before the machine did."""
    now = now or datetime.now(UTC)
    if not _EARLIEST <= now < _LATEST:
        yield Obstacle(
            f"the clock says {now:%Y-%m-%d}, which cannot be", "set the clock: signatures and tokens need it"
        )
    elif now.timestamp() + 1 < psutil.boot_time():
        yield Obstacle("the clock says a time before this machine started", "let NTP set the clock, then try again")


def clock_skew(endpoint: str) -> float:
    """How far this machine's clock is ahead of the server's, in seconds, by its Date header."""
    before = time.time()
    response = httpx.get(endpoint, timeout=5, trust_env=False)
    return before - parsedate_to_datetime(response.headers["date"]).timestamp()


def require_same_time(endpoint: str) -> None:
    """Compare clocks with the object store.

    Raises:
        ConfigError: they differ by more than `MAX_CLOCK_SKEW_S`.
    """
    skew = clock_skew(endpoint)
    if abs(skew) > MAX_CLOCK_SKEW_S:
        raise ConfigError(f"this clock differs by {skew:+.0f} s from that of {endpoint}: synchronise both with NTP")
