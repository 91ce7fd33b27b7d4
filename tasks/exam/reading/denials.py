"""Words that take an answer back, and words that say of an option that it is not the answer. Linear in the text."""

from __future__ import annotations

import re

_LINE_END = r"(?=[ 。.!…、)]*(?:\n|\Z)|[。.!…])"
#: Anywhere after an answer.
_WITHDRAWAL = re.compile(
    r"(?<![A-Za-z])(?:wait(?= ?[,.!…—:;-]|\n|$)|scratch that|on second thought|correction ?:"
    r"|let me (?:re-?(?:consider|think|do|calculat|comput|check|evaluat|examin|phrase|read)|correct)"
    r"|i (?:was|am) (?:wrong|mistaken)|i made an? (?:mistake|error)|(?:my|that) answer (?:is|was) (?:wrong|incorrect)"
    r"|i (?:must |have to |should |hereby )?(?:retract|withdraw) (?:that|this|it|my)"
    r"|i(?:'ve| have)? changed? my (?:mind|answer)|(?:never ?mind|i take (?:it|that) back))"
    # "No." or "No, it is 4": a sentence of its own, and no answer to a question
    r"|(?:^|(?<!\n\d)[.!…,] ?)no(?:pe)?"
    r"(?: ?(?:!|…|\n|\Z)| ?\.(?! ?\d)|,? (?:it|that)(?:'s| is| was)(?![A-Za-z]))"
    r"|訂正(?:します|すると|:)|前言(?:は|を)?撤回|撤回し|取り消します|間違えました|間違いでした|誤りでした|失礼しました"
    rf"|やっぱり|考え直|間違え(?:た|ました){_LINE_END}|やはり、?(?:違|間違|誤り)"
    r"|(?<![ぁ-ん])(?:いや|いえ)(?:[、,。 \n…]+"
    r"(?![、,。 \n…]|やはり(?:これ|それ|\d)|間違い(?:あり|な)|合って|その通り|これで)|違|ちが)|いいえ、?違",
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
#: Supposed, asked, tried first, or said by others.
_HYPOTHESIS = re.compile(
    r"(?:\b(?:if|whether|unless|was|maybe|perhaps|possibly|suppos(?:e|ing)|assum(?:e|ing)|initial(?:ly)?|tentative(?:ly)?"
    r"|although|though|while|whereas"
    r"|at first|first (?:guess|thought|impression)|not sure)\b|もし|仮に|仮の|暫定|一見|最初は|当初|[初はじ]めは)"
    r"[,、]?(?:[^\n.,。、]|[,、](?= ?[\dA-J](?![A-Za-z]))){0,20}\Z|もし[^\n。]{0,40}(?:なら|れば|たら)[^\n。]{0,20}\Z"
    r"|\bone might (?:say|think|argue)\b[^\n.]{0,10}\Z"
    r"|\bI (?:(?:first|initially|originally) )?thought\b[^\n.。]{0,20}\Z"
    r"|(?:\b(?:some|many|most|few|students?|people|others|textbooks?)\b[^\n.。]{0,20}"
    r"\b(?:says?|thinks?|believes?|argues?|chooses?|claims?|assumes?|answers?|might|may|would)\b"
    r"|(?:多く|一部)の(?:人|学生|受験[者生]|教科書))[^\n.。]{0,25}\Z",
    re.IGNORECASE,
)
_IF, _WOULD = re.compile(r"\bif\b[^\n.。]*\Z", re.IGNORECASE), re.compile(r"[A-Za-z ]{0,20}would be")
#: After the list: "3?", "3かもしれない", "3, which is wrong".
_DOUBTED = re.compile(
    r"(?: ?\([^()\n]{0,60}\))? ?番?(?:[^\n.。!]{0,40}\?"
    r"|(?:で(?:ある|す)?|だ)?(?:かも(?:しれ|知れ)|かな|だ?ろうか|でしょうか|ではないか|じゃないか)"
    r"|(?:である|です|だ)?(?:(?:か|と)?の)?ように(?:見|思)|に(?:見え|思え|思われ)|(?:だ)?という(?:説|意見|考えもある|人)"
    r"|(?:だ|か)?と(?:思われ|思い|考えられ|誤解され|勘違いされ)がち"
    r"|,? ?(?:(?:but|which|though) )?(?:that |it )?(?:is|was|seems|looks) (?:wrong|incorrect|not (?:right|correct))"
    r"|(?:に|と)なりそう|,? ?(?:maybe|perhaps|it (?:seems|appears))\b"
    r"|[ ,、;]{0,3}\(?(?:または|又は|もしくは|あるいは|or\b|場合に(?:より|よって))"
    r"|と(?:言|い)いたい| (?:is|was|looks|seems|appears) (?!(?:the|my|correct|right|best|because|since)\b)"
    r"|,? ?(?:if|unless|according to (?:some|many|others)) |(?:である|です)?か(?=[。.?!\n、]|\Z))",
    re.IGNORECASE,
)
#: "The last line is 「答え: 4」 or the like": the form of an answer.
_FORM_BEFORE = re.compile(
    r"(?:such as|e\.?g\.?,?|for example,?|in the (?:form|format|style)(?: of)?|looks? like"
    r"|例えば|例[:は]|例として|形式[:は]?|書式[:は]?)[ 、:]{0,3}\Z",
    re.IGNORECASE,
)
_FORM_AFTER = re.compile(
    r" ?番?、? ?(?:の(?:よう|形|書式|行|具合)|みたい|といった|など|という(?:形|風|ふう|書|具合|行)"
    r"|と(?:書く|書け|書き|記す|記載|出力)"
    r"|,? ?or (?:the like|similar|so)\b|,? ?(?:for example|as an example)\b)",
    re.IGNORECASE,
)
#: Between two answers: the model has thought again, and the second one holds.
_TURN = re.compile(
    r"\b(?:re-?(?:consider|check|evaluat|examin|think|assess|read|view)|double[- ]check|hmm|on (?:second|closer)"
    r"|let(?:'s| me| us) (?:check|verify|think|look|review|re|see)|(?:it|that)'s actually|but wait|oops)"
    r"|再検討|再考|再確認|再度|見直|もう一度|改めて|待て|待って|よく考え|修正",
    re.IGNORECASE,
)
_WINDOW = 60


def is_taken_back(text: str, end: int) -> bool:
    """Whether something after `end` withdraws the answer that ends there."""
    return bool(_DISOWNED.match(text, end) or _WITHDRAWAL.search(text, end))


def turns(text: str) -> list[int]:
    """Where the model thinks again or takes something back."""
    return sorted(match.start() for kind in (_TURN, _WITHDRAWAL) for match in kind.finditer(text))


def is_doubted(text: str, end: int) -> bool:
    """Whether the answer that ends at `end` is only asked or supposed ("3?", 「3かもしれない」), or disowned."""
    return bool(_DOUBTED.match(text, end) or _DISOWNED.match(text, end))


def is_example(text: str, start: int, end: int) -> bool:
    """Whether a statement only shows the form of an answer."""
    return bool(_FORM_AFTER.match(text, end) or _FORM_BEFORE.search(text, max(0, start - _WINDOW), start))


def is_no_claim(text: str, start: int) -> bool:
    """Whether the statement at `start` is only supposed ("if the answer is 3"), of others, or of the wrong options."""
    before = text[max(0, start - _WINDOW) : start]
    would = _WOULD.match(text, start) and _IF.search(before)
    return bool(would or _HYPOTHESIS.search(before) or _OPPOSITE.search(before))
