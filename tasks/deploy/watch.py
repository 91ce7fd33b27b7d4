"""What keeps rounds from going on while somebody waits for them: told at once, waited for, in the end given up."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple, TypeVar

import httpx
from rich.markup import escape

from tasks.deploy.airflow_api import AirflowApi, AirflowApiError, Json
from tasks.errors import ConfigError, RoundError, StoreUnavailable
from tasks.store import disk, settings

POLL_SECONDS = 1.0
CHECK_SECONDS = 5.0
"""How often it is asked whether services run and the DAG is there: two more requests to Airflow."""
START_PATIENCE_S = 120.0
"""How long a round that is not yet queued waits for a service; a restart takes half a minute."""
PATIENCE_S = 600.0
"""How long nothing may go on before the following ends; the supervisor finds and restarts a stuck service in three."""
_SEE = "`pharmafed status` shows more, and a supervisor that runs starts it again by itself"
_PARTS = {"scheduler": "scheduler", "dag_processor": "dag processor"}

Known = TypeVar("Known")


class Hindrance(NamedTuple):
    """What is wrong and what to do; `lasting` when waiting does not mend it."""

    what: str
    remedy: str
    lasting: bool = False

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}"


_API_SERVER = Hindrance("the api-server does not answer", _SEE)
_STORE = Hindrance("the object store does not answer", _SEE)


def hindrances(api: AirflowApi, dag_id: str) -> list[Hindrance]:
    """Everything that keeps a DAG's runs from going on now.

    Raises:
        AirflowApiError: Airflow refuses to say.
    """
    try:
        return [*_silent_parts(api.get("monitor/health")), *_dag_hindrances(api, dag_id)]
    except AirflowApiError as error:
        if error.transient:
            return [_API_SERVER]
        raise


def _silent_parts(health: Json) -> list[Hindrance]:
    found = []
    for part, name in _PARTS.items():
        said = health.get(part) or {}
        if said.get("status") != "healthy":
            beat = said.get(f"latest_{part}_heartbeat")
            since = f" (its last sign of life: {datetime.fromisoformat(beat):%H:%M:%S} UTC)" if beat else ""
            found.append(Hindrance(f"the {name} does not run{since}", _SEE))
    if found and disk.is_full(home := settings.home()):
        found.append(Hindrance("the disk is full", f"only {disk.room(home, disk.HOME)}; {disk.REMEDY}"))
    return found


def _dag_hindrances(api: AirflowApi, dag_id: str) -> list[Hindrance]:
    try:
        dag = api.dag(dag_id)
    except AirflowApiError as error:
        if error.status != httpx.codes.NOT_FOUND:
            raise
        return [_no_dag(api, dag_id)]
    if dag.get("is_stale"):
        return [_no_dag(api, dag_id)]
    if dag.get("is_paused"):
        switch = f"switch it on beside its name at {api.url}/dags/{dag_id}"
        return [Hindrance(f"the DAG {dag_id} is paused, so Airflow starts nothing of it", switch, lasting=True)]
    return []


def _no_dag(api: AirflowApi, dag_id: str) -> Hindrance:
    broken = api.broken_files()
    remedy = (
        f"mend {broken}" if broken else "put its study file back, or mend it; `pharmafed status` shows the services"
    )
    return Hindrance(f"Airflow has no DAG {dag_id}, or cannot read it any more", remedy)


class Watch:
    """One DAG's runs as somebody sees them who waits. `say` hears what is in the way, once, and when it is gone."""

    def __init__(self, api: AirflowApi, dag_id: str, say: Callable[[str], None]) -> None:
        self._api, self._dag_id, self._say = api, dag_id, say
        self._told: set[str] = set()
        self._noted: set[str] = set()
        self._moved_at = time.monotonic()
        self._checked_at = float("-inf")
        self._seen: object = None
        self._queued = False

    def until_ready(self) -> None:
        """Wait until a run would start.

        Raises:
            ConfigError: the DAG is paused; or it is not there, or a service does not run, for `START_PATIENCE_S`.
        """
        while found := hindrances(self._api, self._dag_id):
            if any(one.lasting for one in found):
                raise _not_queued(found)
            self._hindered(found)
            time.sleep(POLL_SECONDS)
        self._tell([])

    def queued(self) -> None:
        """From now on there is a run, or may be one, that goes on by itself."""
        self._queued, self._moved_at = True, time.monotonic()

    def ask(self, question: Callable[[], Known]) -> Known:
        """The answer to a question to Airflow or to the store, waiting for them where they do not answer.

        Raises:
            ConfigError, RoundError: they do not for `START_PATIENCE_S`, or after something was queued `PATIENCE_S`.
        """
        while True:
            try:
                return question()
            except AirflowApiError as error:
                if not error.transient:
                    raise
                self._hindered([_API_SERVER])
            except StoreUnavailable:
                self._hindered([_STORE])
            time.sleep(POLL_SECONDS)

    def look(self, seen: object) -> None:
        """Check what might be in the way; `seen` is what the run shows, and a change of it means that it goes on.

        Raises:
            RoundError: something is in the way, and nothing has moved for `PATIENCE_S`.
        """
        now = time.monotonic()
        if seen != self._seen:
            self._seen, self._moved_at = seen, now
        if now - self._checked_at < CHECK_SECONDS:
            return
        self._checked_at = now
        found = hindrances(self._api, self._dag_id)
        if found:
            self._hindered(found)
        else:
            self._moved_at = now
            self._tell([])

    def note(self, message: str) -> None:
        """Say something that is no hindrance, once."""
        if message not in self._noted:
            self._noted.add(message)
            self._say(escape(message))

    def _hindered(self, found: list[Hindrance]) -> None:
        self._tell(found)
        waited = time.monotonic() - self._moved_at
        if not self._queued and waited > START_PATIENCE_S:
            raise _not_queued(found)
        if waited > PATIENCE_S:
            raise RoundError(
                f"not followed any longer, since nothing has gone on for {PATIENCE_S / 60:.0f} minutes. "
                f"{_sentences(found)}. What was queued goes on by itself after that"
            )

    def _tell(self, found: list[Hindrance]) -> None:
        whats = {one.what for one in found}
        for one in found:
            if one.what not in self._told:
                self._say(f"[yellow]{escape(str(one))}; waiting[/]")
        if self._told and not found:
            self._say("[green]everything runs again[/]")
        self._told = whats


def _not_queued(found: list[Hindrance]) -> ConfigError:
    return ConfigError(f"nothing was queued. {_sentences(found)}")


def _sentences(found: list[Hindrance]) -> str:
    return ". ".join(f"{str(one)[0].upper()}{str(one)[1:]}" for one in found)
