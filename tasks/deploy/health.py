"""Whether each part of a deployment does its work, which is more than that its process runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import httpx

from tasks.deploy import seaweedfs
from tasks.deploy.ports import Ports
from tasks.deploy.services import SERVICES
from tasks.deploy.state import State, living_supervisor, log_file, read_state
from tasks.errors import ConfigError
from tasks.store import disk

_POLL_S = 0.3
API_SERVER = "api-server"
BEATING = frozenset({"scheduler", "triggerer", "dag-processor"})
"""Airflow's parts that write a heartbeat into its database."""
_LOG_LINES = 15
_WARM_UP_REQUESTS = 4
_REMEDIES = (
    ("address already in use", "another program took its port meanwhile: run `pharmafed up` again"),
    ("no space left", f"{disk.REMEDY}, then run `pharmafed up` again"),
    ("permission denied", "check who owns the files under PHARMAFED_HOME"),
    ("certificate has expired", "run `pharmafed down`, then `pharmafed up`: it makes a new certificate"),
    ("no module named", "install the project again: `pip install -e .[local] -c constraints.txt`"),
    ("database is locked", "another program has the metadata database open: stop it, then run `pharmafed up` again"),
)


def unhealthy(home: Path, ports: Ports, started: Mapping[str, datetime]) -> set[str]:
    """Those of the named services that do not work at this moment; `started` says since when each one runs."""
    well = set()
    if seaweedfs.NAME in started and _store_works(home, ports):
        well.add(seaweedfs.NAME)
    if started.keys() - {seaweedfs.NAME}:
        well |= _working_airflow_parts(_airflow_health(ports), started)
    return started.keys() - well


def silent(ports: Ports, started: Mapping[str, datetime]) -> set[str]:
    """Those that give no sign of life. While the API server gives none, those of Airflow's others are unknown."""
    dead = set() if _answers(f"{ports.s3_endpoint}/healthz", timeout=5.0) else {seaweedfs.NAME}
    parts = _airflow_health(ports)
    if parts is None:
        dead.add(API_SERVER)
    elif parts.get("metadatabase", {}).get("status") == "healthy":  # otherwise nobody's beat is known
        dead |= BEATING - _working_airflow_parts(parts, started)
    return dead & started.keys()


def _store_works(home: Path, ports: Ports) -> bool:
    answers = _answers(f"{ports.s3_endpoint}/healthz", timeout=2.0)
    return answers and seaweedfs.accepts_writes(ports.s3_endpoint, seaweedfs.credential(home, seaweedfs.HUB))


def _airflow_health(ports: Ports) -> dict[str, dict[str, str | None]] | None:
    """What Airflow says of its parts; nothing where it has an error to tell; None where Airflow does not answer."""
    try:
        answer = httpx.get(f"{ports.airflow_url}/api/v2/monitor/health", timeout=5, trust_env=False)
        parts = answer.json() if answer.is_success else {}
    except (httpx.HTTPError, ValueError):
        return None
    genuine = not parts or (isinstance(parts, dict) and "metadatabase" in parts)
    return parts if genuine else None


def _working_airflow_parts(
    parts: Mapping[str, dict[str, str | None]] | None, started: Mapping[str, datetime]
) -> set[str]:
    """The parts that Airflow calls healthy by a heartbeat of their present process, not of an earlier one."""
    if not parts:
        return set()
    beating = {
        service
        for service in BEATING & started.keys()
        if _beats(parts.get(service.replace("-", "_")) or {}, started[service])
    }
    return beating | ({API_SERVER} if parts["metadatabase"]["status"] == "healthy" else set())


def _beats(part: dict[str, str | None], since: datetime) -> bool:
    beats = [value for key, value in part.items() if key.endswith("_heartbeat") and value]
    return part.get("status") == "healthy" and any(datetime.fromisoformat(beat) >= since for beat in beats)


def wait_until_healthy(home: Path, timeout: float, report: Callable[[set[str]], None]) -> State:
    """Wait, at most `timeout` seconds, until every service works; `report` hears which are still missing.

    Raises:
        ConfigError: a service gave up or the time is over; holds the end of its log and the remedy.
    """
    deadline = time.monotonic() + timeout
    missing = set(SERVICES)
    while True:
        state = read_state(home) if living_supervisor(home) else None
        if state:
            _require_no_failure(home, state)
            still = unhealthy(home, state.ports, {name: state.services[name].started_at for name in missing})
            if API_SERVER in missing - still:
                warm_up(state)
            missing = still
            report(missing)
            if not missing:
                return state
        if time.monotonic() > deadline:
            raise _not_working(home, sorted(missing), f"not ready after {timeout:.0f} s")
        time.sleep(_POLL_S)


def warm_up(state: State) -> None:
    """Let both API workers build their task interface now: it takes seconds, which the first task would wait for.

    A worker that builds takes no other request, so of several sent at once the second worker gets one too.
    """
    with ThreadPoolExecutor(_WARM_UP_REQUESTS) as pool:
        url = f"{state.ports.airflow_url}/execution/health"
        list(pool.map(lambda _: _answers(url, timeout=60.0), range(_WARM_UP_REQUESTS)))


def _answers(url: str, timeout: float) -> bool:
    try:
        return httpx.get(url, timeout=timeout, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _require_no_failure(home: Path, state: State) -> None:
    failed = [name for name, service in state.services.items() if service.phase == "failed"]
    if failed:
        code = state.services[failed[0]].exit_code
        raise _not_working(home, failed, f"ended again and again, the last time with code {code}")


def _not_working(home: Path, names: list[str], what: str) -> ConfigError:
    log = log_file(home, names[0])
    tail = log.read_text(errors="replace").splitlines()[-_LOG_LINES:] if log.exists() else ["(no log yet)"]
    end = "\n".join(tail)
    return ConfigError(f"{', '.join(names)}: {what}\nLast lines of {log}:\n{end}\n→ {service_remedy(end)}")


def service_remedy(log: str) -> str:
    """What to do about a service whose log ends like this."""
    lowered = log.lower()
    return next(
        (advice for sign, advice in _REMEDIES if sign in lowered), "read the log, then run `pharmafed up` again"
    )
