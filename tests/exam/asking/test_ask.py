"""A model is asked over HTTP by a scripted server on loopback: replies of every kind, failures, kills, full disks."""

from __future__ import annotations

import errno
import gzip
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tasks.errors import ConfigError, DataError, ModelRefused, ModelUnavailable, RunIncomplete
from tasks.exam.asking import ask as asking
from tasks.exam.asking.collect import error_of
from tasks.exam.asking.questions import Patience, make_job
from tasks.exam.bank.records import Exam, ExamRun, Response
from tasks.exam.runs.journal import Journal, RawReply, read_replies
from tasks.exam.runs.run_files import load_run
from tasks.exam.scoring.score import score
from tasks.store.settings import PROJECT
from tests.exam.exam_samples import MODEL, exam, item, settings, write_picture
from tests.exam.scripted_server import Reply, Script, ScriptedServer

KEY = "sk-only-for-tests"
QUICK = Patience(max_retries=1, attempt_timeout_s=2, failures=3)
LONG = "長い説明。" * 2_000 + "\n答え: 4"
ENGLISH = "The second one is right.\n\nAnswer: 2"
MARKUP = "## 解答\n\n**答え: 3**\n</div>"
GOOD = Reply("答え: 1")
BUSY = Reply(status=429, retry_after_s=0.05)
REPLIES = {
    "item-1;": (Reply(""),),
    "item-2;": (Reply(LONG, output_tokens=10_000),),
    "item-3;": (Reply(ENGLISH),),
    "item-4;": (Reply(MARKUP),),
    "item-5;": (BUSY, GOOD),
    "item-6;": (Reply(status=500, retry_after_s=0.05), GOOD),
    "item-7;": (Reply(delay_s=4), GOOD),
    "item-8;": (Reply(drop=True), GOOD),
    "item-9;": (Reply(None),),
    "item-11;": (Reply("<think>答え: 5</think>\n\n答え: 2"),),
    "item-12;": (Reply("検討する。答え: 1 の可能性を", ended_by="length"),),
    "item-13;": (Reply("\ud800 答え: 4"),),
}


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("SCRIPTED_API_KEY", KEY)


@dataclass(frozen=True)
class Asked:
    """A finished run and the server's counts."""

    run: ExamRun
    responses: dict[tuple[str, int], Response]
    server: ScriptedServer
    folder: Path
    progress: list[tuple[int, int]]


def _pictured(folder: Path) -> Exam:
    items = [item(number) for number in range(1, 10)]
    items.append(item(10, no_solution=True, answers=()))
    items.append(item(11, diagram=True, images=(write_picture(folder),)))
    items += [item(12), item(13)]
    return exam(items)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """One run of two epochs with everything that a model may reply, and every failure that passes."""
    home = tmp_path_factory.mktemp("asked")
    of, progress = _pictured(home / "images"), []
    with pytest.MonkeyPatch.context() as patch, ScriptedServer(Script(REPLIES, key=KEY)) as server:
        patch.setenv("SCRIPTED_BASE_URL", server.url)
        patch.setenv("SCRIPTED_API_KEY", KEY)
        run = asking.ask(
            of,
            home / "images",
            settings(of, epochs=2, images=True, temperature=0.5, max_tokens=77),
            home / "run-1",
            max_connections=20,
            progress=lambda done, total: progress.append((done, total)),
            patience=Patience(max_retries=3, attempt_timeout_s=2),
        )
    responses = {(response.item, response.epoch): response for response in load_run(home / "run-1")[1]}
    return Asked(run, responses, server, home / "run-1", progress)


def test_every_item_with_a_solution_has_a_response_in_every_epoch(asked):
    wanted = [(f"t{number:03}", epoch) for number in (*range(1, 10), 11, 12, 13) for epoch in (1, 2)]

    assert list(asked.responses) == wanted
    assert asked.run.num_asked == 12
    assert asked.run.id == "run-1"
    assert asked.run.engine.startswith("inspect-ai ")
    assert asked.run.started_at <= min(response.asked_at for response in asked.responses.values())
    assert asked.progress[-1] == (24, 24)


