"""A run on disk: `responses.jsonl`, and `run.json` with its seal, written last. Without run.json there is no run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from tasks.errors import DataError
from tasks.exam.bank.records import UNSEALED, ExamRun, Response
from tasks.foreign.files import read_ordinary
from tasks.store.files import write_private
from tasks.store.objects import to_json

#: Ten thousand items in ten epochs, with long answers.
MAX_BYTES = 1 << 30
RUN, RESPONSES, SCORES = "run.json", "responses.jsonl", "scores.json"


def encode_responses(responses: Iterable[Response]) -> bytes:
    """One compact JSON record per line, in the order given: by item number, then epoch."""
    return b"".join(response.model_dump_json().encode() + b"\n" for response in responses)


def responses_sha256(responses: Iterable[Response]) -> str:
    """The seal of these responses, as run.json holds it."""
    return hashlib.sha256(encode_responses(responses)).hexdigest()


def write_run(folder: Path, run: ExamRun, responses: Sequence[Response]) -> ExamRun:
    """Write a finished run, whole or not at all, and return it with its seal. The same run again is harmless.

    Raises:
        DataError: `run` has another seal already, the folder holds another run, or the disk does not take it.
    """
    content = encode_responses(responses)
    seal = hashlib.sha256(content).hexdigest()
    if run.responses_sha256 not in (UNSEALED, seal):
        raise DataError(f"run {run.id} is sealed with {run.responses_sha256}, but its responses have sha256 {seal}")
    sealed = run.model_copy(update={"responses_sha256": seal})
    if not (folder / RUN).exists():
        write_files(folder, {RESPONSES: content, RUN: to_json(sealed)})
    elif load_run(folder)[0] != sealed:
        raise DataError(
            f"{folder} holds another run, and runs are never changed: write {run.id} to a folder of its own"
        )
    return sealed


def load_run(folder: Path) -> tuple[ExamRun, tuple[Response, ...]]:
    """A run and its responses, once the seal has been checked.

    Raises:
        DataError: there is no finished run, a file is no such record, or the responses were changed after the run.
    """
    run = _read_record(folder / RUN)
    content = _read(folder / RESPONSES)
    found = hashlib.sha256(content).hexdigest()
    if found != run.responses_sha256:
        raise DataError(
            f"{folder / RESPONSES} has sha256 {found}, but {folder / RUN} says {run.responses_sha256}: it was changed "
            "after the run; restore it or ask again"
        )
    return run, tuple(_response(folder, number, line) for number, line in enumerate(content.splitlines(), 1))


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Each file in one durable step, in order; files that were not there before are all written, or none.

    Raises:
        DataError: the disk does not take it.
    """
    new = [folder / name for name in files if not (folder / name).exists()]
    try:
        for name, content in files.items():
            write_private(folder / name, content)
    except OSError as error:
        for path in (*folder.glob(f".*.{os.getpid()}"), *new):
            path.unlink(missing_ok=True)
        reason = error.strerror or type(error).__name__
        raise DataError(f"{folder} could not be written ({reason}): free space and try again") from None


def _read_record(path: Path) -> ExamRun:
    try:
        return ExamRun.model_validate_json(_read(path))
    except ValidationError as error:
        raise DataError(
            f"{path} is no record of a run ({error.error_count()} errors): restore it or ask again"
        ) from None


def _response(folder: Path, number: int, line: bytes) -> Response:
    try:
        return Response.model_validate_json(line)
    except ValidationError:
        raise DataError(f"{folder / RESPONSES}, line {number} is no response: restore the file or ask again") from None


def _read(path: Path) -> bytes:
    try:
        return read_ordinary(path, MAX_BYTES, DataError)
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing: there is no finished run in this folder; run it again to finish it"
        ) from None
    except OSError as error:
        reason = f"{path.parent} is a file" if path.parent.is_file() else error.strerror or type(error).__name__
        raise DataError(f"{path} cannot be read ({reason}): name a run's folder") from None
