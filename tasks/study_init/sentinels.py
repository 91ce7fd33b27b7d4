"""Numbers that may stand for no value: 99 in a score from 0 to 10, -9 among ages, 0 where a measurement cannot be 0."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.study_init.column_types import Source
from tasks.study_init.questions import Question, at_sites, shell
from tasks.study_init.rounding import plain

#: A code is one digit, 7, 8 or 9, once or several times; -1 is one where nothing else is below zero.
_CODE = re.compile(r"-?(7{1,6}|8{1,6}|9{1,6})|-1")
#: 99 lies so many times as high as the next value, and 9 needs to be there for some rows: a count may be 9 once.
_FAR, _ROWS_OF_NINE = 2.0, 3
#: Zero is no value of a measurement whose least other value lies more than so many steps above it; a step is the
#: middle one between its lowest values.
_STEPS, _VALUES = 5, 10


def suspicious_numbers(source: Source, values: pd.Series) -> Question | None:
    """A question about numbers that look like codes; `values` are the typed ones, NaN where there is none."""
    filled = values.dropna()
    distinct = np.unique(filled.to_numpy())
    if len(distinct) < 3:
        return None
    found = [*_codes(filled, distinct)] or [0.0] * _is_no_zero(distinct)
    if not found:
        return None
    mine = values.isin(found)
    listed = ", ".join(f"{plain(value)}" for value in found)
    whole = [site for site, own in filled.groupby(source.site) if own.isin(found).all()]
    all_of = f", all cells of {', '.join(map(str, whole[:5]))}" if whole else ""
    what = (
        f"{int(mine.sum())} cells are {listed}, far from all others{at_sites(source.site[mine], source.site.nunique())}"
    )
    answers = tuple(f"--missing {shell(f'{source.place}={plain(value)}')}" for value in found)
    return Question(source.table, source.name, f"{what}{all_of}", answers)


def _codes(filled: pd.Series, distinct: npt.NDArray[np.float64]) -> list[float]:
    coded = [float(v) for v in distinct if float(v).is_integer() and _CODE.fullmatch(str(int(v)))]
    below = [v for v in coded if v < 0]
    if set(below) != {float(v) for v in distinct if v < 0}:
        below = []  # others are below zero, too: a change, a temperature, a base excess
    others = [float(v) for v in distinct if v not in coded]
    highest = max(others, default=np.inf)
    above = [v for v in coded if v > 0 and v >= _FAR * max(highest, 1) and _often(v, filled)]
    return [*below, *above]


def _often(value: float, filled: pd.Series) -> bool:
    return value >= 10 or int((filled == value).sum()) >= _ROWS_OF_NINE


def _is_no_zero(distinct: npt.NDArray[np.float64]) -> bool:
    above = distinct[distinct > 0]
    if distinct[0] != 0 or len(above) < _VALUES:
        return False
    return bool(above[0] > _STEPS * np.median(np.diff(above[:_VALUES])))