def test_an_item_without_a_solution_is_never_sent(asked):
    assert len(asked.server.bodies) >= 24
    assert not [body for body in asked.server.bodies if "item-10;" in str(body)]


@pytest.mark.parametrize(
    ("name", "raw", "parsed"),
    [
        ("t001", "", None),
        ("t002", LONG, ("4",)),
        ("t003", ENGLISH, ("2",)),
        ("t004", MARKUP, ("3",)),
        ("t009", "", None),
        ("t011", "答え: 2", ("2",)),
        ("t012", "検討する。答え: 1 の可能性を", None),
        ("t013", "\ufffd 答え: 4", ("4",)),
    ],
    ids=[
        "nothing",
        "10 000 tokens",
        "another language",
        "markup",
        "null",
        "no thoughts",
        "cut off",
        "half a character",
    ],
)
def test_whatever_a_model_says_is_kept_word_for_word(asked, name, raw, parsed):
    for epoch in (1, 2):
        assert asked.responses[name, epoch].raw == raw
        assert asked.responses[name, epoch].parsed == parsed


@pytest.mark.parametrize("number", [5, 6, 7, 8], ids=["429", "500", "time-out", "connection lost"])
def test_a_failure_that_passes_is_retried_and_leaves_no_trace(asked, number):
    part = f"item-{number};"

    assert asked.server.asked[part] == 3, "two epochs and one retry"
    assert [asked.responses[f"t{number:03}", epoch].raw for epoch in (1, 2)] == ["答え: 1", "答え: 1"]


def test_what_is_sent_is_what_the_settings_say(asked):
    body = asked.server.bodies[0]

    assert (body["temperature"], body["max_tokens"], body["model"]) == (0.5, 77, "echo")
    assert body["messages"][0]["role"] == "system"


def test_a_picture_goes_with_its_item_alone(asked):
    with_picture = [body for body in asked.server.bodies if "data:image/png;base64,iVBOR" in str(body)]

    assert len(with_picture) == 2
    assert all("item-11;" in str(body) for body in with_picture)


def test_a_reply_that_the_limit_of_tokens_ended_says_so(asked):
    assert {asked.responses["t012", epoch].stop_reason for epoch in (1, 2)} == {"max_tokens"}
    assert asked.responses["t011", 1].stop_reason == "stop"


def test_what_a_run_leaves_is_for_its_user_alone_and_without_traces(asked):
    modes = {path.name: path.stat().st_mode & 0o077 for path in asked.folder.rglob("*") if path.is_file()}

    assert set(modes.values()) == {0}
    assert len(list((asked.folder / "engine").glob("*.json"))) == 1, "inspect's own log"
    assert not (asked.folder / "engine" / "inspect_ai").exists()


def test_tokens_and_the_model_that_answered_are_kept(asked):
    response = asked.responses["t002", 1]

    assert (response.input_tokens, response.output_tokens) == (100, 10_000)
    assert response.model == "scripted-2026-01-01"
    assert response.cost is None, "nobody knows the price of this model"
    assert asked.responses["t007", 1].seconds < 2, "of the call that succeeded"


def test_a_finished_run_is_not_asked_again(asked, monkeypatch):
    monkeypatch.setenv("SCRIPTED_BASE_URL", "http://127.0.0.1:9/v1")
    images = asked.folder.parent / "images"

    assert asking.ask(_pictured(images), images, asked.run.settings, asked.folder) == asked.run
    assert not (asked.folder / "answers.jsonl").exists()


def test_other_settings_need_another_folder(asked):
    images = asked.folder.parent / "images"
    other = asked.run.settings.model_copy(update={"temperature": 0.0, "epochs": 3})

    with pytest.raises(ConfigError, match="other temperature, epochs: choose a new folder"):
        asking.ask(_pictured(images), images, other, asked.folder)


