"""A run comes back as it was written, or an error says what happened to it; a full disk leaves nothing behind."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.errors import DataError
from tasks.exam.bank.records import UNSEALED
from tasks.exam.comparing.archive import write_scores
from tasks.exam.runs.run_files import load_run, responses_sha256, write_run
from tasks.exam.scoring.score import score
from tasks.exam.scoring.score_records import Scores
from tests.exam.paper_samples import exam, item, responses, run

EXAM = exam(item(number) for number in range(1, 21))
GIVEN = responses(EXAM, range(1, 15))
RUN = run(EXAM, GIVEN)


@contextmanager
def disk_full(after_bytes: int) -> Iterator[None]:
    """Files of this process cannot grow beyond that: the kernel cuts the write short, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_run_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert write_run(tmp_path / "a", RUN.model_copy(update={"responses_sha256": UNSEALED}), GIVEN) == RUN
    assert load_run(tmp_path / "a") == (RUN, tuple(GIVEN))
    lines = (tmp_path / "a" / "responses.jsonl").read_bytes().splitlines()
    assert len(lines) == 20
    assert all(b": " not in line.replace(b"Answer: ", b"") for line in lines)
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"run.json", "responses.jsonl"}


def test_a_record_from_before_a_field_came_keeps_its_seal(tmp_path: Path) -> None:
    """A reply that ended by itself is written as it was before `stop_reason`; only another reason adds to the line."""
    write_run(tmp_path, RUN, GIVEN)
    assert b"stop_reason" not in (tmp_path / "responses.jsonl").read_bytes()
    run_read, read = load_run(tmp_path)
    assert (read[0].stop_reason, responses_sha256(read)) == ("stop", run_read.responses_sha256)
    cut = [GIVEN[0].model_copy(update={"stop_reason": "max_tokens"}), *GIVEN[1:]]
    write_run(tmp_path / "cut", run(EXAM, cut), cut)
    assert load_run(tmp_path / "cut")[1] == tuple(cut)


def test_lines_break_only_between_responses(tmp_path: Path) -> None:
    odd = [GIVEN[0].model_copy(update={"raw": "3\n\r\u2028\x85\x0b\x1c\x00 ２"}), *GIVEN[1:]]
    write_run(tmp_path, run(EXAM, odd), odd)
    assert load_run(tmp_path)[1] == tuple(odd)


def test_writing_the_same_run_again_is_harmless_and_another_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path, RUN, GIVEN)
    write_run(tmp_path, RUN, GIVEN)
    other = responses(EXAM, ())
    with pytest.raises(DataError, match="runs are never changed"):
        write_run(tmp_path, run(EXAM, other), other)
    assert load_run(tmp_path) == (RUN, tuple(GIVEN))


def test_a_seal_of_other_responses_is_refused(tmp_path: Path) -> None:
    other = responses(EXAM, ())
    with pytest.raises(DataError, match=f"{RUN.responses_sha256}.*{responses_sha256(other)}"):
        write_run(tmp_path, RUN, other)
    assert list(tmp_path.iterdir()) == []


def test_a_response_file_that_was_edited_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path, RUN, GIVEN)
    path = tmp_path / "responses.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"parsed":["5"]', b'"parsed":["1"]', 1))
    with pytest.raises(DataError, match=rf"responses\.jsonl has sha256 .*run\.json says {RUN.responses_sha256}"):
        load_run(tmp_path)


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"run\.json is missing: there is no finished run"):
        load_run(tmp_path)
    write_run(tmp_path, RUN, GIVEN)
    (tmp_path / "responses.jsonl").unlink()
    with pytest.raises(DataError, match=r"responses\.jsonl is missing"):
        load_run(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(DataError, match=r"run\.json is no record of a run"):
        load_run(tmp_path)


def test_a_sealed_line_that_is_no_response_is_named(tmp_path: Path) -> None:
    write_run(tmp_path, RUN, GIVEN)
    content = (tmp_path / "responses.jsonl").read_bytes() + b"{}\n"
    (tmp_path / "responses.jsonl").write_bytes(content)
    record = json.loads((tmp_path / "run.json").read_bytes())
    record["responses_sha256"] = hashlib.sha256(content).hexdigest()
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match="line 21 is no response"):
        load_run(tmp_path)


@pytest.mark.parametrize("room", [0, 100, 4000])
def test_a_full_disk_leaves_no_half_run(tmp_path: Path, room: int) -> None:
    with disk_full(room), pytest.raises(DataError, match=r"could not be written .*free space"):
        write_run(tmp_path / "run", RUN, GIVEN)
    assert list((tmp_path / "run").iterdir()) == []
    assert write_run(tmp_path / "run", RUN, GIVEN) == RUN
    assert load_run(tmp_path / "run")[0] == RUN


def test_a_disk_that_fills_between_the_two_files_leaves_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, calls = os.fsync, []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 3:  # file and folder of responses.jsonl, then run.json
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DataError, match="No space left on device"):
        write_run(tmp_path, RUN, GIVEN)
    assert list(tmp_path.iterdir()) == []


def test_scores_that_cannot_be_replaced_stay_as_they_were(tmp_path: Path) -> None:
    write_run(tmp_path, RUN, GIVEN)
    found = score(EXAM, RUN, GIVEN)
    write_scores(tmp_path, found)
    with disk_full(100), pytest.raises(DataError, match="free space"):
        write_scores(tmp_path, found.model_copy(update={"passed": None}))
    assert Scores.model_validate_json((tmp_path / "scores.json").read_bytes()) == found
    assert load_run(tmp_path)[0] == RUN
