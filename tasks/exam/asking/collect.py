"""From a finished engine's answers to the run's responses, or to the error that says why there is no run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from operator import attrgetter

from tasks.errors import ExamError, ModelRefused, ModelUnavailable, RunIncomplete
from tasks.exam.asking.prices import cost
from tasks.exam.asking.questions import Failure
from tasks.exam.bank.records import ExamItem, Response, RunSettings
from tasks.exam.reading.read import read_reply
from tasks.exam.runs.journal import RawReply, ReplyKey

_number = attrgetter("number")


def unanswered(
    items: Sequence[ExamItem], settings: RunSettings, answers: Mapping[ReplyKey, RawReply], leave: Collection[str]
) -> tuple[str, ...]:
    """Those of `leave` that have no answer in some epoch, by item number: the run goes on without them."""
    epochs = range(1, settings.epochs + 1)
    return tuple(
        item.id
        for item in sorted(items, key=_number)
        if item.id in leave and any((item.id, epoch) not in answers for epoch in epochs)
    )


def responses(
    items: Sequence[ExamItem], settings: RunSettings, answers: Mapping[ReplyKey, RawReply]
) -> tuple[Response, ...]:
    """One response per item that was asked and epoch, by item number and then epoch.

    Raises:
        RunIncomplete: an answer is missing, or answers an item that has changed since.
    """
    keys = [(item, epoch) for item in sorted(items, key=_number) for epoch in range(1, settings.epochs + 1)]
    missing = [item.id for item, epoch in keys if (item.id, epoch) not in answers]
    if missing:
        raise RunIncomplete(
            f"{settings.model} has no response to {len(missing)} of {len(keys)} questions, the first is item "
            f"{missing[0]}. What was answered is kept: run it again and only the rest is asked"
        )
    return tuple(_response(item, settings, answers[item.id, epoch]) for item, epoch in keys)


def _response(item: ExamItem, settings: RunSettings, answer: RawReply) -> Response:
    if answer.item_digest != item.digest:
        raise RunIncomplete(
            f"item {item.id} is not the item that {settings.model} was asked: begin a new run in a new folder"
        )
    found = read_reply(item, settings.language, answer.raw, answer.stop_reason)
    return Response(
        **answer.model_dump(),
        parsed=None if found == "cut off" else found,
        cost=cost(settings.model, answer.model, answer.input_tokens, answer.output_tokens),
    )


def error_of(failures: Sequence[Failure], model: str, num_answered: int, num_asked: int) -> ExamError:
    """The gravest failure as an error: what was asked of whom, what came back, and what to do about it.

    The error's note says the same without the provider's words, for notices, which leave this machine.
    """
    gravity = {"refused": 0, "broken": 1, "unavailable": 2}
    failure = min(failures, key=lambda failure: gravity[failure.kind])
    where = f"at item {failure.item}" if failure.item else "before the first item"
    status = f" with status {failure.status}" if failure.status else ""
    more = f" ({len(failures)} calls failed)" if len(failures) > 1 else ""
    at = f" at {failure.address}" if failure.address else ""
    failed = f"failed {where}{status}{more}"
    kind, remedy = _ERRORS[failure.kind], _remedy(failure) + _leave(failures, num_answered)
    left = f"{num_answered} of {num_asked} answers are kept. {remedy}"
    error = kind(f"{model}{at} {failed}: {failure.message}. {left}")
    error.add_note(f"{model} {failed} ({failure.kind}). {left}")
    return error


_ERRORS = {"refused": ModelRefused, "unavailable": ModelUnavailable, "broken": RunIncomplete}


def _leave(failures: Sequence[Failure], num_answered: int) -> str:
    """How to go on without items that never work, once it is seen that others do."""
    items = sorted({one.item for one in failures if one.item})
    if not num_answered or not items or any(one.kind == "refused" for one in failures):
        return ""
    return f". What never works can be left: {' '.join(f'--leave {item}' for item in items)}"


def _remedy(failure: Failure) -> str:
    if failure.kind == "unavailable":
        return "Run it again later: only the rest is asked"
    if failure.kind == "broken":
        return "Mend the cause and run it again: only the rest is asked"
    status = failure.status
    if status in (401, 403):
        return "Check the API key in the environment and what it may use"
    if status == 402:
        return "The provider's account has no credit left: top it up"
    if status == 404:
        return "Check the model's name and the address in the environment"
    return "Check the model's name, its API key in the environment, and that its provider's package is installed"
