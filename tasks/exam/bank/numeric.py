"""Labels of options. Options that are all numbers are lettered, as in the paper, so that "3" is never both."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_DIGITS = r"\d[\d,]*(?:\.\d+)?"
_POWER = r"(?:\s*(?:\\times|[×x*])\s*10\s*\^?\s*\{?\s*[+-]?\d+\s*\}?)?"
_NUMBER = rf"約?\s*[+\-±]?\s*{_DIGITS}{_POWER}(?:\s*[/:~〜]\s*{_DIGITS}{_POWER})*"
_SYMBOL = (
    r"(?:[kMm\u03bcnpcd]?(?:g|L|l|m|mol|M|Da|eV|J|cal|Hz|Pa|V|Bq|Gy|Sv|Eq|U|IU|s)"
    r"|%|‰|°C?|K|h|hr|min|sec|day|d|atm|mmHg|ppm|ppb"
    r"|(?:[十百千万億兆]*(?:円|人))|[万億兆]|日間?|時間|分間?|秒間?|週間?|[かヶケ]月間?|年間?|歳|回|倍|錠|包|点|滴|個|本)"
)
_UNIT = rf"{_SYMBOL}(?:\^?\{{?[+-]?\d\}}?)?"
_QUANTITY = re.compile(rf"{_NUMBER}\s*(?:{_UNIT}(?:\s*[/·・]\s*{_UNIT})*)?")


def is_quantity(choice: str) -> bool:
    """Whether an option is a number, a ratio or a range, with or without a unit."""
    text = unicodedata.normalize("NFKC", choice).replace("\u2212", "-").replace("\\micro", "\u03bc")
    text = re.sub(r"\^\{?\\circ\s*\}?\s*", "°", text).strip()
    return _QUANTITY.fullmatch(text) is not None


def labels_for(choices: Sequence[str], num_choices: int) -> tuple[str, ...]:
    """A, B, C ... where every option is a quantity, otherwise 1, 2, 3 ...; options in a picture carry numbers."""
    if choices and all(is_quantity(choice) for choice in choices):
        return tuple(chr(ord("A") + index) for index in range(num_choices))
    return tuple(str(index + 1) for index in range(num_choices))
