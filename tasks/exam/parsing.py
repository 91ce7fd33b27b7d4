"""Which options a model's reply names, read by a small grammar. No clear answer is None, never a guess.

    reply      = JSON object with the key `answer`, and nothing else
               | text with statements: the last one counts, unless a later remark withdraws it
               | text whose only bare line is a list
    statement  = KEY BE list | list "is the correct answer" | CORRECTION list    "Answer: 2, 5", "答えは3", "wait, 4"
    list       = label (SEPARATOR label)*                           exactly n_select different ones, or no answer
    label      = one of the item's labels as a whole word, in brackets or not, its own option's text after it or not;
                 or an option's text, whole and exact

A word is a label only as a whole: "AB" is not A. What a statement says but is no option ("Answer: 7", "3 or 4",
"1-3", three of two) leaves the reply without an answer; an earlier statement is not taken instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

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
    r"(?:(?<![A-Za-z])(?:wait|sorry|correction|i mean(?:t)?|make that|(?<=[.!?,\n…] )actually|^actually)(?![A-Za-z])"
    r"|(?:^|(?<=[。.!…\n ]))正しくは|訂正(?:します)?|やっぱり|やはり|いや|いえ)"
    r"[ ,:、。.…—!-]{0,6}(?:no[ ,.]{1,2})?(?:正しくは[ 、]?|it(?:'s| is) |that(?:'s| is) )?",
    re.IGNORECASE | re.MULTILINE,
)
_SUFFIX = re.compile(
    r"(?:が|は) ?(?:正解|正答|答え)(?! ?(?:では|じゃ|でな|か))"
    r"| (?:is|are) the (?:(?:correct|right|best|final) )?(?:answers?|options?|choices?)(?![A-Za-z])"
    r"|を(?:選び|選択|選ぶ)",
    re.IGNORECASE,
)
_WITHDRAWAL = re.compile(
    r"(?<![A-Za-z])(?:wait(?= ?[,.!…—:;-]|\n|$)|scratch that|on second thought|correction ?:|let me (?:re|correct)"
    r"|i (?:was|am) (?:wrong|mistaken)|i made an? (?:mistake|error)|(?:my|that) answer (?:is|was) (?:wrong|incorrect)"
    r"|(?:never ?mind|i take (?:it|that) back))"
    r"|訂正(?:します|すると|:)|撤回し|取り消します|間違えました|間違いでした|誤りでした|やっぱり|考え直"
    r"|(?<![ぁ-ん])(?:いや|いえ)[、,。 \n…]",
    re.IGNORECASE,
)
_HYPOTHESIS = re.compile(r"(?:\bif|\bwhether|\bunless|\bwas|もし|仮に)[^\n.,。、]{0,20}$", re.IGNORECASE)
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
    statement = _last_statement(text, options) or _bare_statement(text, options)
    if statement is None or _WITHDRAWAL.search(text, statement.end):
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
            statement = _before(text, match.start(), match.end(), options)
        else:
            statement = _after(text, match, options, certain=kind is _CORRECTION)
        if statement is not None:
            return statement
    return None


def _after(text: str, match: re.Match[str], options: Options, *, certain: bool) -> _Statement | None:
    """The list after a key. A `certain` kind is a common word: it counts only before a list and the sentence's end."""
    if _is_supposed(text, match.start()):
        return None
    found = read_list(text, match.end(), options)
    if found.kind == "none":
        return None
    reading = options.chosen(found.numbers) if found.kind == "list" else None
    if certain and (reading is None or not found.ends_sentence(text)):
        return None
    return _Statement(reading, match.start(), found.end)


def _is_supposed(text: str, start: int) -> bool:
    """Whether the statement at `start` is only supposed: "if the answer is 3"."""
    return bool(_HYPOTHESIS.search(text[max(0, start - _WINDOW) : start]))


def _before(text: str, start: int, end: int, options: Options) -> _Statement | None:
    """The list that ends where a suffix such as "is the correct answer" starts."""
    for position in _words_before(text, start):
        found = read_list(text, position, options)
        if found.kind == "list" and found.end <= start and not text[found.end : start].strip(" )番'"):
            return _Statement(options.chosen(found.numbers), start, end)
    return None


def _words_before(text: str, start: int) -> Iterator[int]:
    """Where words start in the last clause before `start`, first to last."""
    window = text[max(0, start - _WINDOW) : start]
    clause = max(window.rfind(mark) for mark in ("\n", "。", ". ", ":", ";")) + 1
    offset = max(0, start - _WINDOW)
    return (offset + clause + word.start() for word in re.finditer(r"[A-Za-z]+|\d+", window[clause:]))


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
