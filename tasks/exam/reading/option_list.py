"""Lists of options inside a reply: `3`, `(2), (5)`, `B. aspirin`, `2と5`, an option's text. Linear in the text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tasks.exam.reading.options import WORD, ItemOptions

_LEAD = re.compile(
    r"[ (':、,→⇒∴]{0,6}(?:(?:option|choice|number|no\.|選択肢|番号)s? ?[:=]? ?|n ?= ?)?[(']? ?", re.IGNORECASE
)
_CLOSE = re.compile(r"[)']{0,2}(?:番目?|번)?[)']?")
_DETAIL = re.compile(r"[.:]? ?\([^()\n]{0,200}\)")
_SEPARATOR = re.compile(r" ?(?:(?:, ?)?\band\b|[,、・/&+;]|および|及び|ならびに|並びに|と) ?| (?=[('\dA-Z])")
_EITHER = re.compile(r" ?(?:,? ?\bor\b|または|又は|もしくは|あるいは|ないし|か(?=[ ('\dA-Za-z])) ?", re.IGNORECASE)
#: Behind a list: "2, 5; or 3".
_OR_ELSE = re.compile(r"[ ,、;]{1,3}(?:or\b|または|又は|もしくは|あるいは|ないしは?)", re.IGNORECASE)
_RANGE = re.compile(r" ?[-~–—] ?(?:\d|[A-Z](?![A-Za-z]))")
#: "3 of them", "2つ": a count or a quantity, no label.
_COUNT = re.compile(
    r" ?(?:つ|個|択|問|点|種|%|°|℃|年|回|人|m[gLlM]\b|g\b|(?:options?|choices?|answers?|times|points?|percent)\b"
    r"|of (?:the|these|them)\b)",
    re.IGNORECASE,
)
_BOUNDARY = re.compile(
    r"\Z|[\u2600-\u27bf\U0001f300-\U0001faff\s.,;:!?()'、。・…/=&+<>~|→⇒-]|[でだとがはをの番번にもか]|および|及び|または|又は"
)
#: "5-HT3", "5-alpha", "3'-UTR", "3:1": a word that goes on, and no label before other words.
_PART_OF_WORD = re.compile(r"'?-(?=[^\W_])|:\d|'?,\d{1,2}'?-[^\W\d_]")
#: "E. coli"
_SPECIES = re.compile(r"\. ?[a-z]{2}")
_SENTENCE_END = re.compile(r" ?(?:です|だ|である|でした|番です)? ?(?:\Z|[\n.!。,)])")
_VERB_AFTER_A = re.compile(
    r" (?:is|are|because|since|as|and|or|with|for|which|by|due|based|the|follows?|would|should|can|has)\b"
    r"| (?![a-z])|[^ ]|\Z"
)
_SUPPOSED = re.compile(r" ?番?(?:なら|であれば|だとす|とすれば|[だか]?と(?:思|考え)[^\n。]{1,8}(?:が|けど|けれど))")
_DENIED = re.compile(
    r"[ ,、;]{0,3}番?(?:(?:では|じゃ)(?:な|あり|ござい)|でな|とは(?:限|言え|いえ)|は(?:誤|間違|不)"
    r"|is(?:n't| (?:not|wrong|incorrect)\b))"
)
#: "2ではありません。3です。": what is denied, and what holds instead.
_INSTEAD = re.compile(
    r" ?番?(?:では|じゃ)(?:ありません|ございません|ない(?:です)?)(?:でした)?[。.、, \n]{1,3}"
    r"(?:(?:正しくは|正解は|答えは)[ 、]?)?"
)
_REPLACED = re.compile(
    r"[ ,、;]{0,3}(?:(?:では|じゃ|で)(?:なく(?:て)?)|というより(?:は|も)?)[ 、,]{0,2}|[ ,、;]{0,3}(?:→|⇒|[-=]>) ?"
)
_BARE_END = re.compile(r"[ .。)!]{0,9}(?:です|だ)?[ .。!]{0,9}\Z")
_NEXT_LINE = re.compile(r"[ .]?\n([^\n]{1,200})")
_LABELLED = re.compile(r"\(?(\d+|[A-Z])[.):] (?=[^ ])")
#: An option's text may end with a full stop before the next one.
_STOP = re.compile(r"(?:[。.](?=[,、;・ ]))?")
_GAP = re.compile(r"[.:)]? ?-? ?")
_LABEL_BEHIND = re.compile(r" ?\((?:option|選択肢)? ?(\d{1,2}|[A-Za-z])\)[ .。]{0,3}\Z", re.IGNORECASE)
_MAX_LABELS = 12
_MAX_LINE = 1000
#: "3, no, 4, no, 5": a reply that goes on so has no answer.
_MAX_CHANGES = 5

#: "none": no list at all; "unclear": meant as an answer, yet no list of options.
Trouble = Literal["none", "unclear"]


@dataclass(frozen=True)
class OptionList:
    """What stands at a place: a list, a list that is said not to hold, what is meant as an answer but is no option, or
    neither.
    """

    kind: Literal["none", "unclear", "denied", "list"]
    numbers: tuple[str, ...]
    end: int

    def ends_sentence(self, text: str) -> bool:
        """Whether nothing but the end of its sentence follows."""
        return _SENTENCE_END.match(text, self.end) is not None


def read_list(text: str, position: int, options: ItemOptions, *, changes: int = 0) -> OptionList:
    """The list at `position`; if the line holds fewer labels than asked for, bare lists on the next lines go on."""
    if text.startswith("\n", position) or text.startswith(" \n", position):
        position = text.index("\n", position) + 1
        return _below_key(text, position, options)
    line = _line(text, position)
    for words in (line, line.partition("。")[0]):
        quoted = options.quoted(words) or _quoted_with_label(words, options)
        if quoted is not None:
            return OptionList("list" if quoted else "unclear", tuple(quoted), position + len(words))
    labels, end, trouble = _labels(text, position, options)
    if trouble is not None:
        return OptionList(trouble, (), end)
    if replaced := _REPLACED.match(text, end):
        if changes == _MAX_CHANGES:
            return OptionList("unclear", (), end)
        return read_list(text, replaced.end(), options, changes=changes + 1)
    if _OR_ELSE.match(text, end):
        return OptionList("unclear", (), end)
    if _SUPPOSED.match(text, end):
        return OptionList("none", (), end)
    if _DENIED.match(text, end):
        return _instead(text, end, labels, options, changes)
    return _continued(text, end, labels, options)


def _quoted_with_label(words: str, options: ItemOptions) -> list[str] | None:
    """An option's text with its own label behind it: "aspirin (2)"."""
    found = _LABEL_BEHIND.search(words)
    quoted = options.quoted(words[: found.start()]) if found else None
    return quoted if found and quoted and quoted == [options.number(found[1])] else None


