"""Finding and stopping every process of a deployment, however far it has strayed.

A process group or session is not enough: Airflow's task processes open their own, and when a parent dies
its children move to another one. So every process carries two environment variables from its birth,
the deployment's marker and its service's name, and is found by them.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

MARKER = "PHARMAFED_SUPERVISOR"
SERVICE = "PHARMAFED_SERVICE"
_PR_SET_CHILD_SUBREAPER = 36


def marker(home: Path) -> str:
    """The deployment's mark, the same for every start from this home, so that `down` needs no state file."""
    return hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:16]


def family(home: Path, service: str | None = None) -> list[psutil.Process]:
    """Living processes of this deployment, or of one of its services; never this one or its ancestors."""
    wanted = {MARKER: marker(home)} | ({SERVICE: service} if service else {})
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [p for p in psutil.process_iter() if p.pid not in own and _carries(p, wanted) and _lives(p)]


def by_service(home: Path) -> dict[str, list[psutil.Process]]:
    """Living processes of this deployment by the service that they are, or descend from; the oldest first."""
    found: dict[str, list[psutil.Process]] = {}
    for process in family(home):
        try:
            found.setdefault(process.environ()[SERVICE], []).append(process)
        except (psutil.Error, OSError, KeyError):
            continue
    return {service: sorted(members, key=psutil.Process.create_time) for service, members in found.items()}


def _carries(process: psutil.Process, wanted: dict[str, str]) -> bool:
    try:
        return wanted.items() <= process.environ().items()
    except (psutil.Error, OSError):
        return False


def stop(processes: Iterable[psutil.Process], grace: float) -> int:
    """Send SIGTERM, and SIGKILL to what is left after `grace` seconds. Returns how many were killed."""
    targets = list(processes)
    send(targets, signal.SIGTERM)
    alive = wait(targets, grace)
    send(alive, signal.SIGKILL)
    wait(alive, timeout=5.0)
    return len(alive)


def wait(processes: Iterable[psutil.Process], timeout: float) -> list[psutil.Process]:
    """Wait, at most `timeout` seconds, until all have ended, and return those that have not.

    A zombie has ended: it may belong to a parent that is itself stopping (`psutil.wait_procs` would wait for it).
    """
    deadline = time.monotonic() + timeout
    while (alive := [p for p in processes if _lives(p)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return alive


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def send(processes: Iterable[psutil.Process], signum: signal.Signals) -> None:
    """Signal each process that still exists; psutil checks that the pid was not reused meanwhile."""
    for process in processes:
        try:
            process.send_signal(signum)
        except psutil.NoSuchProcess:
            continue


def become_subreaper() -> None:
    """Let orphaned descendants become children of this process instead of init's (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap() -> dict[int, int]:
    """Collect every child that has ended, adopted ones included: exit code by pid, -N for signal N."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(status)
