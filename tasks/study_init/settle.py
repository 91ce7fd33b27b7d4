"""Judges candidate inputs on what a site would build from them, and gives those that stay a centre and a scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.evaluation import auc
from tasks.features import build_inputs, build_labels
from tasks.study import Input, Study
from tasks.study_init.columns import Profile
from tasks.study_init.inputs import Candidates, LeftOut, typed_tables
from tasks.study_init.rounding import one_digit, plain, power_of_ten, to_place, two_digits
from tasks.study_init.subjects import MIN_CELL
from tasks.validation.parameters import InputReference
from tasks.validation.suites import SuiteMeta

#: A single column that ranks patients this well (AUC) is the outcome under another name.
NEARLY_PERFECT = 0.98
#: The suite `inputs` wants this share of every site's patients to have a value.
_FILLED = 0.8
#: From this skewness on (an exponential distribution has 2) a quantity is taken on a log scale.
_SKEWED = 1.2


@dataclass(frozen=True)
class Settled:
    """The study's inputs; `drafted` names those whose centre and scale were taken from the data."""

    inputs: tuple[Input, ...]
    drafted: frozenset[str]
    left_out: tuple[LeftOut, ...]


def settle(candidates: Candidates, probe: Study, profiles: Mapping[str, Profile], meta: SuiteMeta) -> Settled:
    """Keep what does not give the outcome away and passes the suite `inputs` at every site.

    Args:
        candidates: what could be an input.
        probe: a study of all candidates, with any centre and scale.
        profiles: every table.
        meta: that of the suite `inputs`: how many scales from the centre a value and a site's median may lie.
    """
    values, labels = _build(probe, profiles)
    kept, drafted, left_out = [], set(), list(candidates.left_out)
    telling = _telling(candidates.inputs, values, labels)
    for spec in candidates.inputs:
        settled, measured = _scaled(spec, values[spec.name])
        why = _why_not(settled, values[spec.name], telling, meta)
        if why is not None:
            left_out.append(LeftOut(spec.table, str(spec.column), _of_kind(spec, why)))
            continue
        kept.append(settled)
        drafted |= {spec.name} if measured else set()
    unique = tuple(dict.fromkeys(left_out))
    return Settled(tuple(kept), frozenset(drafted), unique)


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
) -> set[tuple[str, str | None, str]]:
    """The sources (table, column, rows) whose values alone, or whose gaps alone, tell the outcome."""
    sources: dict[tuple[str, str | None, str], list[Input]] = {}
    for spec in inputs:
        sources.setdefault(_source(spec), []).append(spec)
    return {s for s, specs in sources.items() if _tells(specs, values[[x.name for x in specs]], labels)}


def _source(spec: Input) -> tuple[str, str | None, str]:
    return spec.table, spec.column, str(sorted(spec.where.items()))


def _tells(specs: list[Input], values: pd.DataFrame, labels: npt.NDArray[np.float64]) -> bool:
    gaps = values.isna().any(axis=1).to_numpy()
    if _ranks(gaps.astype(np.float64), labels):
        return True
    known, truth = values[~gaps], labels[~gaps]
    if min(truth.sum(), (1 - truth).sum()) < MIN_CELL:
        return False
    if specs[0].codes is None:
        return _ranks(known.iloc[:, 0].to_numpy(), truth)
    categories = list(known.to_numpy().T)
    return _ranks(pd.Series(truth, index=known.index).groupby(categories).transform("mean").to_numpy(), truth)


def _ranks(scores: npt.NDArray[np.float64], labels: npt.NDArray[np.float64]) -> bool:
    found = auc(scores, labels)
    return found is not None and max(found, 1 - found) >= NEARLY_PERFECT


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


def _why_not(spec: Input, values: pd.Series, telling: set[tuple[str, str | None, str]], meta: SuiteMeta) -> str | None:
    if values.nunique() < 2:
        return "the same for everybody"
    if _source(spec) in telling:
        return "tells the outcome nearly perfectly: is it known only afterwards?"
    if values.notna().groupby(level=0).mean().min() < _FILLED:
        return "empty for more than 20 per cent of the patients of a site"
    return None if spec.codes is not None else _outside(spec, values, meta)


def _outside(spec: Input, values: pd.Series, meta: SuiteMeta) -> str | None:
    limits = InputReference.from_input(spec).suite_values(meta)
    if not values.dropna().between(limits["input.lowest"], limits["input.highest"]).all():
        return f"some values lie more than {meta.range_scales:g} scales from the centre: are they in one unit?"
    medians = values.groupby(level=0).median()
    if not medians.between(limits["input.lowest_median"], limits["input.highest_median"]).all():
        return f"a site's median lies more than {meta.shift_scales:g} scales from the centre: is it in the same unit?"
    return None


def _of_kind(spec: Input, why: str) -> str:
    """Of several inputs from one column, which one it is about; its categories are those of enough patients."""
    kind = ", ".join(f"{column} is {value}" for column, value in spec.where.items())
    return f"where {kind}: {why}" if kind else why
