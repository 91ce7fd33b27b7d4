"""Which rows of a table a study means."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.types import is_numeric_dtype

from tasks.errors import ConfigError
from tasks.study.label import Condition
from tasks.study.names import Cell


def meets(values: pd.Series, condition: Condition) -> npt.NDArray[np.bool_]:
    """Which rows meet the condition, by the values of its column."""
    if condition.at_most is not None:
        met = values <= condition.at_most
    elif condition.at_least is not None:
        met = values >= condition.at_least
    elif condition.is_ is not None:
        met = equal(values, condition.is_)
    else:
        met = ~equal(values, condition.is_not)
    mask: npt.NDArray[np.bool_] = met.fillna(False).to_numpy(dtype=bool)
    return mask


def equal(values: pd.Series, value: Cell | None) -> pd.Series:
    """Which cells are this value.

    Raises:
        ConfigError: a text is compared with numbers, or a number with texts: none would ever be equal.
    """
    if is_numeric_dtype(values) == isinstance(value, str):
        holds, given = ("numbers", "a text") if isinstance(value, str) else ("texts", "a number")
        raise ConfigError(
            f"column {values.name} holds {holds}, but the study compares it with {given}: correct the study"
        )
    return (values == value).fillna(False)
