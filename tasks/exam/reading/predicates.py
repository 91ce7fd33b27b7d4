"""What is said of an option: that it holds, in full and without a denial, or anything else."""

from __future__ import annotations

import re

#: After "が正解": a clause that denies it after all, as "が正解から外れる" or "が正解になることはない".
DENYING_TAIL = (
    r"(?![^\n。、,]{0,12}(?:間違いな|違いな|間違いあり|ほかなら|他なら))"
    r"[^\n。、,.]{0,20}(?:ない|なく|ません|得ぬ|外れ|外す|除|誤り|違う|違い|疑|無理|遠い|欠|乏し)"
)
_SEEN = (
    r"(?:(?:です|だ|である|で)?(?:こと(?:が|に)|と|に)?(?:なる|なります|なった|考えられ(?:る|ます)|考え(?:る|ます)"
    r"|思(?:う|います|われる|われます)|判断(?:する|します|した|できる|できます|される|されます)|結論(?:する|できる|づけられる)"
    r"|(?:言|い)え(?:る|ます)|(?:分|わ)か(?:る|ります)))?"
)
_END = (
    r"(?:です|だ|である)?(?:ため|ので|から)? ?(?:(?=[。.!)\n]|\Z)|(?=[、,])(?![、,] ?(?:とは|と(?:いう|する|言)|わけ)))"
)
_HOLDS = re.compile(
    r" ?番?(?:の(?:選択肢|記述|もの)|のみ|だけ)? ?(?:"
    r"[がは] ?(?:最も|もっとも|一番)? ?(?:正しい|適切|妥当|適当|該当(?:する|します)|当てはま(?:る|ります)|正解|正答"
    r"|答え|解答|選ばれ(?:る|ます)|残(?:る|ります))(?:な(?:もの|の|選択肢|記述|説明|回答|解答|答え|薬物?))?"
    rf"{_SEEN}{_END}"
    r"|を ?(?:選(?:ぶ|びます|んだ)|選択(?:する|します|した)?|(?:正解|正答|答え?|解答)と(?:する|します|した)"
    r"|解答(?:する|します)?)"
    rf"{_END}"
    r"|と(?:(?:なる|なります)|(?:判断|結論|決定|解答)(?:する|します|した|できる|できます|される)?)"
    rf"{_END}"
    r"| (?:is|are) (?:(?:the|my) )?(?:only )?(?:most )?(?:correct|right|best|appropriate|suitable|likely|answer)"
    r"(?: (?:answers?|options?|choices?|statements?|ones?))?"
    r"(?= ?(?:[.!,;:)]|\n|\Z)| (?:because|since|as|here|given|due|and)\b))",
    re.IGNORECASE,
)
_SAID_OF = re.compile(r" ?番?(?:の[^\n。、,()]{0,20})?(?:[がをも]|は(?=[^\n 、]))")


def holds(text: str, end: int) -> bool:
    """Whether the words after an option that ends at `end` say that it is the one."""
    return _HOLDS.match(text, end) is not None


def is_said_of(text: str, end: int) -> bool:
    """Whether the words after an option say something else of it: "4は禁忌である"."""
    said = _SAID_OF.match(text, end)
    return said is not None and not any(_HOLDS.match(text, place) for place in (end, said.end() - 1))