def _instead(text: str, end: int, denied: list[str], options: ItemOptions, changes: int) -> OptionList:
    """What the next sentence says after a denial, if it is a list and nothing else; or that it is denied."""
    said = _INSTEAD.match(text, end)
    if said and changes < _MAX_CHANGES:
        found = read_list(text, said.end(), options, changes=changes + 1)
        if found.kind == "list" and found.ends_sentence(text):
            return found
    return OptionList("denied", tuple(denied), end)


def _below_key(text: str, position: int, options: ItemOptions) -> OptionList:
    """The list on the line below a key: bare, or one label before its option's text where no other label follows."""
    line = _line(text, position)
    numbers = bare_list(line, options)
    if numbers is not None:
        return _continued(text, position + len(line), numbers, options)
    after = position + len(line) + 1
    labelled = _LABELLED.match(line) if options.n_select == 1 else None
    number = options.number(labelled[1]) if labelled else None
    several = (labelled is not None and _LABELLED.search(line, labelled.end())) or _LABELLED.match(text, after)
    if labelled is None or number is None or several or options.text_at(line, labelled.end()):
        return OptionList("none", (), position)
    return OptionList("list", (number,), position + len(line))


def bare_list(line: str, options: ItemOptions) -> tuple[str, ...] | None:
    """The options when the text is a list and nothing else; None when it is anything else."""
    quoted = options.quoted(line)
    if quoted is not None:
        return tuple(quoted)
    numbers: list[str] = []
    for part in line.split("\n") if "\n" in line and line.count("\n") < options.n_select else [line]:
        found, end, trouble = _labels(part, 0, options)
        if trouble is not None or not found or not _BARE_END.match(part, end):
            return None
        numbers += found
    return tuple(numbers)


