"""Words for yes, no, male and female in the languages of hospital exports, and texts that are one but for spelling."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split(","))


YES = _words("y,yes,t,true,1,1.0,+,pos,positive,present,ja,j,oui,si,sí,sim,s,はい,有,あり,陽性")
NO = _words("n,no,f,false,0,0.0,-,neg,negative,absent,nein,non,não,nao,いいえ,無,なし,陰性")
_MALE = _words("m,male,man,boy,mann,männlich,masculin,masculino,h,homme,男,男性")
_FEMALE = _words("f,female,woman,girl,w,weiblich,frau,femme,femenino,女,女性")
_UNKNOWN = _words("u,unk,unknown,不明")
_PAIRS = ({"yes": YES, "no": NO}, {"male": _MALE, "female": _FEMALE})


def plain_text(text: str) -> str:
    """Without case, width and double blanks; hyphen and underscore are blanks between letters."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"(?<=\w)[\s_\-]+(?=\w)", " ", folded).strip().rstrip(".")


def meanings(texts: Iterable[str]) -> dict[str, str]:
    """Text -> what it means: as words for yes and no, or for the sexes, where both stand beside each other.

    Other texts beside them, such as `not evaluable`, are what they say. `f` is no beside `t`, female beside `m`.
    """
    plain = {text: plain_text(text) for text in texts}
    for pair in _PAIRS:
        words = {word: name for name, spelled in pair.items() for word in spelled}
        if set(pair) <= {words.get(key) for key in plain.values()}:
            words |= dict.fromkeys(_UNKNOWN, "unknown")
            return {text: words.get(key, key) for text, key in plain.items()}
    return plain
