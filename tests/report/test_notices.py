"""Notices: what a closed round gives reason to say, and that a configured channel really gets it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from apprise import Apprise

from tasks.report.notices import Notice, notices_of, notify
from tasks.store.records.report import RoundMetrics, SiteRow

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def closed(**changes: Any) -> RoundMetrics:
    row = SiteRow(site="701", contributed=True, releases=changes.pop("releases", 3), epsilon=1.0)
    facts = {
        "study": "derm",
        "server_round": 3,
        "run_id": "run",
        "status": "complete",
        "message": "1 of 1 contributed",
        "mechanism": "local_dp",
        "opened_at": NOW,
        "closed_at": NOW,
        "seconds": 1.0,
        "total_rounds": 20,
        "sites": (row,),
        "num_contributors": 1,
        "num_bytes": 10,
        "epsilon": 1.0,
        "epsilon_budget": 3.0,
        "delta": 1e-5,
        "model_sha256": "0" * 64,
    }
    return RoundMetrics(**{**facts, **changes})


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({}, []),
        ({"status": "partial"}, ["partial round"]),
        ({"status": "failed"}, ["quorum missed"]),
        ({"releases": 17}, []),
        ({"releases": 18}, ["budget nearly spent"]),
        ({"releases": 20, "status": "partial"}, ["partial round", "budget nearly spent"]),
        ({"releases": 20, "mechanism": "none", "epsilon": None}, []),
        ({"releases": 18, "mechanism": "top", "epsilon": None, "epsilon_budget": None}, []),
        ({"releases": 20, "mechanism": "random", "epsilon": None}, []),
        ({"releases": 18, "epsilon": None}, ["budget nearly spent"]),
    ],
)
def test_what_a_round_gives_reason_to_say(changes: dict[str, Any], kinds: list[str]) -> None:
    assert [notice.kind for notice in notices_of(closed(**changes))] == kinds


def test_the_log_is_told_by_default(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PHARMAFED_NOTIFY_URLS", raising=False)
    notify(Notice("failure", "derm", "open_round: the store is away"))
    assert "failure in derm: open_round: the store is away" in caplog.text


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A real web hook on loopback, and what it was sent."""
    received: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"json://127.0.0.1:{server.server_port}/hook", received
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_web_hook_gets_the_notice(hook: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch) -> None:
    url, received = hook
    monkeypatch.setenv("PHARMAFED_NOTIFY_URLS", url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    notify(Notice("quorum missed", "derm", "9 of 13 contributed"))
    assert len(received) == 1
    assert received[0]["title"] == "pharmafed: quorum missed in derm"
    assert received[0]["message"] == "9 of 13 contributed"


def test_a_drift_alarm_names_the_exam(hook: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch) -> None:
    url, received = hook
    monkeypatch.setenv("PHARMAFED_NOTIFY_URLS", url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    notify(Notice("drift", "exam 107", "openai/x is worse"))
    assert (received[0]["title"], received[0]["message"]) == ("pharmafed: drift in exam 107", "openai/x is worse")


def test_a_channel_that_fails_breaks_no_round(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHARMAFED_NOTIFY_URLS", "json://127.0.0.1:9/nobody")
    notify(Notice("failure", "derm", "text"))
    assert "did not take the notice" in caplog.text


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("json://hub:s3cret@127.0.0.1:9/x", "did not take the notice"),
        ("nochannel://hub:s3cret@host/", "is no address that Apprise knows"),
        ("mailto://s3cret", "is no address that Apprise knows"),
    ],
)
def test_the_log_is_never_told_a_channels_password(
    url: str, problem: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHARMAFED_NOTIFY_URLS", url)
    with caplog.at_level("INFO"):
        notify(Notice("failure", "derm", "text"))
    assert f"channel 1 of PHARMAFED_NOTIFY_URLS {problem}: not told of pharmafed: failure in derm" in caplog.text
    assert "s3cret" not in caplog.text


def test_a_channel_that_fails_keeps_no_other_from_its_notice(
    hook: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, received = hook
    monkeypatch.setenv("PHARMAFED_NOTIFY_URLS", f"nochannel://x json://127.0.0.1:9/nobody {url}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    notify(Notice("failure", "derm", "text"))
    assert len(received) == 1


def test_a_channel_whose_code_breaks_is_logged_by_its_kind_alone(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(self: Apprise, **_: object) -> bool:
        raise ValueError("no such host: s3cret")

    monkeypatch.setattr(Apprise, "notify", breaks)
    monkeypatch.setenv("PHARMAFED_NOTIFY_URLS", "json://127.0.0.1:9/nobody")
    notify(Notice("failure", "derm", "text"))
    assert "channel 1 of PHARMAFED_NOTIFY_URLS broke (ValueError)" in caplog.text
    assert "s3cret" not in caplog.text
