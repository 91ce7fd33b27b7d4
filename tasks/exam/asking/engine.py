"""The engine's process: inspect-ai sends the questions of one run and the journal takes the answers.

`python -m tasks.exam.asking.engine`, started by `ask` in the run's folder: one `EngineJob` as a line of JSON on
standard input, which stays open for as long as the run is wanted. It leaves `answers.jsonl`, and `failures.json` if a
call failed. Exit status 0 means that every question has been answered. inspect's own log, for `inspect view`, lies in
`engine/`; whatever is kept there is readable for this user alone, and never holds a key that a provider has echoed.

Nothing is cached: a cache would answer for the model and hide that it has changed.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from inspect_ai import Task
from inspect_ai import eval as run_task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.event import ModelEvent
from inspect_ai.log import transcript
from inspect_ai.model import (
    ChatMessageSystem,
    ChatMessageUser,
    Content,
    ContentImage,
    ContentText,
    Model,
    ModelOutput,
    get_model,
)
from inspect_ai.solver import Generate, Solver, TaskState, solver

from tasks.exam.asking.model_address import host_of
from tasks.exam.asking.questions import BUNDLED, WAITING, EngineJob, Failure, Failures, Question, Waiting
from tasks.exam.asking.redaction import holds_a_key, redact, server_words
from tasks.exam.runs.journal import Journal, RawReply
from tasks.store.files import write_private
from tasks.store.objects import to_json

_REFUSING = {401: "refused", 402: "refused", 403: "refused", 404: "refused"}
#: Of a message that says nothing of the reason, as "Connection error".
_SHORT = 40
_MARKUP = re.compile(r"\[/?[a-z ]+\]")


class _GivenUp(Exception):
    """The run has failed already; this question is not sent."""


class _Failed(Exception):
    """A call failed. Says so in words that inspect may write down."""


class _Calls:
    """Sends each question once, keeps its answer, and stops after a refusal or too many failures."""

    def __init__(self, job: EngineJob, model: Model, journal: Journal) -> None:
        self._digests = {question.item: question.item_digest for question in job.questions}
        self._patience = job.patience
        self._model = model
        self._journal = journal
        self.failures: list[Failure] = []

    async def answer(self, state: TaskState) -> RawReply:
        """What the model says, now or before the process was killed."""
        key = (str(state.sample_id), state.epoch)
        known = self._journal.answers.get(key)
        if known is not None:
            return known
        if self._hopeless():
            raise _GivenUp
        try:
            answer = await self._ask(state)
            self._journal.append(answer)
        except Exception as error:
            failure = _failure(error, key[0], self._model)
            self.failures.append(failure)
            _reword(failure.message)
            raise _Failed(failure.message) from None
        return answer

    def _hopeless(self) -> bool:
        refused = any(failure.kind == "refused" for failure in self.failures)
        return refused or len(self.failures) >= self._patience.failures

    async def _ask(self, state: TaskState) -> RawReply:
        began = time.monotonic()
        output = await self._model.generate(state.messages)
        seconds = output.time if output.time is not None else time.monotonic() - began
        if output.usage is None and output.stop_reason == "model_length":
            raise ValueError(f"the prompt is longer than the model takes: {output.completion}")
        item = str(state.sample_id)
        return RawReply(
            item=item,
            item_digest=self._digests[item],
            epoch=state.epoch,
            model=output.model,
            raw=output.completion,
            stop_reason=output.stop_reason,
            input_tokens=output.usage.input_tokens if output.usage else 0,
            output_tokens=output.usage.output_tokens if output.usage else 0,
            seconds=seconds,
            asked_at=datetime.now(UTC) - timedelta(seconds=seconds),
        )


@solver
def _ask_once(calls: _Calls) -> Solver:
    async def solve(state: TaskState, generate: Generate) -> TaskState:
        answer = await calls.answer(state)
        state.output = ModelOutput.from_content(answer.model, answer.raw)
        state.messages.append(state.output.message)
        return state

    return solve


def _sample(question: Question, system: str) -> Sample:
    told, asked = question.text[: question.case_end], question.text[question.case_end :]
    content: list[Content] = [ContentText(text=told)] if told else []
    content += [ContentImage(image=path) for path in question.case_images]
    content += [ContentText(text=asked), *(ContentImage(image=path) for path in question.images)]
    return Sample(id=question.item, input=[ChatMessageSystem(content=system), ChatMessageUser(content=content)])


def _reword(message: str) -> None:
    """In inspect's log, the words of a call that failed: it keeps the provider's, and every frame that they passed."""
    for event in transcript().events:
        if isinstance(event, ModelEvent) and event.error is not None:
            event.error, event.traceback, event.traceback_ansi = message, None, None


def _failure(error: BaseException, item: str | None, model: Model | None) -> Failure:
    """`error` without what it must not tell: keys that a server echoes."""
    attempt = getattr(error, "last_attempt", None)
    cause = (attempt.exception() if attempt is not None else None) or error
    status = getattr(cause, "status_code", None) or getattr(cause, "code", None)
    status = status if isinstance(status, int) else None
    kind = "unavailable" if model is not None and Model.should_retry(model, cause) else "broken"
    kind = _REFUSING.get(status or 0, kind) if item is not None else "refused"
    said = {"message": _words(cause), "address": None if model is None else _address(model)}
    return Failure.model_validate({"kind": kind, "item": item, "status": status, **said})


def _words(error: BaseException) -> str:
    """What `error` says, and where that is little the reason beneath it, without keys that a server echoes."""
    said = (
        _MARKUP.sub("", " ".join((server_words(error) or str(error)).split())).removeprefix("ERROR: ").rstrip(".")
        or type(error).__name__
    )
    beneath = error
    while beneath.__cause__ is not None:
        beneath = beneath.__cause__
    if beneath is not error and len(said) < _SHORT and (reason := " ".join(str(beneath).split())) not in ("", said):
        said += f" ({reason})"
    return redact(said)[:500]


def _address(model: Model) -> str | None:
    """That of the model's host, where its provider has one."""
    holders = (model.api, getattr(model.api, "client", None))
    found = (host_of(str(getattr(holder, "base_url", None) or "")) for holder in holders)
    return next((address for address in found if address), None)


