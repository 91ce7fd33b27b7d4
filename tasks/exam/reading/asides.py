"""What a reply says beside its answer: of other cases and questions, and what its own sentence sets against it.

Linear in the text: every search is of a bounded window.
"""

from __future__ import annotations

import re

from tasks.exam.reading.option_list import read_list
from tasks.exam.reading.options import KANJI, ItemOptions

_SENTENCE_START = re.compile(r"[\n。]|[.!?;] ")
_SENTENCE_END = re.compile(r"[\n。]|[.!?](?= |\Z)")
_OTHER_QUESTION = re.compile(
    r"(?:前|次|別の|他の|先の|直前の)の?(?:設問|問題?)"
    r"|\b(?:previous|preceding|last|next|other|another|earlier) (?:question|item)",
    re.IGNORECASE,
)
#: Remarks, cases and questions with a number.
_ASIDE = re.compile(
    r"なお|ただし|但し|補足|ちなみに|参考|余談|一方|他方|場合|(?:の|る|た|時)(?:とき|際)|時(?:の|は|には|であ)|であれば|ならば?|だったら|たら"
    r"|(?:患者|小児|妊婦|高齢者|成人|新生児|海外|旧版)(?:さん)?(?:の|では|には|に対)|問(?:題)? ?\d|第 ?\d+ ?問"
    r"|\b(?:Q|question|item|problem) ?\d|\b(?:by the way|incidentally|as an aside|for reference|note|nb)\b"
    r"|\b(?:in|for|with|among|when|where|if|had|during|under)\b[^.\n]{0,40}"
    r"\b(?:patients?|children|adults?|women|men|cases?|pregnan\w+|infants?|elderly|people|dialysis|failure|guidelines?)\b",
    re.IGNORECASE,
)
_OWN_CASE = re.compile(
    r"(?:この|本|当該?|今回の|設問の|以上の)(?:よう[にな])?(?:場合|症例|患者|問|設問)|\b(?:this|these|our|the given)\b",
    re.IGNORECASE,
)
_AGAINST = re.compile(
    r"が|けど|けれど|ものの|きや|見せかけ|のに|一方|しかし|ただし|でも|;"
    r"|\b(?:but|yet|however|(?:al)?though|actually|really|whereas|while)\b",
    re.IGNORECASE,
)
_LATER_AGAINST = re.compile(
    r"(?:[。.!?)] ?|\n)(?:しかし|だが|ですが|ただ|でも|けれど|ところが|一方|本問|実際"
    r"|(?:However|But|Yet|Still|Actually|For|In|On)\b)"
)
_WORD = re.compile(rf"(?<![A-Za-z\d.=\u0370-\u03ff-])(?:[A-Za-z]|\d+|[{KANJI}])")
#: Words before another option's label that make it a value of something else.
_VALUE_OF = re.compile(r"(?:(?<![でに際在当])は|[=≈])[ 、約]*\Z")
_SAID_TO_BE = re.compile(
    r"(?:\b(?:it(?:'s| is)|choose|pick|options?|choice|answer is)|[\u3040-\u9fff、,]) ?\Z", re.IGNORECASE
)
_CLAIMED = re.compile(
    r" ?番?(?:です|だ(?![がろけと])|である(?![がか])|でしょう|と(?:なる|なり|判断|考え|する|した)|に(?:なる|なり|する)"
    r"|が ?(?:最も|より)? ?(?:正し|適|妥当|該当|答え|正解|選ば|良|よ)|を(?:選|答|正解)|[のが](?:ほう|方)が"
    r"|[.!;,)。]|\Z|\n)"
    r"| (?:on|here|upon|instead|because|since|after|given|in (?:this|fact)|for (?:this|chronic)"
    r"|is (?:the |more |most |actually )*(?:correct|right|better|best|answer|appropriate))\b",
    re.IGNORECASE,
)
_WINDOW, _REACH = 80, 600


def sentence_start(text: str, position: int) -> int:
    """Where the sentence around `position` starts, at most a window before it."""
    first = max(0, position - _WINDOW)
    ends = [match.end() for match in _SENTENCE_START.finditer(text, first, position)]
    return ends[-1] if ends else first


def is_of_another_question(text: str, start: int) -> bool:
    """Whether the sentence of the statement at `start` says that it answers another question."""
    return _OTHER_QUESTION.search(text, sentence_start(text, start), start) is not None


def is_aside(text: str, start: int, end: int) -> bool:
    """Whether a statement is a remark, or of a case or question that it names: it cannot outweigh another."""
    said = text[sentence_start(text, start) : _sentence_end(text, end)]
    return bool(_ASIDE.search(_OWN_CASE.sub("", said)) and not _OWN_CASE.search(said))


def is_contested(text: str, end: int, numbers: tuple[str, ...], options: ItemOptions) -> bool:
    """Whether what follows the statement of `numbers` that ends at `end` sets another answer against it.

    "答えは1だが、よく見ると2。" "The answer is 1. For chronic cases like this, it is 2."
    """
    stop = _sentence_end(text, end)
    against = _AGAINST.search(text, end, stop)
    if against and _names_another(text, against.end(), stop, numbers, options):
        return True
    later = _LATER_AGAINST.finditer(text, max(end - 1, 0), min(len(text), end + _REACH))
    return any(
        _names_another(text, match.end(), _sentence_end(text, match.end()), numbers, options, later=True)
        for match in later
    )


def _names_another(
    text: str, start: int, stop: int, numbers: tuple[str, ...], options: ItemOptions, *, later: bool = False
) -> bool:
    for word in _WORD.finditer(text, start, stop):
        lead = text[max(start, word.start() - 20) : word.start()]
        if _VALUE_OF.search(lead) or (later and not _SAID_TO_BE.search(lead)):
            continue
        found = read_list(text, word.start(), options)
        other = options.chosen(found.numbers) if found.kind == "list" else None
        if other is not None and set(other) != set(numbers) and _CLAIMED.match(text, found.end):
            return True
    return False


def _sentence_end(text: str, position: int) -> int:
    stop = min(len(text), position + 2 * _WINDOW)
    found = _SENTENCE_END.search(text, position, stop)
    return found.start() if found else stop
