"""Judges candidate inputs on what a site would build from them, and gives those that stay a centre and a scale.

An input that a site has not measured in many patients stays, with one beside it that says where it is missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.data.checks.parameters import InputReference
from tasks.data.checks.suite import SuiteMeta
from tasks.data.drafting.columns import Profile
from tasks.data.drafting.inputs import Candidates, LeftOut, free_name, typed_tables
from tasks.data.drafting.rounding import one_digit, plain, power_of_ten, to_place, two_digits
from tasks.data.drafting.subjects import MIN_CELL
from tasks.data.reading.features import build_inputs, build_labels
from tasks.learning.evaluation import auc
from tasks.study.sections import Input, Study

#: A single column that ranks patients this well (AUC) is the outcome under another name.
NEARLY_PERFECT = 0.98
#: One that ranks them so well is marked: it may be known only at the outcome.
STRONG = 0.7
#: An input that more than this share of the patients lack at every site is left out.
_MOSTLY_EMPTY = 0.5
#: A name has 64 characters; so many are left for `_missing` and a number.
_LONGEST = 52
#: From this skewness on (an exponential distribution has 2) a quantity is taken on a log scale.
_SKEWED = 1.2


@dataclass(frozen=True)
class SettledInputs:
    """The study's inputs, those first that tell most of the outcome alone.

    drafted: those whose centre and scale were taken from the data. strong: those that tell so much that somebody should
    ask whether they are known in time. gaps: input with many gaps -> the input that says where they are.
    """

    inputs: tuple[Input, ...]
    drafted: frozenset[str]
    left_out: tuple[LeftOut, ...]
    strong: frozenset[str] = frozenset()
    gaps: Mapping[str, str] = field(default_factory=dict)


def settle(candidates: Candidates, probe: Study, profiles: Mapping[str, Profile], meta: SuiteMeta) -> SettledInputs:
    """Keep what does not give the outcome away and passes the suite `inputs` at every site.

    Args:
        candidates: what could be an input.
        probe: a study of all candidates, with any centre and scale.
        profiles: every table.
        meta: that of the suite `inputs`: how many scales from the centre a value and a site's median may lie.
    """
    values, labels = _build(probe, profiles)
    kept, drafted, left_out = [], set(), list(candidates.left_out)
    seen: set[bytes] = set()
    telling = _telling(candidates.inputs, values, labels)
    for spec in candidates.inputs:
        settled, measured = _scaled(spec, values[spec.name])
        why = _why_not(settled, values[spec.name], telling[_source(spec)], meta)
        why = why or ("says the same as another input" if not _is_new(values[spec.name], seen) else None)
        if why is not None:
            left_out.append(LeftOut(spec.table, str(spec.column), why, _kind(spec)))
            continue
        kept.append(settled)
        drafted |= {spec.name} if measured else set()
    kept.sort(key=lambda spec: -telling[_source(spec)])
    inputs, gaps = _with_gaps(kept, values, probe.data.max_missing)
    strong = frozenset(spec.name for spec in kept if telling[_source(spec)] >= STRONG)
    return SettledInputs(tuple(inputs), frozenset(drafted), tuple(dict.fromkeys(left_out)), strong, gaps)


def _is_new(values: pd.Series, seen: set[bytes]) -> bool:
    """Whether no input had these values before: an arm's code says the same as its name."""
    key = values.to_numpy(dtype=np.float64).tobytes()
    new = key not in seen
    seen.add(key)
    return new


def _with_gaps(kept: list[Input], values: pd.DataFrame, most: float) -> tuple[list[Input], dict[str, str]]:
    """Each input that some site lacks in more than the share `most` of its patients may be missing, and says so.

    Inputs with the same gaps, such as the tests of one blood sample, share the input that tells of them.
    """
    inputs: list[Input] = []
    gaps: dict[str, str] = {}
    known: dict[bytes, str] = {}
    taken = {spec.name for spec in kept}
    for spec in kept:
        missing = values[spec.name].isna()
        share = float(missing.groupby(level=0).mean().max())
        if share <= most:
            inputs.append(spec)
            continue
        inputs.append(spec.model_copy(update={"max_missing": _tenth_above(share)}))
        where = missing.to_numpy().tobytes()
        if where not in known:
            known[where] = free_name(f"{_of_all_codes(spec)[:_LONGEST]}_missing", taken)
            taken.add(known[where])
            inputs.append(_gap(spec, known[where]))
        gaps[spec.name] = known[where]
    return inputs, gaps


def _of_all_codes(spec: Input) -> str:
    return spec.name if spec.codes is None else str(spec.column)


def _gap(spec: Input, name: str) -> Input:
    """1 where a patient has no value of `spec`, else 0."""
    rows = spec.model_dump(include={"table", "column", "where", "on_or_before"})
    return Input.model_validate({**rows, "name": name, "reduce": "missing", "centre": 0.5, "scale": 0.5})


def _tenth_above(share: float) -> float:
    """A round share with room above, so that it is no site's own."""
    return min(1.0, math.ceil(10 * share + 1) / 10)