def _tell_of_retries(model: Model) -> None:
    """Each call that failed and is tried again leaves a line in `waiting.jsonl`: whoever waits is told why."""
    address, retried = _address(model), model.should_retry

    def should_retry(error: BaseException) -> bool:
        again = retried(error)
        if again:
            line = Waiting(address=address, message=_words(error)).model_dump_json().encode()
            with os.fdopen(os.open(WAITING, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as file:
                file.write(line + b"\n")
        return again

    model.should_retry = should_retry  # type: ignore[method-assign,assignment]  # inspect asks it before every retry


def _find_model(name: str) -> Model:
    """The model as inspect names it, or the bundled one.

    Raises:
        ModelRefused: the bundled model is not installed.
        Exception: whatever inspect or the provider says of a missing key or package, or of an unknown name.
    """
    if name.startswith(BUNDLED):
        from tasks.exam.asking import local_model

        local_model.register()
    return get_model(name)


def run(job: EngineJob, journal: Journal) -> list[Failure]:
    """Ask what the journal does not hold yet. Returns the calls that failed; the journal holds all the others."""
    try:
        model = _find_model(job.settings.model)
    except (Exception, SystemExit) as error:
        if isinstance(error, OSError):
            raise
        return [_failure(error, None, None)]
    _tell_of_retries(model)
    calls = _Calls(job, model, journal)
    # A model on this processor answers one at a time; waiting for its turn would count against the time-out.
    connections = 1 if job.settings.model.startswith(BUNDLED) else job.max_connections
    task = Task(
        name=job.settings.exam,
        dataset=MemoryDataset([_sample(question, job.system) for question in job.questions]),
        solver=_ask_once(calls),
        epochs=job.settings.epochs,
    )
    run_task(
        task,
        model=model,
        log_dir="engine",
        log_format="json",
        # Once, at the end: the journal is the record, and inspect writes its whole log anew at each flush.
        log_buffer=len(job.questions) * job.settings.epochs + 1,
        log_realtime=False,
        log_model_api=False,
        log_images=False,
        display="none",
        ctl_server=False,
        acp_server=False,
        fail_on_error=False,
        score=False,
        max_samples=connections,
        max_connections=connections,
        temperature=job.settings.temperature,
        max_tokens=job.settings.max_tokens,
        max_retries=job.patience.max_retries,
        attempt_timeout=job.patience.attempt_timeout_s,
        cache=False,
    )
    _drop_logs_with_a_key()
    return calls.failures


def _drop_logs_with_a_key() -> None:
    """Nothing is known to put one there; what inspect writes in a later version is not ours to say."""
    for path in Path("engine").glob("*.json"):
        if holds_a_key(path.read_text(encoding="utf-8", errors="replace")):
            path.unlink()


def _end_with_the_parent() -> None:
    """Whoever started this process may be killed; its pipe then closes, and no further call is paid for."""

    def wait() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main() -> int:
    """Run the job on standard input in the current folder."""
    os.umask(0o077)
    job = EngineJob.model_validate_json(_line())
    _end_with_the_parent()
    with Journal(Path("answers.jsonl")) as journal:
        failures = run(job, journal)
        complete = all(
            (question.item, epoch) in journal.answers
            for question in job.questions
            for epoch in range(1, job.settings.epochs + 1)
        )
    if failures:
        write_private(Path("failures.json"), to_json(Failures(failures=tuple(failures))))
    return 0 if complete and not failures else 1


def _line() -> bytes:
    """One line from standard input, unbuffered: what follows it is only ever the end of the file."""
    content = b""
    while not content.endswith(b"\n"):
        piece = os.read(0, 1 << 20)
        if not piece:
            break
        content += piece
    return content


if __name__ == "__main__":
    sys.exit(main())
