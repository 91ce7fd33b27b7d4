"""What services say of themselves, from servers that answer as Airflow does, as a stranger does, or not at all."""

import json
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tasks.deploy import health
from tasks.deploy.ports import choose_ports
from tasks.deploy.services import AIRFLOW_SERVICES

NOW = datetime.now(UTC)
STARTED = dict.fromkeys(AIRFLOW_SERVICES, NOW - timedelta(minutes=5))


def said(**ages):
    """Airflow's health: each part's last heartbeat, in seconds ago; those of more than 30 are not healthy."""
    parts = {"metadatabase": {"status": "healthy"}}
    for part in ("scheduler", "triggerer", "dag_processor"):
        age = ages.get(part, 2)
        beat = (NOW - timedelta(seconds=age)).isoformat()
        parts[part] = {"status": "healthy" if age < 30 else "unhealthy", f"latest_{part}_heartbeat": beat}
    return json.dumps(parts)


@contextmanager
def answering(status, body):
    """Ports, where such a server answers in Airflow's place."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args):
            pass

    ports = choose_ports(auto=True, environ={})
    server = HTTPServer(("127.0.0.1", ports.airflow), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield ports
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "unhealthy", "silent"),
    [
        (200, said(), set(), set()),
        (200, said(scheduler=60), {"scheduler"}, {"scheduler"}),
        (200, said(dag_processor=60, triggerer=31), {"dag-processor", "triggerer"}, {"dag-processor", "triggerer"}),
        (200, said(scheduler=29), set(), set()),
        (500, "database or disk is full", set(AIRFLOW_SERVICES), set()),  # it lives, and says nothing of the others
        (200, "<h1>It works!</h1>", set(AIRFLOW_SERVICES), {"api-server"}),  # a stranger on its port
        (200, "[1, 2]", set(AIRFLOW_SERVICES), {"api-server"}),
        (200, '{"status": "ok"}', set(AIRFLOW_SERVICES), {"api-server"}),
        (404, "{}", set(AIRFLOW_SERVICES), set()),
    ],
)
def test_who_does_not_work_and_who_gives_no_sign_of_life(tmp_path, status, body, unhealthy, silent):
    with answering(status, body) as ports:
        assert health.unhealthy(tmp_path, ports, STARTED) == unhealthy
        assert health.silent(ports, STARTED) == silent


def test_nothing_answers(tmp_path):
    ports = choose_ports(auto=True, environ={})
    assert health.unhealthy(tmp_path, ports, STARTED) == set(AIRFLOW_SERVICES)
    assert health.silent(ports, STARTED | {"seaweedfs": NOW}) == {"api-server", "seaweedfs"}


def test_a_heartbeat_of_an_earlier_process_does_not_count(tmp_path):
    started = STARTED | {"scheduler": NOW - timedelta(seconds=10)}
    with answering(200, said(scheduler=20)) as ports:
        assert health.unhealthy(tmp_path, ports, started) == {"scheduler"}
    with answering(200, said(scheduler=5)) as ports:
        assert health.unhealthy(tmp_path, ports, started) == set()


def test_only_what_runs_is_asked_about(tmp_path):
    with answering(200, said(scheduler=60)) as ports:
        assert health.unhealthy(tmp_path, ports, {"api-server": NOW}) == set()
        assert health.silent(ports, {"api-server": NOW}) == set()