def _build(probe: Study, profiles: Mapping[str, Profile]) -> tuple[pd.DataFrame, npt.NDArray[np.float64]]:
    """All sites' inputs in natural units, indexed by site, and the labels."""
    inputs, labels = {}, []
    for site in probe.sites:
        tables = typed_tables(profiles, site)
        inputs[site] = build_inputs(tables, probe).reset_index(drop=True)
        labels.append(build_labels(tables, probe).to_numpy(dtype=np.float64))
    return pd.concat(inputs).droplevel(1), np.concatenate(labels)


def _telling(
    inputs: list[Input], values: pd.DataFrame, labels: npt.NDArray[np.float64]
) -> dict[tuple[str, str | None, str], float]:
    """Source (table, column, rows) -> how well its values alone, or its gaps alone, rank patients: AUC, .5 to 1."""
    sources: dict[tuple[str, str | None, str], list[Input]] = {}
    for spec in inputs:
        sources.setdefault(_source(spec), []).append(spec)
    return {s: _alone(specs, values[[x.name for x in specs]], labels) for s, specs in sources.items()}


def _source(spec: Input) -> tuple[str, str | None, str]:
    return spec.table, spec.column, str(sorted(spec.where.items()))


def _alone(specs: list[Input], values: pd.DataFrame, labels: npt.NDArray[np.float64]) -> float:
    gaps = values.isna().any(axis=1).to_numpy()
    by_gaps = _ranks(gaps.astype(np.float64), labels)
    known, truth = values[~gaps], labels[~gaps]
    if min(truth.sum(), (1 - truth).sum()) < MIN_CELL:
        return by_gaps
    if specs[0].codes is None:
        return max(by_gaps, _ranks(known.iloc[:, 0].to_numpy(), truth))
    risks = pd.Series(truth, index=known.index).groupby(list(known.to_numpy().T)).transform("mean")
    return max(by_gaps, _ranks(risks.to_numpy(), truth))


def _ranks(scores: npt.NDArray[np.float64], labels: npt.NDArray[np.float64]) -> float:
    """How well scores rank patients, whichever way round."""
    found = auc(scores, labels)
    return 0.5 if found is None else max(found, 1 - found)


def _scaled(spec: Input, values: pd.Series) -> tuple[Input, bool]:
    """Codes and flags are centred on a half, for which no data are read; a measurement on round figures of its own.

    Centre and scale are those of the middle site, so that one site with another unit stands out instead of hiding.
    """
    filled = values.dropna()
    if spec.codes is not None or filled.isin([0, 1]).all():
        return spec, False
    skewed = bool((filled >= 0).all()) and _of_middle_site(filled, _skewness) > _SKEWED
    natural = np.log1p(filled) if skewed else filled
    spread = _of_middle_site(natural, np.std) or float(np.std(natural.to_numpy()))
    if spread == 0:
        return spec, False
    scale, centre = one_digit(spread), _of_middle_site(natural, np.mean)
    middle = two_digits(float(np.expm1(centre))) if skewed else to_place(centre, power_of_ten(scale))
    update = {"centre": plain(middle), "scale": plain(scale), "transform": "log1p" if skewed else "identity"}
    return spec.model_copy(update=update), True


def _of_middle_site(values: pd.Series, statistic: Callable[[npt.NDArray[np.float64]], Any]) -> float:
    """The median over sites of a statistic of each."""
    return float(np.median([statistic(own.to_numpy(dtype=np.float64)) for _, own in values.groupby(level=0)]))


def _skewness(values: npt.NDArray[np.float64]) -> float:
    """0 for what is symmetric, 2 for an exponential distribution; 0 for a constant."""
    spread = values.std()
    return float(np.mean(((values - values.mean()) / spread) ** 3)) if spread > 0 else 0.0


def _why_not(spec: Input, values: pd.Series, telling: float, meta: SuiteMeta) -> str | None:
    if values.nunique() < 2:
        return "the same for everybody"
    if telling >= NEARLY_PERFECT:
        return "tells the outcome nearly perfectly: is it known only afterwards?"
    if values.isna().groupby(level=0).mean().min() > _MOSTLY_EMPTY:
        return "empty for more than half of the patients of every site"
    return None if spec.codes is not None else _outside(spec, values, meta)


def _outside(spec: Input, values: pd.Series, meta: SuiteMeta) -> str | None:
    limits = InputReference.from_input(spec).suite_values(meta)
    if not values.dropna().between(limits["input.lowest"], limits["input.highest"]).all():
        return f"some values lie more than {meta.range_scales:g} scales from the centre: are they in one unit?"
    medians = values.groupby(level=0).median().dropna()
    if not medians.between(limits["input.lowest_median"], limits["input.highest_median"]).all():
        return f"a site's median lies more than {meta.shift_scales:g} scales from the centre: is it in the same unit?"
    return None


def _kind(spec: Input) -> str:
    """Of several inputs from one column, which one it is; its categories are those of enough patients."""
    return ", ".join(f"{column} is {value}" for column, value in spec.where.items())
