"""From the text in a cell to a value: trimmed, spelled as the study spells it, without its codes for missing, typed.

The one place that does so: what a draft looks at, what a check looks at and what a round trains on are the same values.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from tasks.data.checks.suite import ColumnType
from tasks.study.reading import AppliedRules

#: Blanks at a cell's ends, as fixed-width text has them; with those of no width, which no eye sees.
_BLANKS = "".join(chr(code) for code in range(0x3001) if chr(code).isspace()) + "\u200b\u2060\ufeff"
#: Year, month, day, and the time of the day where it is told: ISO 8601, as SDTM writes it.
PARTIAL_DATE = r"\d{4}(-\d{2}(-\d{2}(T\d{2}(:\d{2}(:\d{2}(\.\d+)?)?)?)?)?)?"
#: A decimal comma, in a limit too.
_COMMA = r"^((?:[<>≤≥]=?\s*)?[-+]?\d*),(\d+)$"
#: The same without `1,234`, and `1.234`: one separator before three digits may be that of thousands.
_PLAIN_COMMA = r"^((?:[<>≤≥]=?\s*)?[-+]?(?![1-9]\d{0,2},\d{3}$)\d*),(\d+)$"
_POINT_3 = r"^((?:[<>≤≥]=?\s*)?[-+]?[1-9]\d{0,2})\.(\d{3})$"
#: A number beyond what could be measured: `<0.3`, `>= 90`.
LIMIT = re.compile(r"(?P<side>[<>≤≥])=?\s*(?P<limit>\S+)", re.ASCII)


def trim(cells: pd.Series) -> pd.Series:
    """Without the blanks at their ends; of a cell of blanks only nothing is left, and it is missing."""
    trimmed = cells.str.strip(_BLANKS)
    return trimmed.mask(trimmed == "")


def typed(cells: pd.Series, type_: ColumnType, rules: AppliedRules) -> tuple[pd.Series, int]:
    """Trimmed cells in their type, and how many cannot be of it: those are missing.

    string and partial_date -> str, integer and number -> float64, date -> datetime64.
    """
    cells = _known(_respelled(cells, rules), rules, is_number=type_ in ("integer", "number"))
    if type_ == "string":
        return cells, 0
    if type_ in ("integer", "number"):
        cells = _beyond_limits(_with_points(cells, rules), rules)
    values = _values(cells, type_)
    return values, int((values.isna() & cells.notna()).sum())


def as_number(text: str) -> float | None:
    """The finite number that a cell holds, as `typed` reads it; None where it holds none."""
    number = pd.to_numeric(pd.Series([text], dtype=str), errors="coerce").astype(np.float64).iloc[0]
    return float(number) if np.isfinite(number) else None


def _respelled(cells: pd.Series, rules: AppliedRules) -> pd.Series:
    return cells.replace(rules.spellings) if rules.same else cells


def _known(cells: pd.Series, rules: AppliedRules, *, is_number: bool) -> pd.Series:
    """What is no code for a missing value."""
    if not rules.missing:
        return cells
    coded = cells.isin(list(rules.missing))
    numbers = {as_number(code) for code in rules.missing} - {None}
    if is_number and numbers:
        coded |= pd.to_numeric(_with_points(cells, rules), errors="coerce").isin(list(numbers))
    return cells.mask(coded)


def _with_points(cells: pd.Series, rules: AppliedRules) -> pd.Series:
    """With decimal points; what may be a thousand becomes a text that is no number."""
    if not rules.decimal:
        return cells
    if rules.decimal == "comma":
        cells = cells.str.replace(_POINT_3, r"\1'\2", regex=True)
    return cells.str.replace(_COMMA if rules.is_own_decimal else _PLAIN_COMMA, r"\1.\2", regex=True)


def _beyond_limits(cells: pd.Series, rules: AppliedRules) -> pd.Series:
    """`<0.3` and `>90` as the rules say; what no rule is about stays as it is."""
    if not (rules.below_limit or rules.above_limit):
        return cells
    read = {text: _read_limit(match, rules) for text in cells.dropna().unique() if (match := LIMIT.fullmatch(text))}
    return cells.replace(read).mask(cells.isin([text for text, value in read.items() if value is None]))


def _read_limit(match: re.Match[str], rules: AppliedRules) -> str | None:
    """The text of a number, or None for a missing value; half of what is not above zero is not below it: no number."""
    rule = rules.below_limit if match["side"] in "<≤" else rules.above_limit
    limit = as_number(match["limit"])
    if rule is None or limit is None or (rule == "half" and limit <= 0):
        return match.string
    return None if rule == "missing" else repr(limit / 2 if rule == "half" else limit)


def _values(cells: pd.Series, type_: ColumnType) -> pd.Series:
    """The cells in their type; what is not of it becomes missing."""
    if type_ == "date":
        return pd.to_datetime(cells.where(cells.str.len() == 10), format="%Y-%m-%d", errors="coerce")
    if type_ == "partial_date":
        return cells.where(cells.str.fullmatch(PARTIAL_DATE).fillna(False).astype(bool))
    numbers = pd.to_numeric(cells, errors="coerce").astype(np.float64)
    numbers = numbers.where(np.isfinite(numbers))
    return numbers.where(numbers == numbers.round()) if type_ == "integer" else numbers