def _continued(text: str, end: int, numbers: Iterable[str], options: ItemOptions) -> OptionList:
    found = list(numbers)
    while len(found) < options.n_select and (line := _NEXT_LINE.match(text, end)):
        more = bare_list(line[1], options)
        if more is None:
            break
        found, end = found + list(more), line.end()
    return OptionList("list", tuple(found), end)


def _labels(text: str, position: int, options: ItemOptions) -> tuple[list[str], int, Trouble | None]:
    """Labels on one line, where they end, and what is wrong with them if anything is."""
    numbers: list[str] = []
    end = position
    for _ in range(_MAX_LABELS):
        start = _LEAD.match(text, position).end()  # type: ignore[union-attr]  # matches the empty text too
        token = WORD.match(text, start)
        label = None if token is None else _label(text, token, options)
        if token is None or label is None or label == "none":
            return (numbers, end, None) if numbers else ([], start, "none")
        if label == "unclear":
            return [], token.end(), "unclear"
        numbers += label
        end = _past_detail(text, token.end(), label[-1], options)
        if end < 0 or _RANGE.match(text, token.end()):
            return [], token.end(), "unclear"
        either, separator = _EITHER.match(text, end), _SEPARATOR.match(text, end)
        if either and (other := WORD.match(text, either.end())) and options.number(other[0]):
            return [], either.end(), "unclear"
        if separator is None:
            return numbers, end, None
        if _numbered(text, end, separator.end(), options):
            return [], end, "unclear"
        position = separator.end()
    return [], end, "unclear"


def _numbered(text: str, end: int, following: int, options: ItemOptions) -> bool:
    """Whether the label that ends at `end` only numbers the next one: "(1) 2"."""
    word = WORD.match(text, following)
    bracketed = text[end - 1] == ")" and text[end:following].isspace()
    return bool(
        bracketed
        and word
        and isinstance(_label(text, word, options), list)
        and text[word.end() : word.end() + 1] != ")"
    )


def _label(text: str, token: re.Match[str], options: ItemOptions) -> list[str] | Trouble:
    """The options that one word names; "unclear" if it is meant as an answer but names none; else "none"."""
    word, end = token[0], token.end()
    if _COUNT.match(text, end) or (word in "ie" and text[end : end + 2] in (".e", ".g")):
        return "none"
    if word in ("a", "A", "I", "i") and not _VERB_AFTER_A.match(text, end):
        return "none"
    number = options.number(word)
    if number is None:
        joined = options.joined(word)
        return joined or ("unclear" if word[0].isdigit() or len(word) == 1 or word.isupper() else "none")
    own = number in (options.text_at(text, end), options.text_at(text, _GAP.match(text, end).end()))  # type: ignore[union-attr]  # matches the empty text too
    if not own and (_PART_OF_WORD.match(text, end) or (word.isalpha() and _SPECIES.match(text, end))):
        return "unclear"
    if own or _BOUNDARY.match(text, end):
        return [number]
    return "unclear"


def _past_detail(text: str, end: int, number: str, options: ItemOptions) -> int:
    """Past closing brackets, a remark in brackets and the option's own text; -1 where it is another option's text."""
    end = _CLOSE.match(text, end).end()  # type: ignore[union-attr]  # matches the empty text too
    place = _GAP.match(text, end).end()  # type: ignore[union-attr]  # matches the empty text too
    quoted = options.text_at(text, place)
    if quoted is not None:
        stop = _STOP.match(text, place + len(options.texts[int(quoted) - 1])) if quoted == number else None
        return stop.end() if stop else -1
    detail = _DETAIL.match(text, end)
    if detail and _EITHER.match(detail[0].lstrip(" .:(")):
        return -1
    if detail is None or (options.n_select > 1 and options.number(detail[0].strip(" .:()")) not in (None, number)):
        return end
    return detail.end()


def _line(text: str, position: int) -> str:
    """The rest of the line, or as much of it as an option's text may be long."""
    end = text.find("\n", position)
    return text[position : min(len(text) if end < 0 else end, position + _MAX_LINE)]
