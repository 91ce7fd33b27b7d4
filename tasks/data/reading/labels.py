"""From a site's tables to the endpoint of each subject, as the study's `label` section describes it.

A subject without an endpoint is left out: it takes no part in the study. What cannot be an endpoint at all, such as a
negative time, is a fault of the data: the table is refused whole, and no value is told.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.types import is_numeric_dtype

from tasks.data.reading.features import Tables, subjects_of
from tasks.data.reading.rows import equal, meets
from tasks.errors import DataError
from tasks.study.label import (
    BinaryLabel,
    Condition,
    CountLabel,
    CoxLabel,
    Label,
    MulticlassLabel,
    RegressionLabel,
    SurvivalLabel,
    TimeLabel,
)
from tasks.study.names import Cell
from tasks.study.sections import Study


def build_labels(tables: Tables, study: Study) -> pd.DataFrame:
    """One row for each subject with an endpoint, in order of its id; the columns are those of the task's labels.

    Raises:
        DataError: a value can be no endpoint: a time below zero, a number outside of the label's bounds, a class that
            the label does not know, two rows where one is meant. Names the column; no value, and not in
            how many rows, since the hub is told.
    """
    label, subject, subjects = study.label, study.data.subject, subjects_of(tables, study)
    rows = tables[label.table]
    match label:
        case BinaryLabel():
            positive = rows.loc[_meeting(rows, label.positive_when), subject]
            found = pd.DataFrame({"label": subjects.isin(positive).astype(np.float64)}, index=subjects)
        case MulticlassLabel():
            found = _classes(rows, label, subject, subjects)
        case RegressionLabel():
            found = _number(rows, label, subject)
        case CountLabel():
            found = _counts(tables, label, subject, subjects)
        case SurvivalLabel():
            found = _times(rows, label, subject, label.until[-1])
        case CoxLabel():
            found = _times(rows, label, subject, label.cut_off)
    return found.reindex(subjects).dropna()


def as_array(labels: pd.DataFrame) -> npt.NDArray[np.float32]:
    """(subjects,), or (subjects, parts) where a task's labels have several."""
    values = labels.to_numpy(dtype=np.float32)
    return values[:, 0] if values.shape[1] == 1 else values


def strata_of(label: Label, labels: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """(subjects,) groups of which each site's held-out patients have the same share as its others: classes, or whether
    there was an event; of a number there are none.
    """
    match label:
        case BinaryLabel() | MulticlassLabel():
            return labels.astype(np.int64)
        case CountLabel():
            return (labels[:, 0] > 0).astype(np.int64)
        case SurvivalLabel() | CoxLabel():
            return labels[:, 1].astype(np.int64)
        case RegressionLabel():
            return np.zeros(len(labels), dtype=np.int64)


def _meeting(rows: pd.DataFrame, conditions: tuple[Condition, ...]) -> npt.NDArray[np.bool_]:
    keep = np.ones(len(rows), dtype=bool)
    for condition in conditions:
        keep &= meets(rows[condition.column], condition)
    return keep


def _where(rows: pd.DataFrame, where: Mapping[str, Cell]) -> pd.DataFrame:
    for column, value in where.items():
        rows = rows[equal(rows[column], value)]
    return rows


def _classes(rows: pd.DataFrame, label: MulticlassLabel, subject: str, subjects: pd.Index) -> pd.DataFrame:
    rows = _where(rows, label.where)
    values = rows[label.column]
    place = pd.Series(np.nan, index=rows.index)
    for number, own in enumerate(label.classes.values()):
        for value in own:
            place[equal(values, value)] = number
    if (place.isna() & values.notna()).any():
        raise DataError(
            f"column {label.column} of table {label.table} has rows whose value is none of label.classes: "
            "add it to a class, or leave these rows out by label.where"
        )
    found = place.groupby(rows[subject]).max().reindex(subjects)
    if label.without_rows is not None:
        found = found.fillna(list(label.classes).index(label.without_rows))
    return found.to_frame("class")


def _number(rows: pd.DataFrame, label: RegressionLabel, subject: str) -> pd.DataFrame:
    found = _value(rows, label, label.where, subject)
    if label.minus is not None:
        found = found - _value(rows, label, label.minus, subject)
    found = found.dropna()
    _refuse(label.table, label.column, (found < label.low) | (found > label.high), "outside of label.low to label.high")
    middle, half = (label.low + label.high) / 2, (label.high - label.low) / 2
    return ((found - middle) / half).to_frame("value")


def _value(rows: pd.DataFrame, label: RegressionLabel, where: Mapping[str, Cell], subject: str) -> pd.Series:
    rows = _where(rows, where)
    _require_numbers(label.table, rows[label.column])
    rows = rows[rows[label.column].notna()]
    if label.reduce == "only":
        _require_one(label.table, rows, subject, "set label.reduce to last or mean, or narrow label.where")
    groups = rows.groupby(subject)[label.column]
    return groups.mean() if label.reduce == "mean" else groups.last()


def _counts(tables: Tables, label: CountLabel, subject: str, subjects: pd.Index) -> pd.DataFrame:
    rows = tables[label.table]
    counted = rows[_meeting(rows, label.counted_when)].groupby(subject).size().reindex(subjects, fill_value=0)
    exposed = pd.Series(0.0, index=subjects)
    if label.time_table is not None and label.time_column is not None and label.time_most is not None:
        times = _where(tables[label.time_table], label.time_where)
        times = times[times[label.time_column].notna()]
        _require_numbers(label.time_table, times[label.time_column])
        _require_one(label.time_table, times, subject, "narrow label.time_where")
        found = times.set_index(subject)[label.time_column].astype(np.float64)
        _refuse(label.time_table, label.time_column, found <= 0, "not above 0, and is a time of exposure")
        exposed = (found.clip(upper=label.time_most) / label.time_unit).map(np.log)
    return pd.DataFrame({"count": counted.clip(upper=label.most).astype(np.float64), "log_exposure": exposed})


def _times(rows: pd.DataFrame, label: TimeLabel, subject: str, cut_off: float) -> pd.DataFrame:
    rows = _where(rows, label.where)
    _require_numbers(label.table, rows[label.time])
    _require_one(label.table, rows, subject, "narrow label.where")
    _refuse(label.table, label.time, rows[label.time].isna(), "missing, and is when follow-up ended")
    _refuse(label.table, label.time, rows[label.time] < 0, "below 0, and is a time since the start of follow-up")
    events, times = _meeting(rows, label.event_when), rows[label.time].to_numpy(dtype=np.float64)
    columns = {"time": np.minimum(times, cut_off), "event": (events & (times <= cut_off)).astype(np.float64)}
    return pd.DataFrame(columns, index=pd.Index(rows[subject]))


def _require_numbers(table: str, values: pd.Series) -> None:
    if not is_numeric_dtype(values):
        raise DataError(f"column {values.name} of table {table} holds texts, and the study's label needs numbers")


def _require_one(table: str, rows: pd.DataFrame, subject: str, remedy: str) -> None:
    if rows[subject].duplicated().any():
        raise DataError(f"table {table} has several rows of a subject for the label, and one is meant: {remedy}")


def _refuse(table: str, column: str, wrong: pd.Series, what: str) -> None:
    if wrong.any():
        raise DataError(f"column {column} of table {table} is {what}, in some rows: correct the data or the study")
