"""Words that take an answer back, and words that say of an option that it is not the answer. Linear in the text."""

from __future__ import annotations

import re

_LINE_END = r"(?=[ 。.!…、)]*(?:\n|\Z)|[。.!…])"
#: Anywhere after an answer.
_WITHDRAWAL = re.compile(
    r"(?<![A-Za-z])(?:wait(?= ?[,.!…—:;-]|\n|$)|scratch that|on second thought|correction ?:|let me (?:re|correct)"
    r"|i (?:was|am) (?:wrong|mistaken)|i made an? (?:mistake|error)|(?:my|that) answer (?:is|was) (?:wrong|incorrect)"
    r"|i (?:must |have to |should |hereby )?(?:retract|withdraw) (?:that|this|it|my)"
    r"|i(?:'ve| have)? changed? my (?:mind|answer)|(?:never ?mind|i take (?:it|that) back))"
    # "No." or "No, it is 4": a sentence of its own, and no answer to a question
    r"|(?:^|[.!…,] ?)no(?:pe)?"
    r"(?: ?(?:!|…|\n|\Z)| ?\.(?! ?\d)|,? (?:it|that)(?:'s| is| was)(?![A-Za-z]))"
    r"|訂正(?:します|すると|:)|前言(?:は|を)?撤回|撤回し|取り消します|間違えました|間違いでした|誤りでした|失礼しました"
    rf"|やっぱり|考え直|間違え(?:た|ました){_LINE_END}|やはり、?(?:違|間違|誤り)"
    r"|(?<![ぁ-ん])(?:いや|いえ)(?:[、,。 \n…]|違|ちが)|いいえ、?違",
    re.IGNORECASE | re.MULTILINE,
)
#: Only as the next words: later on they may be about any other option.
_DISOWNED = re.compile(
    r"[ \n.。,、!…]{0,9}(?:but |no, ?)?(?:that(?:'s| is| was)|this is) "
    r"(?:not (?:right|correct)|wrong|incorrect|a mistake)"
    r"|[ \n.。,、!…]{0,9}(?:(?:これ|それ)は)?、?"
    rf"(?:違います|違う|ちがう|間違い(?:です|だ)|誤り(?:です|だ)){_LINE_END}",
    re.IGNORECASE,
)
#: Before a key: "the wrong answer is 3" and 「不正解：3」 are no answers.
_OPPOSITE = re.compile(
    r"(?:(?<![A-Za-z])(?:wrong|incorrect|inappropriate|unsuitable|false|invalid|bad|worst|not (?:an?|the)(?: [a-z]+)?)"
    r"|[不誤非]|誤っ(?:た|ている)|誤りの|誤りである|間違っ(?:た|ている)|間違いの|間違えた|くない|でない|ではない|禁忌の?"
    r"|不適(?:切|当)な) ?\Z",
    re.IGNORECASE,
)
_HYPOTHESIS = re.compile(r"(?:\bif|\bwhether|\bunless|\bwas|もし|仮に)[^\n.,。、]{0,20}$", re.IGNORECASE)
_WINDOW = 60


def is_taken_back(text: str, end: int) -> bool:
    """Whether something after `end` withdraws the answer that ends there."""
    return bool(_DISOWNED.match(text, end) or _WITHDRAWAL.search(text, end))


def is_no_claim(text: str, start: int) -> bool:
    """Whether the statement at `start` is only supposed ("if the answer is 3"), or of the wrong options."""
    before = text[max(0, start - _WINDOW) : start]
    return bool(_HYPOTHESIS.search(before) or _OPPOSITE.search(before))
