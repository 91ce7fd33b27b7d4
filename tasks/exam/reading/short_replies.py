"""Replies, or their first sentences, that name the answer with hardly a word: "It's 2.", 「はい、2です。」"""

from __future__ import annotations

import re

from tasks.exam.reading.option_list import OptionList, read_list
from tasks.exam.reading.options import ItemOptions

_LEAD = re.compile(
    r"(?:(?:はい|ええ|yes|sure|ok(?:ay)?)[、,.! ]{1,3}|(?:おそらく|恐らく|たぶん|多分|きっと)[、 ]?"
    r"|(?:(?:most )?(?:probably|likely)|definitely|certainly|clearly)[,:]? "
    r"|(?:I (?:think|believe|guess|(?:would|'d|'ll) say)|I'(?:d|ll) say) (?:that )?"
    r"|(?:it|that|this)(?:'s| is| would be| must be| should be) (?:probably |likely |clearly )?)+",
    re.IGNORECASE,
)
#: What a question for the wrong option is answered with: it is the answer only as the whole reply.
_OF_THE_WRONG = re.compile(
    r"(?:最も)?(?:誤っている|間違っている|正しくない|適切でない|適切ではない|不適切な|不適当な|該当しない|当てはまらない)"
    r"(?:もの|の|記述|選択肢|説明|組合せ|組み合わせ|薬物?)の?は[、 ]?"
    r"|the (?:(?:least|most) )?(?:incorrect|false|wrong|inappropriate|untrue|appropriate) (?:statement|option|one)s?"
    r" (?:is|are) |the exception is ",
    re.IGNORECASE,
)
#: "ワルファリン(2)です。", "warfarin (2)."
_WITH_LABEL = re.compile(
    r"[ 、]?(?P<words>(?:(?!以外|除)[^\n()\d。、,.:;はがを]){1,30})\((?:選択肢|option )? ?(?P<label>\d{1,2}|[A-J])番?\)"
    r" ?(?:です|である|だ)?[ ]?(?:[。.!]|\n|\Z)",
    re.IGNORECASE,
)
#: Words that a number in brackets belongs to.
_NUMBERED_THING = re.compile(
    r"\b(?:in|of|see|tables?|figures?|fig|ref(?:erence)?s?|equations?|eq|steps?"
    r"|groups?|class|types?|stages?|grades?|phases?"
    r"|sections?|pages?|questions?|not|except|note|no|or)\b"
    r"|(?:文献|参考|図|表|式|問|注|章|頁|群|型|級|相|記述|参照|かつ|または) ?\Z",
    re.IGNORECASE,
)
_COPULA_END = re.compile(r" ?番?(?:です|である|だ)(?:ね|よ)?[。.!](?!\.)")
_STOP = re.compile(r" ?番?(?:です|である|だ)?(?:ね|よ)?[ )]?(?:[。!]|\.(?= |\n|\Z)|\n|\Z)")
_END = re.compile(r" ?番?(?:です|である|だ)?[ 。.!)]*\Z")


def first_words(text: str, options: ItemOptions) -> tuple[tuple[str, ...], int] | None:
    """The options that the reply starts with and where they end; None where it starts otherwise."""
    if wrong := _OF_THE_WRONG.match(text):
        found = read_list(text, wrong.end(), options)
        return (found.numbers, found.end) if found.kind == "list" and _END.match(text, found.end) else None
    lead = _LEAD.match(text)
    start = lead.end() if lead else 0
    found = read_list(text, start, options)
    end = (_STOP if lead else _COPULA_END).match(text, found.end)
    return (found.numbers, found.end) if found.kind == "list" and end and found.end > start else None


def named_with_label(text: str, position: int, options: ItemOptions) -> OptionList | None:
    """The option whose name stands at `position` with its label behind it, where that ends the sentence."""
    found = _WITH_LABEL.match(text, position)
    number = options.number(found["label"]) if found else None
    if found is None or number is None or _NUMBERED_THING.search(found["words"]):
        return None
    if options.quoted(found["words"]) not in (None, [number]):
        return None
    return OptionList("list", (number,), found.end("label") + 1)
