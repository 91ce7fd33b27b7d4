"""Which options a model's reply names, read by a small grammar. No clear answer is None, never a guess.

    reply      = JSON object with the key `answer`, and nothing else
               | text with statements: the last one counts, unless a later remark withdraws or denies it
               | text whose only bare line is a list
               | text that calls exactly n_select options right: "2が正しい", "Option 2 is correct."
    statement  = KEY BE list | list "is the correct answer" | CORRECTION list    "Answer: 2, 5", "答えは3", "wait, 4"
    list       = label (SEPARATOR label)*                           exactly n_select different ones, or no answer
    label      = one of the item's labels as a whole word, in brackets or not, its own option's text after it or not;
                 or an option's text, whole and exact

A word is a label only as a whole: "AB" is not A. What a statement says but is no option ("Answer: 7", "3 or 4",
"1-3", three of two) leaves the reply without an answer; an earlier statement is not taken instead. What is supposed,
or said of wrong options ("Incorrect answer: 3", "不正解：3"), is no statement.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from tasks.exam.denials import is_no_claim, is_taken_back
from tasks.exam.option_list import Options, bare_list, read_list
from tasks.exam.reply_text import normalise, strip_reasoning, unwrap

Reading = tuple[str, ...] | None

_KEY = re.compile(
    r"(?:(?<![A-Za-z])(?<!no )(?:answers?|ans|(?:correct|right|best) (?:options?|choices?)|(?:option|choice)(?= ?:))"
    r"(?![A-Za-z])"
    r"|解答|回答|正解|正答|答え|こたえ|答(?![えァ-ヶ一-龠])|正しい選択肢|適切な選択肢|選択肢(?= ?:))"
    r"(?: ?(?:番号|number|の選択肢|の番号|\(s\)))?(?: ?\([^()\n]{0,30}\))?"
    r"(?: ?(?:would be|should be|must be|is|are|は|が|[:=]|[-=]>|[→⇒-])){1,2}[ ,、]?(?:not [^\n.]{1,12}? but )?",
    re.IGNORECASE,
)
#: "Answer 3" and "答え 3", only where the line starts with it.
_HEADED = re.compile(r"^(?:final )?(?:answer|解答|回答|正解|答え)[ \n](?=\S)", re.IGNORECASE | re.MULTILINE)
_CHOOSE = re.compile(r"(?<![A-Za-z])I(?: would|'d|'ll| will)? (?:choose|select|pick|go with) ", re.IGNORECASE)
_CORRECTION = re.compile(
    r"(?:(?<![A-Za-z])(?:wait|sorry|correction|i mean(?:t)?|make that"
    r"|(?<=[.!?,:\n…] )(?:actually|no(?=,))|^actually|^no(?=,))(?![A-Za-z])"
    r"|(?:^|(?<=[。.!…\n ]))正しくは|訂正(?:します)?|やっぱり|やはり|いや|いえ)"
    r"[ ,:、。.…—!-]{0,6}(?:no[ ,.]{1,2})?(?:正しくは[ 、]?|it(?:'s| is) |that(?:'s| is) )?",
    re.IGNORECASE | re.MULTILINE,
)
_SUFFIX = re.compile(
    r"(?:が|は) ?(?:正解|正答|答え)(?! ?(?:では|じゃ|でな|か|とは|と(?:誤|勘違|思われ|思いがち|思いき|され|見)))"
    r"| (?:is|are) the (?:(?:correct|right|best|final) )?(?:answers?|options?|choices?)"
    r"(?![A-Za-z])(?! (?:many|most|some))"
    r"|を(?:選びます|選択します)(?=[ 。.!)]*(?:\n|\Z)|[。.!])",
    re.IGNORECASE,
)
#: Words on one option, which may be about any: they count where there is no statement, and all of them together.
_RIGHT_ONE = re.compile(r"(?:正しい|適切な|該当する)(?:もの|の)は[ 、]?")
_PRAISE = re.compile(
    r"が(?:最も)? ?(?:正しい|適切)(?:です|だ|である|と(?:考え|思|判断)[^\n。]{0,8})?(?= ?(?:[。.!,、)]|\n|\Z))"
    r"| (?:is|are) (?:correct|right|the most appropriate)(?= ?(?:[.!,;)]|\n|\Z)| (?:because|since|as)\b)",
    re.IGNORECASE,
)
#: Of an option that was named before, it takes the answer back.
_DENIAL = re.compile(
    r"(?:が|は) ?(?:正解|正答|答え) ?(?:では|じゃ|とは|でな)"
    r"| (?:is|are)(?: not|n't) (?:the )?(?:(?:correct|right|best|final)(?: (?:answers?|options?|choices?))?|answers?)"
    r"(?![A-Za-z])",
    re.IGNORECASE,
)
_WINDOW = 60
#: Of each kind; a reply with more is a loop.
_MAX_STATEMENTS = 200


@dataclass(frozen=True)
class _Statement:
    """What one statement says, and where it ends. `reading` is None where it names no clear answer."""

    reading: Reading
    start: int
    end: int


def parse_reply(raw: str, labels: Sequence[str], n_select: int, choices: Sequence[str] = ()) -> Reading:
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
    text = normalise(body)
    statement = _last_statement(text, options) or _bare_statement(text, options) or _praised(text, options)
    if statement is None or is_taken_back(text, statement.end) or _is_denied(text, statement, options):
        return None
    return statement.reading


@lru_cache(maxsize=1024)
def _options(labels: tuple[str, ...], n_select: int, choices: tuple[str, ...]) -> Options:
    return Options.of(labels, n_select, choices)


def _from_json(body: str, options: Options) -> tuple[bool, Reading]:
    """Whether the text is a JSON object with an answer, and the answer."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return False, None
    keys = [key for key in value if normalise(key).lower() in ("answer", "answers", "答え", "解答", "回答", "正解")]
    if len(keys) != 1:
        return False, None
    answer = value[keys[0]]
    parts = answer if isinstance(answer, list) else [answer]
    if not parts or any(isinstance(part, bool) or not isinstance(part, int | str) for part in parts):
        return True, None
    numbers = [bare_list(normalise(str(part)), options) for part in parts]
    return True, options.chosen([number for part in numbers for number in part or ("?",)])


