"""Which options a model's reply names, read by a small grammar. No clear answer is None, never a guess.

    reply      = JSON object with the key `answer`, alone or at the end
               | text with statements: the last one counts, see below
               | text whose first or last line, or all of it, is a list
               | text that calls exactly n_select options right: "2が正しい", "Option 2 is correct."
    statement  = KEY BE list | list "is the correct answer" | CORRECTION list    "Answer: 2, 5", "答えは3", "wait, 4"
               | "therefore" list | list "を選ぶ" | the reply's first or last line, if it is a list
    list       = label (SEPARATOR label)*                           exactly n_select different ones, or no answer
    label      = one of the item's labels as a whole word, in brackets or not, its own option's text after it or not;
                 or an option's text, whole and exact

The last statement is the answer, unless a later remark withdraws or denies it. Where an earlier statement says
otherwise, something must decide between the two: the last is a line of its own, a conclusion or "final" and the earlier
one is not, or the model has thought again in between, or has denied the earlier one. Else there is no answer.
A word is a label only as a whole: "AB" is not A. What a statement says but is no option ("Answer: 7", "3 or 4",
"1-3", three of two) leaves the reply without an answer; an earlier statement is not taken instead. What is asked or
supposed ("maybe the answer is 3"), said by others, or of wrong options ("不正解：3"), is no statement. The model's own
reasoning, in whatever marks, is not read: see `reasoning`.
An answer to another case or question never outweighs one without it; an answer with another one set against it is none:
see `asides`.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache

from tasks.exam.reading.asides import is_aside, is_contested, is_of_another_question
from tasks.exam.reading.denials import is_no_claim, is_taken_back, turns
from tasks.exam.reading.option_list import bare_list, read_list
from tasks.exam.reading.options import ItemOptions
from tasks.exam.reading.reasoning import strip_reasoning
from tasks.exam.reading.reply_text import normalise, unwrap, without_numbering
from tasks.exam.reading.statements import PASSING, Statement, denied_options, find_statements, named_before

#: Words on one option, which may be about any: they count where there is no statement, and all of them together.
_RIGHT_ONE = re.compile(r"(?:正しい|適切な|該当する)(?:もの|の)は[ 、]?")
_PRAISE = re.compile(
    r"が(?:最も)? ?(?:正しい|適切|妥当|適当|該当する|当てはまる)"
    r"(?:です|だ|である|と(?:考え|思|判断)[^\n。]{0,8})?(?= ?(?:[。.!,、)]|\n|\Z))"
    r"| (?:is|are) (?:correct|right|the most appropriate)(?= ?(?:[.!,;)]|\n|\Z)| (?:because|since|as)\b)",
    re.IGNORECASE,
)
#: A reply with more is a loop.
_MAX_PRAISED = 200
#: Without blanks and underscores.
_JSON_KEYS = frozenset(
    {"answer", "answers", "finalanswer", "choice", "option", "selected", "selectedoption", "selection"}
    | {"答え", "解答", "回答", "正解", "正答", "選択", "選択肢", "最終解答"}
)
_JSON_KEY_END = re.compile(r"(?:answers?|答え|解答|回答|正解|正答)\Z")
#: Such keys hold what others say, or what is not the answer.
_JSON_OTHER = re.compile(r"wrong|incorrect|not|false|initial|first|previous|alternative|second|student|user|[不誤非]")
_LAST_OBJECT = re.compile(r"\{[^{}]*\}\s*\Z")


def parse_reply(raw: str, labels: Sequence[str], n_select: int, choices: Sequence[str] = ()) -> tuple[str, ...] | None:
    """1-based option numbers, ascending, as strings; None when no clear answer of exactly `n_select` can be read.

    Args:
        raw: the reply as it came.
        labels: what the prompt calls the options: 1, 2, 3 ... or A, B, C ...
        n_select: how many options the item asks for.
        choices: the options' texts, in the order of `labels`, so that a quoted option is understood.

    Raises:
        ValueError: n_select is not between 1 and the number of labels, or labels repeat.
    """
    options = _options(tuple(labels), n_select, tuple(choices))
    body = unwrap(strip_reasoning(raw))
    if body.startswith("{") and body.endswith("}"):
        known, reading = _from_json(body, options)
        if known:
            return reading
    text = without_numbering(normalise(_from_last_json(body, options)), n_select)
    found = find_statements(text, options)
    statement = _decided(text, found, options) if found else _praised(text, options)
    if statement is None or statement.reading is None:
        return None
    if is_taken_back(text, statement.end) or _is_denied(text, statement, options):
        return None
    if is_contested(text, statement.end, statement.reading, options):
        return None
    return statement.reading


@lru_cache(maxsize=1024)
def _options(labels: tuple[str, ...], n_select: int, choices: tuple[str, ...]) -> ItemOptions:
    return ItemOptions.of(labels, n_select, choices)


def _from_json(body: str, options: ItemOptions) -> tuple[bool, tuple[str, ...] | None]:
    """Whether the text is a JSON object with an answer, and the answer; several must say the same."""
    answers = _json_answers(body)
    readings = {_json_reading(answer, options) for answer in answers}
    return bool(answers), readings.pop() if len(readings) == 1 else None


def _json_reading(answer: object, options: ItemOptions) -> tuple[str, ...] | None:
    parts = answer if isinstance(answer, list) else [answer]
    if not parts or any(isinstance(part, bool) or not isinstance(part, int | str) for part in parts):
        return None
    numbers = [bare_list(normalise(str(part)), options) for part in parts]
    return options.chosen([number for part in numbers for number in part or ("?",)])


def _json_answers(body: str) -> list[object]:
    """The values of all keys for an answer, with those of keys that are repeated. An object comes as its pairs."""
    try:
        pairs = json.loads(body, object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        return []
    return [value for key, value in pairs if _is_answer_key(normalise(key).lower().replace(" ", ""))]


def _is_answer_key(key: str) -> bool:
    return key in _JSON_KEYS or (_JSON_KEY_END.search(key) is not None and not _JSON_OTHER.search(key))


def _from_last_json(body: str, options: ItemOptions) -> str:
    """The text, with a JSON object that ends it as a line `Answer: ...`."""
    last = body.rfind("{")
    found = _LAST_OBJECT.match(body, last) if last >= 0 else None
    known, reading = _from_json(found[0], options) if found else (False, None)
    if found is None or not known:
        return body
    labels = {number: label for label, number in reversed(options.by_label.items())}
    return f"{body[:last]}\nAnswer: {', '.join(labels[number] for number in reading) if reading else 'none'}"


def _decided(text: str, found: Sequence[Statement], options: ItemOptions) -> Statement | None:
    """The last statement, unless an earlier one says otherwise and nothing decides between the two.

    What decides: the last one is more meant as the last word (see `statements`), or in between the model has thought
    again or denied the earlier answer.
    """
    found = [one for one in found if not is_of_another_question(text, one.start)] or found
    last = found[-1]
    if last.reading is None:
        return last
    rank = last.rank if len(found) == 1 or not is_aside(text, last.start, last.end) else 0
    thought_again, denied = turns(text), denied_options(text, options)
    for one in found[:-1]:
        if one.rank < rank or set(one.numbers) <= set(last.reading):
            continue
        turned = bisect_left(thought_again, one.end) < bisect_left(thought_again, last.end)
        taken_back = any(place >= one.end and set(numbers) & set(one.numbers) for place, numbers in denied)
        if not turned and not taken_back:
            return None
    return last


def _is_denied(text: str, statement: Statement, options: ItemOptions) -> bool:
    """Whether a later sentence says that an option of the statement is not the answer."""
    found = denied_options(text, options)
    return any(place >= statement.end and set(numbers) & set(statement.reading or ()) for place, numbers in found)


def _praised(text: str, options: ItemOptions) -> Statement | None:
    """A reply that calls just as many options right as are asked for, without a word that it answers."""
    named: dict[str, int] = {}
    for match in list(_RIGHT_ONE.finditer(text))[-_MAX_PRAISED:]:
        found = read_list(text, match.end(), options)
        if found.kind == "list" and not is_no_claim(text, match.start()):
            named |= dict.fromkeys(found.numbers, found.end)
    for match in list(_PRAISE.finditer(text))[-_MAX_PRAISED:]:
        if not is_no_claim(text, match.start()):
            named |= dict.fromkeys(named_before(text, match.start(), options), match.end())
    return Statement(tuple(named), options.chosen(named), 0, max(named.values()), PASSING) if named else None