def test_a_response_edited_after_the_run_is_noticed(asked, tmp_path):
    images, folder = asked.folder.parent / "images", tmp_path / "run-1"
    folder.mkdir()
    for name in ("run.json", "responses.jsonl"):
        (folder / name).write_bytes((asked.folder / name).read_bytes())
    content = (folder / "responses.jsonl").read_bytes()
    (folder / "responses.jsonl").write_bytes(content.replace(b'"parsed":["2"]', b'"parsed":["1"]', 1))

    with pytest.raises(DataError, match="sha256"):
        asking.ask(_pictured(images), images, asked.run.settings, folder)


def _ask(url: str, folder: Path, of: Exam, monkeypatch: pytest.MonkeyPatch, patience: Patience = QUICK) -> ExamRun:
    monkeypatch.setenv("SCRIPTED_BASE_URL", url)
    return asking.ask(of, folder, settings(of), folder, max_connections=4, patience=patience)


def _no_report(folder: Path) -> bool:
    return not (folder / "run.json").exists() and not (folder / "responses.jsonl").exists()


def test_a_wrong_key_ends_the_run_at_once_and_is_told_to_nobody(tmp_path, monkeypatch):
    of, folder = exam([item(number) for number in range(1, 31)]), tmp_path / "run"
    monkeypatch.setenv("SCRIPTED_API_KEY", "sk-wrong-0123456789")

    with ScriptedServer(Script(key=KEY)) as server, pytest.raises(ModelRefused) as error:
        _ask(server.url, folder, of, monkeypatch)

    said = str(error.value)
    assert all(part in said for part in (MODEL, "item t0", "status 401", "0 of 30", "Check the API key"))
    assert server.asked["(wrong key)"] <= 4, "only the calls that were in flight"
    assert "sk-wrong" not in said
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    plain = {path: gzip.decompress(body) if path.suffix == ".gz" else body for path, body in kept.items()}
    assert [path for path, body in plain.items() if b"sk-wrong" in body or b"0123456789" in body] == []
    assert any(path.parent.name == "engine" and b"<SCRIPTED_API_KEY>" in body for path, body in plain.items())
    assert [path for path in kept if path.stat().st_mode & 0o077] == []
    assert not (folder / "engine" / "inspect_ai").exists()
    assert _no_report(folder)


def test_a_model_that_cannot_be_set_up_is_refused_before_the_first_item(tmp_path, monkeypatch):
    from tasks.exam.asking import engine

    monkeypatch.delenv("SCRIPTED_API_KEY")
    of = exam([item(1)])
    job = make_job(of, tmp_path, settings(of), 1, QUICK)

    with Journal(tmp_path / "answers.jsonl") as journal:
        error = error_of(engine.run(job, journal), MODEL, 0, 1)

    assert isinstance(error, ModelRefused)
    assert re.search(r"before the first item.*SCRIPTED_API_KEY", str(error))


def test_a_server_error_that_stays_blocks_the_run_and_keeps_the_other_answers(tmp_path, monkeypatch):
    of, folder = exam([item(number) for number in range(1, 7)]), tmp_path / "run"
    down = Reply(status=500, retry_after_s=0.05)

    with ScriptedServer(Script({"item-3;": (down,)}, key=KEY)) as server, pytest.raises(ModelUnavailable) as error:
        _ask(server.url, folder, of, monkeypatch)

    assert _no_report(folder)
    assert read_replies(folder / "answers.jsonl").keys() == {(f"t{n:03}", 1) for n in (1, 2, 4, 5, 6)}
    assert all(part in str(error.value) for part in (MODEL, "item t003", "status 500", "5 of 6", "later"))


def test_an_item_that_never_works_is_left_and_the_paid_answers_are_scored(tmp_path, monkeypatch):
    of, folder = exam([item(number) for number in range(1, 7)]), tmp_path / "run"
    down = Reply(status=500, retry_after_s=0.05)
    with ScriptedServer(Script({"item-3;": (down,)}, key=KEY)) as server:
        with pytest.raises(ModelUnavailable, match=r"What never works can be left: --leave t003$"):
            _ask(server.url, folder, of, monkeypatch)
        asked = server.asked.total()
        run = asking.ask(of, folder, settings(of), folder, leave=("t003", "t004"))

    assert server.asked.total() == asked, "nothing is asked any more"
    assert (run.left, run.num_asked) == (("t003",), 5), "an answer that is there is kept"
    assert load_run(folder)[0] == run
    found = score(of, *load_run(folder))
    assert (found.coverage.missing, found.passed, found.points, found.most) == ((3,), None, 10, (6, 12))
    assert [one.passed for one in found.criteria if one.name == "points"] in ([True], [None])


