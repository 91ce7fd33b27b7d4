"""What kind of text a cell is, in words that say nothing of the patient: a number, a date, or what it looks like."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache

from tasks.data.reading.cells import LIMIT, PARTIAL_DATE


@dataclass(frozen=True)
class CellKind:
    """A class of cells. `words` go on after "3 cells "; `remedy` is what the command may be told of them."""

    name: str
    words: str
    remedy: str = ""


INTEGER, NUMBER = CellKind("integer", "that are whole numbers"), CellKind("number", "that are numbers")
YEAR = CellKind("year", "that are whole numbers")
DATE, PARTIAL = CellKind("date", "that are dates yyyy-mm-dd"), CellKind("partial_date", "that are dates")
LONG = CellKind("long", "of more than 15 digits")
ZERO_LED = CellKind("zero_led", "with leading zeros")
CODE = CellKind("code", "that stand for no value", "--missing")
BELOW = CellKind("below", "that begin with <", "--below-limit half, limit or missing")
BELOW_ZERO = CellKind("below_zero", "that begin with < before zero or less", "--below-limit limit or missing")
ABOVE = CellKind("above", "that begin with >", "--above-limit limit or missing")
COMMA = CellKind("comma", "with a decimal comma", "--decimal comma")
COMMA_3 = CellKind("comma_3", "with a comma before three digits", "--decimal {place}=comma if it is the decimal point")
POINT_3 = CellKind("point_3", "with a point before three digits", "--decimal {place}=either if it is the decimal point")
THOUSANDS = CellKind("thousands", "with separators of thousands", "export them without")
INFINITE = CellKind("infinite", "that are no finite numbers")
UNIT = CellKind("unit", "that are numbers with a sign or unit", "export the number alone")
WIDE = CellKind("wide", "in digits other than 0-9", "export them in ASCII")
OTHER_DATE = CellKind("other_date", "that are dates in another form", "export them as yyyy-mm-dd")
WORD = CellKind("word", "that are other text", "--missing {place}=CODE if it stands for no value")

#: Characters of a number or date, however it is written; what is longer is a text.
_LONGEST = 60
#: Kinds that are measured values, however they are written.
LIMITS = frozenset({BELOW, BELOW_ZERO, ABOVE})
NUMBERLIKE = LIMITS | {INTEGER, YEAR, NUMBER, POINT_3, COMMA, COMMA_3, THOUSANDS, INFINITE}
_NUMBER = r"[-+]?((0|[1-9]\d{0,14})(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?"
_FORMS = (
    (YEAR, r"(19|20)\d\d"),
    (INTEGER, r"[-+]?(0|[1-9]\d{0,14})"),
    (POINT_3, r"[-+]?[1-9]\d{0,2}\.\d{3}"),
    (NUMBER, _NUMBER),
    (LONG, r"-?[1-9]\d{15,}"),
    (NUMBER, r"-?0\d+\.\d*"),
    (ZERO_LED, r"-?0\d+"),
    (DATE, r"\d{4}-\d{2}-\d{2}"),
    (PARTIAL, PARTIAL_DATE),
    (COMMA_3, r"[-+]?[1-9]\d{0,2},\d{3}"),
    (COMMA, r"[-+]?\d*,\d+"),
    (THOUSANDS, r"[-+]?\d{1,3}([ ,.'\u00a0\u202f]\d{3})+([.,]\d+)?"),
    (OTHER_DATE, r"\d{1,2}[./-]\d{1,2}[./-]\d{2,4}|\d{4}[./]\d{1,2}[./]\d{1,2}|\d{1,2}[- ]?[A-Za-z]{3}[- ]?\d{2,4}"),
    (OTHER_DATE, r"\d{4}-(\d{2}|UNK?|[Xx-]+)-(\d{2}|UNK?|[Xx-]+)|\d{4}-\d{2}-\d{2} \d{2}:\d{2}.*"),
    (
        UNIT,
        rf"[+~≈±−]?\s*{_NUMBER}\s*([*+%‰]|[A-Za-zµμ°][\w/%^·.µμ°]*)|[~≈±−]\s*{_NUMBER}|{_NUMBER}\s*[-–]\s*{_NUMBER}",
    ),
)
_COMPILED = tuple((kind, re.compile(form, re.ASCII)) for kind, form in _FORMS)


def _words(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split(","))


#: What programs and people write where there is no value, in small letters.
_NO_WORD = _words(".,..,-,--,---,–,—,?,??,#n/a,n/a,n.a.,nan,null,#value!,#div/0!,#ref!")
#: The same in a column of numbers; in one of words, `none` and `unknown` may be what a patient said.
_NO_VALUE = _NO_WORD | _words(
    "*,na,nil,nd,n.d.,unk,unknown,missing,miss,none,not done,not available,not applicable,not known,no data",
    "k.a.,fehlt,unbekannt,inconnu,不明,欠測,未実施,未検,なし,無",
)


def kind_of(text: str) -> CellKind:
    """The kind of a trimmed, filled cell."""
    return WORD if len(text) > _LONGEST else _kind_of(text)


@lru_cache(maxsize=1 << 16)
def _kind_of(text: str) -> CellKind:
    if text.casefold() in _NO_VALUE or re.fullmatch(r"\.[A-Z_]", text):
        return CODE  # SAS has special missing values .A to .Z and ._
    for kind, form in _COMPILED:
        if form.fullmatch(text):
            return INFINITE if kind is NUMBER and not math.isfinite(float(text)) else kind
    limit = LIMIT.fullmatch(text)
    if limit and kind_of(limit["limit"]) in (INTEGER, YEAR, NUMBER, POINT_3, COMMA, COMMA_3):
        below = BELOW_ZERO if float(limit["limit"].replace(",", ".")) <= 0 else BELOW
        return below if limit["side"] in "<≤" else ABOVE
    if any(char.isdigit() and not char.isascii() for char in text):
        return WIDE
    return WORD


def is_no_word(text: str, others: set[str]) -> bool:
    """Whether a cell of a column of words is none; `NA` is a country where all the others are codes of two letters."""
    if text == "NA":
        return not all(re.fullmatch(r"[A-Z]{2}", other) for other in others - {text})
    return text.casefold() in _NO_WORD
