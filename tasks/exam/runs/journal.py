"""What a model has answered so far: a line per answer, written the moment that it arrives.

It outlives kill -9 of the process that writes it, so no answered item is ever asked again; the engine's own log may lag
ten answers behind. A power cut can cost the last seconds' answers.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationError

from tasks.errors import RunIncomplete
from tasks.exam.bank.records import STOP
from tasks.exam.runs.run_files import MAX_BYTES
from tasks.foreign.files import read_ordinary
from tasks.store.records.record import Digest, Record

ReplyKey = tuple[str, int]


def _whole(text: object) -> object:
    """Halves of characters, which JSON can spell and UTF-8 cannot, joined where they belong together or marked."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(text, str) else text


WholeText = Annotated[str, BeforeValidator(_whole)]


class RawReply(Record):
    """One reply as it came, before anything is read into it."""

    item: str
    item_digest: Digest
    epoch: int = Field(ge=1)
    model: WholeText = Field(description="the model that says it answered")
    raw: WholeText = Field(description="the reply's text; inspect leaves a <think> block out of it")
    stop_reason: str = Field(default=STOP, description="why the reply ends, as inspect names it")
    input_tokens: int = Field(ge=0)
    output_tokens: int = Field(ge=0)
    seconds: float = Field(ge=0, description="of the call that succeeded, without retries before it")
    asked_at: datetime

    @property
    def key(self) -> ReplyKey:
        """An item is asked once in each epoch."""
        return self.item, self.epoch


class Journal:
    """The open file. One process at a time; `answers` maps (item, epoch) to what was answered."""

    def __init__(self, path: Path) -> None:
        """Open `path`, made if missing. A last line that a killed process left torn is cut off.

        Raises:
            RunIncomplete: a line before the last does not hold an answer.
        """
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        self.answers = read_replies(path)
        content = _read(path)
        os.ftruncate(self._file, content.rfind(b"\n") + 1)
        self._size = os.lseek(self._file, 0, os.SEEK_END)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def append(self, answer: RawReply) -> None:
        """Keep `answer`: whole, or not at all.

        Raises:
            OSError: it cannot be written, for example because the disk is full.
        """
        line = answer.model_dump_json().encode() + b"\n"
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError:
            os.ftruncate(self._file, self._size)
            os.lseek(self._file, self._size, os.SEEK_SET)
            raise
        self._size += len(line)
        self.answers[answer.key] = answer


def read_replies(path: Path) -> dict[ReplyKey, RawReply]:
    """The answers in `path`, without a torn last line; empty where there is no file.

    Raises:
        RunIncomplete: a line before the last does not hold an answer.
    """
    if not path.exists():
        return {}
    lines = _read(path).split(b"\n")[:-1]
    answers = [_answer(path, number, line) for number, line in enumerate(lines, start=1)]
    return {answer.key: answer for answer in answers}


def _read(path: Path) -> bytes:
    return read_ordinary(path, MAX_BYTES, RunIncomplete)


def _answer(path: Path, number: int, line: bytes) -> RawReply:
    try:
        return RawReply.model_validate_json(line)
    except ValidationError:
        raise RunIncomplete(
            f"{path} line {number} is not an answer: restore the file, or remove the run's folder"
        ) from None


class ReplyCount:
    """How many answers a growing journal holds, reading each byte once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._lines = 0

    def __call__(self) -> int:
        """Whole lines so far."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
            self._offset += len(new)
            self._lines += new.count(b"\n")
        return self._lines
