"""Where a reply says what its answer is: every statement, what it names, and how much it is meant as the last word."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tasks.exam.reading.denials import is_doubted, is_example, is_no_claim
from tasks.exam.reading.option_list import bare_list, read_list
from tasks.exam.reading.options import KANJI, ItemOptions
from tasks.exam.reading.predicates import DENYING_TAIL, holds, is_said_of
from tasks.exam.reading.short_replies import first_words, named_with_label

ReadOptions = tuple[str, ...] | None

_WORDS = (
    r"(?:(?<![A-Za-z])(?<!no )(?:answers?|ans|(?:correct|right|best) (?:options?|choices?)"
    r"|(?:option|choice|final|conclusion|selection|verdict|my pick)(?= ?[:|]))(?![A-Za-z])"
    r"|解答|回答|正解|正答|答え|こたえ|答(?![えァ-ヶ一-龠])|正しい選択肢|適切な選択肢|(?:選択肢|選択|解)(?= ?[:|])"
    r"|結論(?:として)?|最終判断|答案|정답|(?<![^\n])(?:A(?= ?: ?\d)|(?:selected|chosen)(?= ?:)))"
)
_BE = (
    r"(?: ?(?:would be|should be|must be|remains|is|are|は|が|是|为|為|은|는|[:=]|[-=]>|[→⇒-])){1,2}[ ,、]?"
    r"(?:(?:therefore|thus|hence|clearly|(?:most )?(?:likely|probably)|definitely|indeed|simply|now|still"
    r"|したがって|従って|やはり|明らかに|おそらく|恐らく)[ ,、]{0,2})?"
    r"(?:(?:[2-5二三四] ?つ|two|three)[で:,、 ]{1,3})?"
)
_KEY = re.compile(
    _WORDS + r"(?: ?(?:番号|number|の選択肢|の番号|\(s\)))?(?: ?[1-9](?= ?:))?(?: ?\([^()\n]{0,30}\))?'?"
    rf"(?:{_BE}(?:not [^\n.]{{1,12}}? but )?| ?\|(?=[^|\n]{{1,40}}\|? ?$))",
    re.IGNORECASE | re.MULTILINE,
)
#: "Answer 3" and "答え 3", only where the line starts with it.
_HEADED = re.compile(
    r"^[→⇒∴ ]{0,3}(?:final |最終的?な?)?(?:(?:answer|ans|解答(?:番号)?|回答|正解|答え)[ \n.]{1,2}(?! ?[1-9] ?:)"
    r"|答[ .]?(?=\d))(?=\S)",
    re.IGNORECASE | re.MULTILINE,
)
_CHOOSE = re.compile(
    r"(?<![A-Za-z])(?:(?:I|we)(?: would|'d|'ll| will|'m| am)? (?:choose|select|pick|go(?:ing)? with|settle on|opt for) "
    r"|I(?: would|'d|'ll| will) answer (?:with )?"
    r"|let(?:'s| us| me) (?:choose|select|pick|go with) )|(?:故|应该?|因此|所以)选择?",
    re.IGNORECASE,
)
_CORRECTION = re.compile(
    r"(?:(?<![A-Za-z])(?:wait|sorry|correction|i mean(?:t)?|make that|but (?:it(?:'s| is) )?(?:actually|in fact|really)"
    r"|(?<=[.!?,:\n…] )(?:actually|no(?=,))|^actually|^no(?=,))(?![A-Za-z])"
    r"|(?:^|(?<=[。.!…\n ]))正しくは|訂正(?:します)?|やっぱり|やはり|いや|いえ)"
    r"[ ,:、。.…—!-]{0,6}(?:no[ ,.]{1,2})?(?:正しくは[ 、]?|it(?:'s| is) |that(?:'s| is) )?",
    re.IGNORECASE | re.MULTILINE,
)
_SUFFIX = re.compile(
    r"(?:が|は) ?(?:正解|正答|答え)(?! ?(?:では|じゃ|でな|か|とは|とな(?:るのは|る場合)|なら|であれば|の場合"
    rf"|と(?:誤|勘違|思われ|思いがち|思いき|され|見)))(?!{DENYING_TAIL})"
    r"| (?:is|are) (?:the|my) (?:(?:correct|right|best|final) )?(?:answers?|options?|choices?)"
    r"(?![A-Za-z])(?! (?:many|most|some|to (?!this)|that (?!best|fits)|which (?!best|fits)|you|one|students))"
    r"|を(?:選(?:ぶ|びます|んだ)|選択(?:する|します|した)?|(?:解答|正解|正答|答え|答)と(?:する|します|した))"
    r"(?=[ 。.!)]*(?:\n|\Z)|[。.!](?!\.))",
    re.IGNORECASE,
)
#: Of an option that was named before, it takes the answer back.
_DENIAL = re.compile(
    r"(?:が|は) ?(?:正解|正答|答え) ?(?:では|じゃ|とは|でな)"
    r"| (?:is|are)(?: not|n't) (?:the )?(?:(?:correct|right|best|final)(?: (?:answers?|options?|choices?))?|answers?)"
    r"(?![A-Za-z])",
    re.IGNORECASE,
)
_CONCLUDING = (
    r"\b(?:therefore|thus|hence|so|finally|ultimately|in (?:conclusion|summary)|overall|this leaves)\b|[∴⇒→]"
    r"|よって|したがって|従って|ゆえに|故に|以上(?:のこと)?(?:より|から)|結局|総合すると|消去法(?:により|で|から)|ということで|だから"
)
#: "よって、3", "Therefore, option 3": counts before the sentence's end or words that say what of it.
_CONCLUSION = re.compile(
    rf"(?:{_CONCLUDING})[ ,:、]{{0,3}}(?:(?:it(?:'s| is)|I choose|答えは|選択肢は)[ ,]?)?", re.IGNORECASE
)
_FINAL = re.compile(r"(?<![A-Za-z])(?:final|conclusion)(?![A-Za-z])|最終|結論", re.IGNORECASE)
_EARLIER_WORDS = re.compile(_CONCLUDING, re.IGNORECASE)
#: The sentence of a statement is the reply's last.
_CLOSING = re.compile(r"(?:(?![.!] )[^\n。]){0,80}[。.!) ]*\Z")
#: A key that nothing follows: the reply breaks off, or says that there is no answer.
_NOTHING = re.compile(
    r"[ \n]*\Z|[ \n]*(?:none\b|no (?:option|correct|answer)|n/a\b|unknown|unclear|not (?:given|possible|known)"
    r"|cannot|can't|I (?:don't|do not)|なし|無し|該当(?:なし|する選択肢|するもの)|不明|わか|分か|選べ|ありません|ない)",
    re.IGNORECASE,
)
#: "A: 3", which is a label where options have letters.
_QUIZ = re.compile(r"A ?:")
#: "選択肢: 1 ...": the options may be listed again.
_OPTIONS = re.compile(r"選択|options?|choices?", re.IGNORECASE)
_ARTICLE = re.compile(r"(?:(?:the|my) )?", re.IGNORECASE)
_LINE_END = re.compile(r" ?番?(?:です|だ|である)?[ 。.!]*(?:\n|\Z)")
_REPLY_END = re.compile(r" ?番?(?:です|だ|である|となる)?[ 。.!)]*\Z")
#: "Neither 2 nor 3 is the answer."
_EXCLUDED = re.compile(r"\b(?:nor|not|neither|except|without|than|but) (?:options? |choices? )?\Z", re.IGNORECASE)
_REST = re.compile(r"[ )番']*(?:の選択肢)?(?:のみ|だけ)?")
_HEAD = re.compile(r"(?:[^\n]*[.。!?] ?)?[^\n.。\d]{0,20}")
#: "It is renally cleared. 4"
_LAST_WORD = re.compile(
    r"(?:(?<=[a-z)\u3040-\u9fff][a-z)\u3040-\u9fff][.!?] )|(?<=[。?!] )|(?<=[。?!]))[^\s.。!?][^\n.。!?]{0,30}[.。]?\Z"
)
_LISTED = re.compile(r"\(?(\d{1,2}|[A-Za-z])[.):] ?(?=\S)")
_LABEL = re.compile(r"\(?(?:\d{1,2}|[A-Za-z])[.)]?(?:番|です|だ|。){0,2}")
_JOINT = re.compile(
    r"[ .,、;。・&)]{0,4}(?:and\b|また|と|および|及び)?[ .,、]*\n?(?:(?:[1-9]|一|二)(?:つ|番)目の)?[ ,、]*"
)
_WINDOW = 60
#: Of each kind; a reply with more is a loop.
_MAX_STATEMENTS = 100
#: At either end of the reply, which are looked at one by one.
_MAX_LINES = 200
#: How much a statement is meant as the last word: as an example of the form; said in passing; with a conclusion, or in
#: the reply's last sentence; on a line of its own; as "final"; as a correction of what was said before.
EXAMPLE, PASSING, CONCLUDED, OWN_LINE, FINAL, CORRECTED = 0, 1, 2, 3, 4, 5


@dataclass(frozen=True)
class Statement:
    """What one statement says, and where. `numbers` are all that it names; `reading` is None where they do not fit."""

    numbers: tuple[str, ...]
    reading: ReadOptions
    start: int
    end: int
    rank: int


def find_statements(text: str, options: ItemOptions) -> list[Statement]:
    """All that is said of the answer, as it comes, without what is only supposed, denied, or said of wrong options."""
    found = [*_keyed(text, options), *_suffixed(text, options)]
    found += [one for one in own_lines(text, options) if found or one.rank == OWN_LINE]
    return _joined(text, sorted(found, key=lambda one: (one.start, one.end)), options)


def named_before(text: str, start: int, options: ItemOptions) -> tuple[str, ...]:
    """The options of the list that ends at `start`; none where no list ends there."""
    clause = _clause(text, start)
    if (concluding := _CONCLUSION.match(text, clause)) and concluding.end() <= start:
        clause = concluding.end()
    if quoted := options.quoted(text[clause:start]):
        return tuple(quoted)
    for word in re.finditer(rf"(?<![A-Za-z\d.\u0370-\u03ff-])(?:[A-Za-z]+|\d+|[{KANJI}])", text[clause:start]):
        found = read_list(text, clause + word.start(), options)
        if _EXCLUDED.search(text[clause : clause + word.start()]):
            return ()
        if found.kind in ("list", "denied") and found.end <= start and _REST.fullmatch(text, found.end, start):
            return found.numbers
    return ()


def denied_options(text: str, options: ItemOptions) -> list[tuple[int, tuple[str, ...]]]:
    """Where an option that was named is said not to be the answer."""
    found = []
    for match in _last(_KEY, text):
        listed = read_list(text, match.end(), options)
        if listed.kind == "denied":
            found.append((match.start(), listed.numbers))
    return found + [(match.start(), named_before(text, match.start(), options)) for match in _last(_DENIAL, text)]


def _last(kind: re.Pattern[str], text: str) -> list[re.Match[str]]:
    return list(kind.finditer(text))[-_MAX_STATEMENTS:]


def _keyed(text: str, options: ItemOptions) -> Iterator[Statement]:
    for kind in (_KEY, _HEADED, _CHOOSE, _CORRECTION, _CONCLUSION):
        for match in _last(kind, text):
            if (found := _after(text, match, kind, options)) is not None:
                yield found


def _after(text: str, match: re.Match[str], kind: re.Pattern[str], options: ItemOptions) -> Statement | None:
    """The list after a key. A common word is one only before a clear list and the end of the sentence."""
    if is_no_claim(text, match.start()):
        return None
    found = read_list(text, match.end(), options)
    if found.kind == "none" and kind is _KEY:
        found = named_with_label(text, match.end(), options) or found
    if found.kind == "none" and kind is _KEY and ":" in match[0] and _NOTHING.match(text, match.end()):
        return Statement((), None, match.start(), match.end(), OWN_LINE)
    if (
        found.kind in ("none", "denied")
        or is_doubted(text, found.end)
        or (_QUIZ.match(match[0]) and options.number("A"))
    ):
        return None
    reading = options.chosen(found.numbers) if found.kind == "list" else None
    if _OPTIONS.match(match[0]) and (reading is None or not found.ends_sentence(text)):
        return None
    one = Statement(found.numbers, reading, match.start(), found.end, _rank(text, match, kind, found.end))
    if reading and is_said_of(text, found.end):
        return None
    if kind is _HEADED and not (found.ends_sentence(text) or text[found.end : found.end + 2].strip()[:1] in "(:"):
        return None
    if kind is _CORRECTION and (reading is None or not found.ends_sentence(text)):
        return None
    if kind is _CONCLUSION and (reading is None or not (holds(text, found.end) or _closes(text, found.end))):
        return None
    return one


def _suffixed(text: str, options: ItemOptions) -> Iterator[Statement]:
    for match in _last(_SUFFIX, text):
        numbers = () if is_no_claim(text, match.start()) else named_before(text, match.start(), options)
        if numbers and not is_doubted(text, match.end()):
            rank = _rank(text, match, _SUFFIX, match.end())
            yield Statement(numbers, options.chosen(numbers), match.start(), match.end(), rank)


def _rank(text: str, match: re.Match[str], kind: re.Pattern[str], end: int) -> int:
    start = match.start()
    lead = text[max(text.rfind("\n", 0, start) + 1, start - _WINDOW) : start]
    if is_example(text, start, end):
        return EXAMPLE
    if kind is _CORRECTION:
        return CORRECTED
    if _FINAL.search(lead[-_WINDOW // 2 :] + match[0]):
        return FINAL
    if kind is _HEADED or (kind is _KEY and re.search(r"[:=|]", match[0]) and _HEAD.fullmatch(lead)):
        return OWN_LINE
    if kind is _KEY and _ARTICLE.fullmatch(lead) and _LINE_END.match(text, end):
        return OWN_LINE
    concluded = kind is _CONCLUSION or _EARLIER_WORDS.search(text, _clause(text, start), start)
    return PASSING + bool(concluded) + bool(_CLOSING.match(text, end))


def _closes(text: str, end: int) -> bool:
    """Whether nothing follows but the end of the sentence and of the reply."""
    return _REPLY_END.match(text, end) is not None


def _clause(text: str, end: int) -> int:
    """Where the last clause before `end` starts."""
    first = max(0, end - _WINDOW)
    found = [
        text.rfind(mark, first, end) + len(mark) for mark in ("\n", "。", ". ", ":", ";") if mark in text[first:end]
    ]
    return max(found, default=first)


def own_lines(text: str, options: ItemOptions) -> Iterator[Statement]:
    """A list that is the whole text, its first line or its last ones, and no heading and none of listed options."""
    whole = bare_list(text, options)
    if whole is not None:
        yield Statement(whole, options.chosen(whole), 0, len(text), OWN_LINE)
        return
    if (said := first_words(text, options)) and not is_doubted(text, said[1]):
        yield Statement(said[0], options.chosen(said[0]), 0, said[1], OWN_LINE)
    if last := _LAST_WORD.search(text):
        numbers = bare_list(text[last.start() :], options)
        if numbers is not None:
            yield Statement(numbers, options.chosen(numbers), last.start(), len(text), CONCLUDED)
    lines = text.split("\n")
    bare = [
        bare_list(line, options) if min(index, len(lines) - index) <= _MAX_LINES else None
        for index, line in enumerate(lines)
    ]
    headings = len({number for numbers in bare for number in numbers or ()}) > options.n_select + 1
    for first in {0, len(lines) - 1}:
        block = _block(lines, bare, first)
        numbers = tuple(dict.fromkeys(number for index in block for number in bare[index] or ()))
        listed = len(numbers) > options.n_select or any(bare[index] is None for index in block)
        if not numbers or listed or (headings and not (first and _LABEL.fullmatch(lines[first]))):
            continue
        start = sum(len(line) + 1 for line in lines[: block[0]])
        end = start + sum(len(lines[index]) + 1 for index in block) - 1
        yield Statement(numbers, options.chosen(numbers), start, end, OWN_LINE)


def _block(lines: list[str], bare: list[ReadOptions], first: int) -> list[int]:
    """The line and those beside it that are lists too, or have the label next to its own: they list options."""
    step, block = 1 if first == 0 else -1, [first]
    while 0 <= (following := block[-1] + step) < len(lines):
        here, there = _LISTED.match(lines[block[-1]]), _LISTED.match(lines[following])
        if bare[following] is None and not (here and there and ord(there[1][-1]) - ord(here[1][-1]) == step):
            break
        block.append(following)
    return sorted(block)


def _joined(text: str, found: list[Statement], options: ItemOptions) -> list[Statement]:
    """Statements that follow each other and name a part of the answer each, as one: "\\boxed{2} and \\boxed{5}"."""
    made: list[Statement] = []
    for one in found:
        before = made[-1] if made else None
        if before and before.numbers and one.numbers and before.end <= one.start:
            both = before.numbers + one.numbers
            if len(both) <= options.n_select and _JOINT.fullmatch(text, before.end, one.start):
                made[-1] = replace(one, numbers=both, reading=options.chosen(both), start=before.start)
                continue
        made.append(one)
    return made
