"""What a saved reply answers. It is read again whenever a run is scored: what was read first is only a record."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from tasks.exam.bank.records import CUT_OFF, ExamItem, Language, Response
from tasks.exam.reading.parsing import parse_reply
from tasks.exam.reading.statements import ReadOptions

#: An answer, None where none can be read, or a reply that the limit of tokens ended.
ReadReply = ReadOptions | Literal["cut off"]


def read_reply(item: ExamItem, language: Language, raw: str, stop_reason: str) -> ReadReply:
    """What `raw` answers to `item` as it was asked in `language`. A reply that was cut off answers nothing.

    What a model writes before it has finished need not be its answer, however clearly it reads.
    """
    if stop_reason in CUT_OFF:
        return "cut off"
    text = item.text.get(language)
    return _parsed(raw, item.labels, item.n_select, text.choices if text else ())


def read_response(item: ExamItem, language: Language, response: Response) -> ReadReply:
    """`read_reply` of a saved response."""
    return read_reply(item, language, response.raw, response.stop_reason)


@lru_cache(maxsize=4096)
def _parsed(raw: str, labels: tuple[str, ...], n_select: int, choices: tuple[str, ...]) -> ReadOptions:
    """A model's history is scored anew with every run of it, and its replies with it."""
    return parse_reply(raw, labels, n_select, choices)