def _last_statement(text: str, options: Options) -> _Statement | None:
    found = (_last_of(kind, text, options) for kind in (_KEY, _HEADED, _CHOOSE, _CORRECTION, _SUFFIX))
    return max((one for one in found if one), key=lambda one: one.start, default=None)


def _last_of(kind: re.Pattern[str], text: str, options: Options) -> _Statement | None:
    """The last match of one kind that says something, looked for from the end."""
    for match in reversed(list(kind.finditer(text))[-_MAX_STATEMENTS:]):
        if kind is _SUFFIX:
            statement = _before(text, match, options)
        else:
            statement = _after(text, match, options, certain=kind is _CORRECTION)
        if statement is not None:
            return statement
    return None


def _after(text: str, match: re.Match[str], options: Options, *, certain: bool) -> _Statement | None:
    """The list after a key. A `certain` kind is a common word: it counts only before a list and the sentence's end."""
    if is_no_claim(text, match.start()):
        return None
    found = read_list(text, match.end(), options)
    if found.kind in ("none", "denied"):
        return None
    reading = options.chosen(found.numbers) if found.kind == "list" else None
    if certain and (reading is None or not found.ends_sentence(text)):
        return None
    return _Statement(reading, match.start(), found.end)


def _before(text: str, match: re.Match[str], options: Options) -> _Statement | None:
    """The list that ends where a suffix such as "is the correct answer" starts."""
    numbers = () if is_no_claim(text, match.start()) else _named_before(text, match.start(), options)
    return _Statement(options.chosen(numbers), match.start(), match.end()) if numbers else None


def _named_before(text: str, start: int, options: Options) -> tuple[str, ...]:
    """The options of the list that ends at `start`; none where no list ends there."""
    clause = _clause(text, start)
    if quoted := options.quoted(text[clause:start]):
        return tuple(quoted)
    for word in re.finditer(r"[A-Za-z]+|\d+", text[clause:start]):
        found = read_list(text, clause + word.start(), options)
        if found.kind in ("list", "denied") and found.end <= start and not text[found.end : start].strip(" )番'"):
            return found.numbers
    return ()


def _clause(text: str, end: int) -> int:
    """Where the last clause before `end` starts."""
    first = max(0, end - _WINDOW)
    found = [
        text.rfind(mark, first, end) + len(mark) for mark in ("\n", "。", ". ", ":", ";") if mark in text[first:end]
    ]
    return max(found, default=first)


def _is_denied(text: str, statement: _Statement, options: Options) -> bool:
    """Whether a later sentence says that an option of the statement is not the answer."""
    denied: set[str] = set()
    for match in list(_KEY.finditer(text, statement.end))[-_MAX_STATEMENTS:]:
        found = read_list(text, match.end(), options)
        denied |= set(found.numbers) if found.kind == "denied" else set()
    for match in list(_DENIAL.finditer(text, statement.end))[-_MAX_STATEMENTS:]:
        denied |= set(_named_before(text, match.start(), options))
    return bool(denied & set(statement.reading or ()))


def _praised(text: str, options: Options) -> _Statement | None:
    """A reply that calls just as many options right as are asked for, without a word that it answers."""
    named: dict[str, int] = {}
    for match in list(_RIGHT_ONE.finditer(text))[-_MAX_STATEMENTS:]:
        found = read_list(text, match.end(), options)
        if found.kind == "list" and not is_no_claim(text, match.start()):
            named |= dict.fromkeys(found.numbers, found.end)
    for match in list(_PRAISE.finditer(text))[-_MAX_STATEMENTS:]:
        if not is_no_claim(text, match.start()):
            named |= dict.fromkeys(_named_before(text, match.start(), options), match.end())
    return _Statement(options.chosen(named), 0, max(named.values())) if named else None


def _bare_statement(text: str, options: Options) -> _Statement | None:
    """A reply that is nothing but a list, or whose first or last line is the only list among its lines."""
    whole = bare_list(text, options)
    if whole is not None:
        return _Statement(options.chosen(whole), 0, len(text))
    lines = text.split("\n")
    lists = {index: found for index, line in enumerate(lines) if (found := bare_list(line, options)) is not None}
    if len({tuple(found) for found in lists.values()}) != 1 or not {0, len(lines) - 1} & lists.keys():
        return None
    position = len("\n".join(lines[: max(lists) + 1]))
    return _Statement(options.chosen(lists[max(lists)]), 0, position)
