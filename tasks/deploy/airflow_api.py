"""A client of Airflow's REST interface (`/api/v2`), for the CLI and for tests.

Answers are Airflow's own JSON objects; their fields are described at <airflow>/docs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import httpx

from tasks.errors import ConfigError

Json = dict[str, Any]
_PAGE = 100


class AirflowApiError(ConfigError):
    """Airflow refused a request, or could not be reached; `status` is the HTTP code, 0 when unreached."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status

    @property
    def transient(self) -> bool:
        """Whether the same request may be answered later: Airflow was not reached, or is too busy or broken for it."""
        return self.status in (0, httpx.codes.TOO_MANY_REQUESTS) or self.status >= httpx.codes.INTERNAL_SERVER_ERROR


class AirflowApi:
    """One user's session with an Airflow at `url`, such as http://127.0.0.1:8080. Use as a context manager."""

    def __init__(self, url: str, username: str, password: str, timeout: float = 30.0) -> None:
        self._url = url.rstrip("/")
        self._login = {"username": username, "password": password}
        self._client = httpx.Client(base_url=self._url, timeout=timeout, trust_env=False)
        self._token: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @property
    def url(self) -> str:
        """Where the web UI is."""
        return self._url

    # DAGs

    def dag(self, dag_id: str) -> Json:
        """The DAG as the scheduler knows it."""
        return self._call("GET", f"dags/{dag_id}")

    def unpause(self, dag_id: str) -> Json:
        """Let the scheduler run this DAG."""
        return self._call("PATCH", f"dags/{dag_id}", json={"is_paused": False})

    def import_errors(self) -> list[Json]:
        """Every DAG file that failed to load, with its `filename` and `stack_trace`."""
        return list(self._pages("importErrors", "import_errors"))

    def wait_for_dag(self, dag_id: str, timeout: float = 60.0) -> Json:
        """Wait, at most `timeout` seconds, until the DAG has been read.

        Raises:
            AirflowApiError: it has not; the message names the files that failed to load.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                return self.dag(dag_id)
            except AirflowApiError as error:
                if error.status != httpx.codes.NOT_FOUND or time.monotonic() > deadline:
                    raise self._unread(dag_id, timeout, error) from None
            time.sleep(0.3)

    def _unread(self, dag_id: str, timeout: float, error: AirflowApiError) -> AirflowApiError:
        if error.status != httpx.codes.NOT_FOUND:
            return error
        broken = self.broken_files()
        message = f"no DAG {dag_id} after {timeout:.0f} s" + (f"; broken files: {broken}" if broken else "")
        return AirflowApiError(message, error.status)

    def broken_files(self) -> str:
        """Every DAG file that failed to load, with the last line of why; empty when all were read."""
        return "; ".join(f"{e['filename']}: {e['stack_trace'].strip().splitlines()[-1]}" for e in self.import_errors())

    # Runs and tasks

    def trigger(self, dag_id: str, conf: Json | None = None, run_id: str | None = None) -> Json:
        """Start a run now. `run_id` is chosen by Airflow when None; a taken one raises with status 409."""
        body: Json = {"logical_date": None, "conf": conf or {}}
        if run_id is not None:
            body["dag_run_id"] = run_id
        return self._call("POST", f"dags/{dag_id}/dagRuns", json=body)

    def dag_run(self, dag_id: str, run_id: str) -> Json:
        """One run; `state` is queued, running, success or failed."""
        return self._call("GET", f"dags/{dag_id}/dagRuns/{run_id}")

    def dag_runs(self, dag_id: str, limit: int = 25) -> list[Json]:
        """The newest runs first; `limit` is at most 100."""
        answer = self._call("GET", f"dags/{dag_id}/dagRuns", params={"limit": limit, "order_by": "-run_after"})
        return list(answer["dag_runs"])

    def wait_for_run(self, dag_id: str, run_id: str, timeout: float = 300.0) -> Json:
        """Wait, at most `timeout` seconds and through restarts of the API server, until the run has ended."""
        deadline, state = time.monotonic() + timeout, "unknown"
        while time.monotonic() <= deadline:
            try:
                run = self.dag_run(dag_id, run_id)
            except AirflowApiError as error:
                if not error.transient:
                    raise
            else:
                state = run["state"]
                if state in ("success", "failed"):
                    return run
            time.sleep(0.5)
        raise AirflowApiError(f"run {run_id} of {dag_id} is still {state} after {timeout:.0f} s")

    def task_instances(self, dag_id: str, run_id: str) -> list[Json]:
        """Every task instance of the run, mapped ones included."""
        return list(self._pages(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances", "task_instances"))

    def set_task_state(self, dag_id: str, run_id: str, task_id: str, state: str, map_index: int = -1) -> Json:
        """Mark one task instance as success, failed or skipped."""
        path = f"{_task(dag_id, run_id, task_id)}{'' if map_index < 0 else f'/{map_index}'}"
        return self._call("PATCH", path, json={"new_state": state})

    def clear(self, dag_id: str, run_id: str, task_ids: list[str] | None = None) -> list[Json]:
        """Have tasks run again with what comes after them, as the web UI does; the whole run where none is named."""
        body: Json = {"dry_run": False, "dag_run_id": run_id, "include_downstream": True, "only_failed": False}
        if task_ids is not None:
            body["task_ids"] = task_ids
        return list(self._call("POST", f"dags/{dag_id}/clearTaskInstances", json=body)["task_instances"])

    def xcoms(self, dag_id: str, run_id: str, task_id: str = "~") -> list[Json]:
        """What passed between tasks, values included; `~` stands for all tasks of the run."""
        found = self._pages(f"{_task(dag_id, run_id, task_id)}/xcomEntries", "xcom_entries")
        return [self._xcom(dag_id, run_id, entry) for entry in found]

    def _xcom(self, dag_id: str, run_id: str, entry: Json) -> Json:
        path = f"{_task(dag_id, run_id, entry['task_id'])}/xcomEntries/{entry['key']}"
        return self._call("GET", path, params={"map_index": entry["map_index"]})

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        """The log of one try, one event per line."""
        path = f"{_task(dag_id, run_id, task_id)}/logs/{try_number}"
        params = {"map_index": map_index, "full_content": True}
        answer = self._call("GET", path, params=params, headers={"Accept": "application/json"})
        return "\n".join(_line(entry) for entry in answer["content"])

    # HTTP

    def get(self, path: str, **params: Any) -> Json:
        """Any other resource below `/api/v2`."""
        return self._call("GET", path, params=params)

    def _pages(self, path: str, field: str) -> Iterator[Json]:
        offset = 0
        while True:
            answer = self._call("GET", path, params={"limit": _PAGE, "offset": offset})
            yield from answer[field]
            offset += _PAGE
            if offset >= answer["total_entries"]:
                return

    def _call(self, method: str, path: str, headers: dict[str, str] | None = None, **request: Any) -> Json:
        response = self._send(method, f"/api/v2/{path}", headers or {}, request)
        if response.status_code == httpx.codes.UNAUTHORIZED:  # the token has expired, or Airflow has new keys
            self._token = None
            response = self._send(method, f"/api/v2/{path}", headers or {}, request)
        return _json(response)

    def _send(self, method: str, path: str, headers: dict[str, str], request: Json) -> httpx.Response:
        if self._token is None:
            self._token = _json(self._request("POST", "/auth/token", json=self._login))["access_token"]
        return self._request(method, path, headers={**headers, "Authorization": f"Bearer {self._token}"}, **request)

    def _request(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            return self._client.request(method, path, **request)
        except httpx.TransportError as error:
            reason = type(error).__name__
            message = f"Airflow at {self._url} does not answer ({reason}): run `pharmafed up`, or `pharmafed status`"
            raise AirflowApiError(message) from error


def _task(dag_id: str, run_id: str, task_id: str) -> str:
    return f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"


def _line(entry: Any) -> str:
    """A log event as text: its message, then its other fields."""
    if isinstance(entry, str):
        return entry
    rest = " ".join(f"{k}={v}" for k, v in entry.items() if k not in ("event", "timestamp", "level"))
    return " ".join(
        str(part) for part in (entry.get("timestamp"), entry.get("level"), entry.get("event"), rest) if part
    )


def _body(response: httpx.Response) -> Json:
    try:
        body: Json = response.json() if response.content else {}
    except ValueError:
        where = response.request.url.netloc.decode()
        message = f"what answers at {where} is not Airflow: see `pharmafed status` for who has its port"
        raise AirflowApiError(message, response.status_code) from None
    return body


def _json(response: httpx.Response) -> Json:
    """The body of a successful answer.

    Raises:
        AirflowApiError: Airflow refused; the message quotes its `detail`.
    """
    if response.is_success:
        return _body(response)
    try:
        detail = response.json().get("detail", response.text)
    except ValueError:
        detail = response.text[:300]
    request = response.request
    message = f"Airflow refused {request.method} {request.url.path} ({response.status_code}): {detail}"
    raise AirflowApiError(message, response.status_code)
