"""Whoever waits for the engine is told why, and what is kept when it is stopped."""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks.errors import ConfigError, ModelUnavailable, RunIncomplete
from tasks.exam.asking import ask as asking
from tasks.exam.asking import engine_process
from tasks.exam.asking.questions import Patience, Waiting, make_job
from tasks.exam.runs.journal import Journal, read_replies
from tasks.exam.runs.run_files import load_run
from tasks.store.objects import to_json
from tests.exam.asking.test_ask import _answer
from tests.exam.exam_samples import MODEL, exam, item, settings
from tests.exam.scripted_server import Reply, Script, ScriptedServer

NOBODY = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIPTED_API_KEY", "sk-only-for-tests")


def test_a_host_that_cannot_be_reached_is_named_while_one_waits_and_in_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRIPTED_BASE_URL", f"http://user:secret@{NOBODY.removeprefix('http://')}/v1?token=secret")
    of, told = exam([item(1), item(2)]), []

    with pytest.raises(ModelUnavailable) as error:
        asking.ask(
            of,
            tmp_path,
            settings(of),
            tmp_path / "run",
            tell=lambda line: told.append((time.monotonic(), line)),
            patience=Patience(max_retries=1, attempt_timeout_s=2),
        )
    ended = time.monotonic()

    assert f"{MODEL} at {NOBODY} failed" in str(error.value)
    assert "secret" not in str(error.value)
    assert NOBODY not in error.value.__notes__[0], "notices leave the machine, addresses do not"
    (when, line), *_ = told
    assert f"no answer from {NOBODY} (" in line
    assert "each is tried 2 times" in line
    assert "secret" not in line
    assert ended - when > 1, "while one waits, not when all is over"
    assert not (tmp_path / "run" / "waiting.jsonl").exists()


def test_a_retry_that_helps_is_told_once_and_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of, told = exam([item(1)]), []
    busy = Reply(status=429, retry_after_s=0.05)  # three times: the provider's library tries again without a word
    with ScriptedServer(Script({"item-1;": (busy, busy, busy, Reply("答え: 1"))})) as server:
        monkeypatch.setenv("SCRIPTED_BASE_URL", server.url)
        asking.ask(of, tmp_path, settings(of), tmp_path / "run", tell=told.append)

    assert len(told) == 1, "not a line for each"
    assert server.url.removesuffix("/v1") in told[0]
    assert load_run(tmp_path / "run")[1][0].parsed == ("1",)
    assert not (tmp_path / "run" / "waiting.jsonl").exists()


def test_more_failed_calls_are_told_every_quarter_of_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of, told, now = exam([item(1)]), [], [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    waits = engine_process._Waits(
        tmp_path / "waiting.jsonl", make_job(of, tmp_path, settings(of), 1, Patience()), told.append
    )
    line = Waiting(address=None, message="Connection error").model_dump_json() + "\n"

    waits(0)
    for at, calls, done in (
        (100.0, 1, 0),
        (105.0, 3, 0),
        (114.9, 9, 0),
        (115.1, 12, 4),
        (130.2, 12, 4),
        (160.0, 12, 4),
    ):
        now[0] = at
        (tmp_path / "waiting.jsonl").write_text(line * calls + '{"torn')
        waits(done)

    failing = f"no answer from {MODEL} (Connection error): failed calls so far: {{}}; each is tried 7 times"
    assert [one.startswith(failing.format(calls)) for one, calls in zip(told, (1, 12), strict=False)] == [True, True]
    assert told[1].endswith("4 answers are kept")
    assert told[2:] == [f"no answer from {MODEL} for 45 s; 4 are kept"]


def test_ctrl_c_says_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = exam([item(number) for number in range(1, 4)])
    digests = {one.number: one.digest for one in of.items}
    with Journal(tmp_path / "answers.jsonl") as journal:
        for number in (1, 2):
            journal.append(_answer(number).model_copy(update={"item_digest": digests[number]}))
    engine = tmp_path / "engine.sh"
    engine.write_text("#!/bin/sh\nexec sleep 60\n")
    engine.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(engine))

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell it is ignored
    try:
        with pytest.raises(RunIncomplete, match=r"stopped \(Ctrl-C\).*2 of 3 answers are kept: run it again") as error:
            asking.ask(of, tmp_path, settings(of), tmp_path, progress=lambda *_: os.kill(os.getpid(), signal.SIGINT))
    finally:
        signal.signal(signal.SIGINT, before)

    assert error.value.__cause__ is None
    assert len(read_replies(tmp_path / "answers.jsonl")) == 2
    assert not (tmp_path / "run.json").exists()


def test_a_signal_to_the_whole_group_is_a_stop_and_no_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine may have ended by it before this process has heard of it."""
    of, engines, start = exam([item(1), item(2)]), [], engine_process._start
    monkeypatch.setattr(engine_process, "_start", lambda *given: engines.append(start(*given)) or engines[-1])
    script = Script({"item-2;": (Reply("", delay_s=60),)})
    with ScriptedServer(script) as server:
        monkeypatch.setenv("SCRIPTED_BASE_URL", server.url)
        with pytest.raises(RunIncomplete, match=r"stopped \(SIGTERM\)"):
            asking.ask(of, tmp_path, settings(of), tmp_path / "run", progress=lambda *_: engines[0].terminate())


def test_answers_of_another_host_are_not_mixed_in_a_folder_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = exam([item(1)])
    started = asking.Started(settings=settings(of), started_at=datetime.now(UTC), address="http://a.example:9")
    (tmp_path / "asking.json").write_bytes(to_json(started))
    monkeypatch.setenv("SCRIPTED_BASE_URL", NOBODY)
    with pytest.raises(ConfigError, match=f"answers of http://a.example:9, and the environment names {NOBODY}"):
        asking.ask(of, tmp_path, settings(of), tmp_path)
