"""Numbers that may stand for no value: 99 in a score from 0 to 10, -9 among ages, 0 where a measurement cannot be 0."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.data.drafting.column_types import Source
from tasks.data.drafting.names import is_named_like_a_time
from tasks.data.drafting.questions import ColumnQuestion, at_sites, shell
from tasks.data.drafting.rounding import plain
from tasks.data.drafting.subjects import MIN_CELL

#: A code is one digit, 7, 8 or 9, once or several times, or nines with 6, 7 or 8 at the end, as 96 to 99 in a survey;
#: -1 is one where nothing else is below zero.
_CODE = re.compile(r"-?(7{1,6}|8{1,6}|9{1,6}|9{1,5}[678])|-1")
#: Of times fewer: a visit may be on day -7, on day 77 or 98, or in week 96. Those are codes beside one of these.
_CODE_OF_TIME = re.compile(r"-?(7{3,6}|8{2,6}|9{2,6})")
#: 99 lies so many times as high as the next value, and 9 needs to be there for some rows: a count may be 9 once.
_FAR, _ROWS_OF_NINE = 2.0, 3
#: Zero is no value of a measurement whose least other value lies more than so many steps above it; a step is the
#: middle one between its lowest values.
_STEPS, _VALUES = 5, 10
_DIGITS = {
    "0": "zero",
    "1": "minus one",
    "7": "a number of sevens",
    "8": "a number of eights",
    "9": "a number of nines",
}


def suspicious_numbers(source: Source, values: pd.Series) -> ColumnQuestion | None:
    """A question about numbers that look like codes; `values` are the typed ones, NaN where there is none."""
    filled = values.dropna()
    distinct = np.unique(filled.to_numpy())
    if len(distinct) < 3:
        return None
    found = _codes(filled, distinct)
    if is_named_like_a_time(source.name):
        found = found if any(_CODE_OF_TIME.fullmatch(str(int(value))) for value in found) else []
    elif not found and _is_no_zero(distinct):
        found = [0.0]
    return _question(source, values, found) if found else None


def _question(source: Source, values: pd.Series, found: list[float]) -> ColumnQuestion:
    """A number that fewer than `MIN_CELL` patients have is told by its digits alone, such as `a number of nines`."""
    mine = values.isin(found)
    owners = pd.DataFrame({"value": values[mine].to_numpy(), "patient": source.patients[mine.to_numpy()]})
    counts = owners.drop_duplicates()["value"].value_counts()
    named = [value for value in found if counts[value] >= MIN_CELL]
    listed = ", ".join([*(str(plain(value)) for value in named), *_unnamed(set(found) - set(named))])
    whole = [site for site, own in values.dropna().groupby(source.site) if own.isin(found).all()]
    all_of = f", all cells of {', '.join(map(str, whole[:5]))}" if whole else ""
    where = at_sites(source.site[mine], source.site.nunique())
    what = f"{int(mine.sum())} cells are {listed}, far from all others{where}{all_of}"
    codes = [*(str(plain(value)) for value in named), *(["CODE"] if len(named) < len(found) else [])]
    answers = tuple(f"--missing {shell(f'{source.place}={code}')}" for code in codes)
    return ColumnQuestion(source.table, source.name, what, answers)


def _unnamed(rare: Iterable[float]) -> list[str]:
    """What may be said of numbers that few patients have."""
    return sorted({_DIGITS[str(abs(int(value)))[0]] for value in rare})


def _codes(filled: pd.Series, distinct: npt.NDArray[np.float64]) -> list[float]:
    """Codes below zero and above, each far from all that is none; 98 does not hide 99."""
    whole = [float(v) for v in distinct if float(v).is_integer()]
    coded = [v for v in whole if _CODE.fullmatch(str(int(v)))]
    below = [v for v in coded if v < 0]
    if set(below) != {float(v) for v in distinct if v < 0}:
        below = [v for v in below if v <= -10 and _is_far(v, -distinct, coded)]  # a change or a study day
    return [*below, *(v for v in coded if v > 0 and _is_far(v, distinct, coded) and _often(v, filled))]


def _is_far(code: float, distinct: npt.NDArray[np.float64], coded: list[float]) -> bool:
    """Whether it lies beyond all values on its side that are no codes of so many digits: 9 is a value beside 99."""
    digits = len(str(int(abs(code))))
    codes = {abs(v) for v in coded if len(str(int(abs(v)))) >= digits}
    others = [float(v) for v in distinct if float(v) not in codes]
    return bool(others) and abs(code) >= _FAR * max(*others, 1)


def _often(value: float, filled: pd.Series) -> bool:
    return value >= 10 or int((filled == value).sum()) >= _ROWS_OF_NINE


def _is_no_zero(distinct: npt.NDArray[np.float64]) -> bool:
    above = distinct[distinct > 0]
    if distinct[0] != 0 or len(above) < _VALUES:
        return False
    return bool(above[0] > _STEPS * np.median(np.diff(above[:_VALUES])))
