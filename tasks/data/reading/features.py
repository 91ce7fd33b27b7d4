"""From a site's tables to model inputs, as the study file describes them.

`build_inputs` gives natural units, for the expectations; `scale_inputs` applies the public constants, for the model.
Nothing here is estimated from data, so preparing inputs spends no privacy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.data.reading.rows import equal
from tasks.study.sections import Input, Study

Tables = dict[str, pd.DataFrame]


def build_inputs(tables: Tables, study: Study) -> pd.DataFrame:
    """One row per subject in order of its id, one column per input, natural units, NaN where there is no value."""
    subjects = subjects_of(tables, study)
    columns = {spec.name: _build_input(tables[spec.table], spec, study.data.subject, subjects) for spec in study.inputs}
    return pd.DataFrame(columns, index=subjects)


def scale_inputs(inputs: pd.DataFrame, study: Study) -> npt.NDArray[np.float32]:
    """Shape (subjects, inputs): centred, scaled and clipped by public constants; a missing value is the centre, 0."""
    columns = [_scale(inputs[spec.name].to_numpy(dtype=np.float64), spec) for spec in study.inputs]
    return np.stack(columns, axis=1).astype(np.float32)


def subjects_of(tables: Tables, study: Study) -> pd.Index:
    """The subjects of the first table: each site's subject-level table lists every patient once."""
    subjects: pd.Index = pd.Index(sorted(tables[study.data.tables[0]][study.data.subject]), name=study.data.subject)
    return subjects


def _build_input(rows: pd.DataFrame, spec: Input, subject: str, subjects: pd.Index) -> pd.Series:
    for column, value in spec.where.items():
        rows = rows[equal(rows[column], value)]
    if spec.on_or_before is not None:
        day, last = spec.on_or_before
        rows = rows[rows[day] <= last]
        if spec.within is not None:
            rows = rows[rows[day] > last - spec.within]
        if spec.reduce == "last":
            rows = rows.sort_values(day, kind="stable")
    return _reduce(rows, spec, subject).reindex(subjects, fill_value=_empty(spec)).astype(np.float64)


def _empty(spec: Input) -> float:
    if spec.reduce == "missing":
        return 1.0
    return 0.0 if spec.reduce in ("any", "count", "count_distinct") else np.nan


def _reduce(rows: pd.DataFrame, spec: Input, subject: str) -> pd.Series:
    groups = rows.groupby(subject, sort=False)
    if spec.column is None or spec.reduce in ("any", "count"):
        sizes = groups.size()
        return (sizes > 0).astype(np.float64) if spec.reduce == "any" else sizes
    values = groups[spec.column]
    if spec.reduce == "count_distinct":
        return values.nunique()
    if spec.reduce == "missing":
        return (values.count() == 0).astype(np.float64)
    if spec.reduce == "mean":
        return values.mean()
    return _encode(values.last(), spec)


def _encode(values: pd.Series, spec: Input) -> pd.Series:
    if spec.codes is None:
        return values
    coded = values.map(spec.codes)
    return coded if spec.other is None else coded.where(coded.notna() | values.isna(), spec.other)


def _scale(values: npt.NDArray[np.float64], spec: Input) -> npt.NDArray[np.float64]:
    transform = np.log1p if spec.transform == "log1p" else np.positive
    known = np.where(np.isnan(values), spec.centre if spec.missing_as is None else spec.missing_as, values)
    scaled = (transform(known) - transform(spec.centre)) / spec.scale
    clipped: npt.NDArray[np.float64] = np.clip(np.nan_to_num(scaled, nan=0.0), -spec.clip, spec.clip)
    return clipped * spec.gain