def test_a_run_of_which_nothing_is_left_out_is_written_as_ever(asked):
    assert asked.run.left == ()
    assert b'"left"' not in (asked.folder / "run.json").read_bytes()


@pytest.mark.parametrize("place", ["file", "file/run", "/sys/run", "/proc/run"])
def test_a_folder_that_cannot_hold_a_run_is_one_sentence(tmp_path, monkeypatch, place):
    (tmp_path / "file").write_text("mine")

    with pytest.raises(ConfigError, match=r"cannot hold a run \(.+\): name a folder that can be written$") as error:
        _ask("http://127.0.0.1:9/v1", tmp_path / place, exam([item(1)]), monkeypatch)

    assert str(tmp_path / place) in str(error.value)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_without_the_right_to_write_is_one_sentence(tmp_path, monkeypatch):
    """Whoever runs the tests may be root, whom no rights keep out."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)

    with pytest.raises(ConfigError, match=r"cannot hold a run \(Permission denied\)"):
        _ask("http://127.0.0.1:9/v1", tmp_path, exam([item(1)]), monkeypatch)


def test_an_engine_that_dies_before_it_has_read_its_job_leaves_no_run(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    of = exam([item(number) for number in range(1, 1001)])

    with pytest.raises(RunIncomplete, match=r"ended with status 1 and 0 of 1000 answers of .*engine\.log"):
        _ask("http://127.0.0.1:9/v1", tmp_path, of, monkeypatch)
    assert _no_report(tmp_path)


_KILLED = """
import sys
from pathlib import Path
from tests.exam.exam_samples import exam, item, settings
from tasks.exam.asking.ask import ask
of = exam([item(number) for number in range(1, 41)])
ask(of, Path(sys.argv[1]), settings(of), Path(sys.argv[1]), max_connections=4)
"""


def test_after_kill_9_no_answered_item_is_asked_again(tmp_path, monkeypatch):
    of, folder = exam([item(number) for number in range(1, 41)]), tmp_path / "run"
    replies = {f"item-{number};": (GOOD,) for number in range(1, 41)}
    with ScriptedServer(Script(replies, latency_s=0.1, key=KEY)) as server:
        environment = {**os.environ, "SCRIPTED_BASE_URL": server.url, "PYTHONPATH": str(PROJECT)}
        process = subprocess.Popen([sys.executable, "-c", _KILLED, str(folder)], env=environment)
        _wait(lambda: server.answered.total() >= 16)
        process.send_signal(signal.SIGKILL)
        process.wait()
        _wait(lambda: _is_free(folder))
        stopped_at = server.answered.total()
        kept = read_replies(folder / "answers.jsonl")
        run = _ask(server.url, folder, of, monkeypatch)

    assert 16 <= stopped_at < 40, "killed in the middle, and the engine died with its parent"
    assert run.num_asked == 40
    assert len(kept) >= 12, "at most the four calls in flight are lost"
    assert [server.asked[f"item-{int(name[1:])};"] for name, _ in kept] == [1] * len(kept)
    assert server.asked.total() <= 40 + 4


def _is_free(folder: Path) -> bool:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asking, "_LOCK_WAIT_S", 0.0)
        try:
            with asking._alone(folder):
                return True
        except RunIncomplete:
            return False


def test_a_run_that_is_told_to_stop_says_so_and_keeps_its_answers(tmp_path, monkeypatch):
    """As Airflow does to a task that is cleared: SIGTERM, which its own handler gets too, and seconds later SIGKILL."""
    of, heard = exam([item(number) for number in range(1, 4)]), []
    _keep(tmp_path, of, (1, 2))
    engine = tmp_path / "engine.sh"
    engine.write_text("#!/bin/sh\nexec sleep 60\n")
    engine.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(engine))
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with pytest.raises(
            RunIncomplete, match=rf"stopped \(SIGTERM\) while {MODEL} was asked\. 2 of 3 answers are kept"
        ):
            asking.ask(of, tmp_path, settings(of), tmp_path, progress=lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert heard == [signal.SIGTERM] * 2, "handed on, and the handler is the old one again"
    assert _is_free(tmp_path), "the engine has been ended"
    assert _no_report(tmp_path)
    assert len(read_replies(tmp_path / "answers.jsonl")) == 2


def _keep(folder: Path, of: Exam, numbers: Sequence[int]) -> None:
    """Answers that an earlier process has left."""
    digests = {one.number: one.digest for one in of.items}
    with Journal(folder / "answers.jsonl") as journal:
        for number in numbers:
            journal.append(_answer(number).model_copy(update={"item_digest": digests[number]}))


def _wait(until, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not until():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_two_processes_never_ask_in_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(asking, "_LOCK_WAIT_S", 0.3)
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with asking._alone(tmp_path):
            entered.set()
            leave.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    entered.wait(10)
    with pytest.raises(RunIncomplete, match="another process is asking"):
        _ask("http://127.0.0.1:9/v1", tmp_path, exam([item(1)]), monkeypatch)
    leave.set()
    holder.join()


def test_a_torn_last_line_is_asked_again_and_a_damaged_one_is_refused(tmp_path):
    path = tmp_path / "answers.jsonl"
    with Journal(path) as journal:
        journal.append(_answer(1))
        journal.append(_answer(2))
    path.write_bytes(path.read_bytes() + b'{"item":"t003","raw":"half')

    with Journal(path) as journal:
        assert [key[0] for key in journal.answers] == ["t001", "t002"]
        journal.append(_answer(3))
    assert [key[0] for key in read_replies(path)] == ["t001", "t002", "t003"]

    path.write_bytes(path.read_bytes().replace(b'"item":"t002"', b'"itm":"t002"'))
    with pytest.raises(RunIncomplete, match="line 2 is not an answer"):
        read_replies(path)


def _answer(number: int) -> RawReply:
    return RawReply.model_validate(
        {
            "item": f"t{number:03}",
            "item_digest": "0" * 64,
            "epoch": 1,
            "model": "m",
            "raw": "答え: 1",
            "input_tokens": 1,
            "output_tokens": 1,
            "seconds": 0.1,
            "asked_at": "2026-01-01T00:00:00Z",
        }
    )


def test_a_full_disk_leaves_whole_answers_only(tmp_path, monkeypatch):
    path, write, calls = tmp_path / "answers.jsonl", os.write, []

    def full(descriptor: int, content: bytes) -> int:
        """Takes the first 30 bytes, and then no more."""
        calls.append(len(content))
        if len(calls) == 1:
            return write(descriptor, content[:30])
        raise OSError(errno.ENOSPC, "No space left on device")

    with Journal(path) as journal:
        journal.append(_answer(1))
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(OSError, match="No space left"):
                journal.append(_answer(2))
        assert len(calls) == 2
        assert path.read_bytes().endswith(b"}\n"), "no half line"
        assert list(read_replies(path)) == [("t001", 1)]
        journal.append(_answer(3))

    assert list(read_replies(path)) == [("t001", 1), ("t003", 1)]


def test_a_disk_that_is_full_when_the_run_is_written_keeps_the_answers(tmp_path, monkeypatch):
    of = exam([item(1), item(2)])
    _keep(tmp_path, of, (1, 2))

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "executable", "/bin/false")  # nothing is left to be asked
    with monkeypatch.context() as patch:
        patch.setattr("tasks.exam.runs.run_files.write_private", full)
        with pytest.raises(DataError, match="No space left on device"):
            _ask("http://127.0.0.1:9/v1", tmp_path, of, monkeypatch)
    assert _no_report(tmp_path)
    assert len(read_replies(tmp_path / "answers.jsonl")) == 2

    assert _ask("http://127.0.0.1:9/v1", tmp_path, of, monkeypatch).num_asked == 2
