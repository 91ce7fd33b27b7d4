"""Candidates for model inputs, from the columns' names and types alone. `tasks.data.drafting.settle` judges them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from tasks.data.drafting.columns import Column, Profile
from tasks.data.drafting.label import LabelRule
from tasks.data.drafting.measured import (
    LATE,
    NONE_IN_TIME,
    QuantityRows,
    is_result,
    kinds,
    measured,
    qualifiers,
    qualifies,
    rising,
    times,
)
from tasks.data.drafting.rounding import plain
from tasks.data.drafting.subjects import Subjects
from tasks.study.sections import LEAKING_COLUMNS, Input

#: Share of a site's subjects that must have a row on or before a day for it to be taken as the baseline.
_HAVE_BASELINE = 0.8
_ABOUT, _QUALIFIES = "says what a row is about", "says how a value was measured"
#: A name in a study file may have 64 characters; one is kept for a number.
_LONGEST = 60


@dataclass(frozen=True)
class LeftOut:
    """A column, or its rows `where` something is so, that is no input, and why; nothing of a patient."""

    table: str
    column: str
    why: str
    where: str = ""


@dataclass
class Candidates:
    """Inputs whose centre and scale are still open, and what was left out at first sight."""

    inputs: list[Input] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def add(self, table: str, name: str, **parts: object) -> None:
        taken = {spec.name for spec in self.inputs}
        content = {"name": free_name(name, taken), "table": table, "centre": 0.5, "scale": 0.5, **parts}
        self.inputs.append(Input.model_validate(content))

    def leave_out(self, table: str, column: str, why: str) -> None:
        self.left_out.append(LeftOut(table, column, why))


def find_candidates(profiles: Mapping[str, Profile], subjects: Subjects, outcome: LabelRule) -> Candidates:
    """Every column as one or more inputs, or left out with a reason."""
    found = Candidates()
    for profile in profiles.values():
        names = {subjects.column} | ({subjects.site_column} if profile.has_site_codes else set())
        names |= {outcome.column} if profile.name == outcome.table else set()
        columns = [column for column in profile.columns.values() if column.name not in names]
        if profile.key == (subjects.column,):
            _from_single_rows(found, profile, columns, subjects)
        else:
            _from_many_rows(found, profile, columns, subjects)
    return found


def _from_single_rows(found: Candidates, profile: Profile, columns: list[Column], subjects: Subjects) -> None:
    what = kinds(profile, columns, dated=True) if any(map(is_result, columns)) else []
    how = {c.name for c in qualifiers(columns) if any(qualifies(c, other, profile) for other in columns)}
    for column in columns:
        why = _no_input(column) if profile.rows[column.name].notna().any() else "no value"
        if why is None and column.name in how:
            why = _QUALIFIES
        if why is None and column in what:
            why = _ABOUT
        if why is not None:
            found.leave_out(profile.name, column.name, why)
        elif column.is_numeric:
            for rows in measured(profile, column, what if is_result(column) else [], None, subjects.column):
                _add_rows(found, profile.name, column, rows, None)
        else:
            _add_codes(found, profile.name, column)


def _no_input(column: Column) -> str | None:
    if LEAKING_COLUMNS.match(column.name):
        return "known only after the outcome"
    if column.type in ("date", "partial_date"):
        return "a date is no input; with a study day beside it, on_or_before picks rows by it"
    if column.looks_like_code:
        return "looks like an identifier or a code"
    if not column.is_numeric and not column.categories:
        return "free text, an identifier, or categories that too few patients share"
    return None


def _add_codes(found: Candidates, table: str, column: Column) -> None:
    """Two categories become one input; of more, each but the most frequent becomes one. Rare ones are among `other`."""
    first, *others = column.categories
    if not others:
        if not column.num_rare:
            return found.leave_out(table, column.name, "the same for everybody")
        others = [first]
    if len(others) == 1 and not column.num_rare:
        return found.add(table, f"{column.name}_{others[0]}", column=column.name, codes={first: 0.0, others[0]: 1.0})
    for value in others:
        found.add(table, f"{column.name}_{value}", column=column.name, codes={value: 1.0}, other=0.0)


def _from_many_rows(found: Candidates, profile: Profile, columns: list[Column], subjects: Subjects) -> None:
    """Means over the rows that are known in time, of one kind and quality each."""
    dated = [*times(columns), *rising(profile, columns, subjects.column)]
    dates = [c for c in columns if c.type in ("date", "partial_date")]
    window = _baseline(profile, dated[0].name, subjects) if dated else None
    late = bool(dated or dates) and window is None
    known = profile.rows[window[0]] <= window[1] if window else None
    what = kinds(profile, columns, dated=window is not None)
    about, how = [*dated, *what], qualifiers(columns)
    for column in columns:
        why = _QUALIFIES if column in how else _no_mean(column, about, late)
        if why is not None:
            found.leave_out(profile.name, column.name, why)
            continue
        for rows in measured(profile, column, what, known, subjects.column):
            _add_rows(found, profile.name, column, rows, window, reduce="mean")


def _add_rows(
    found: Candidates, table: str, column: Column, rows: QuantityRows, window: tuple[str, float] | None, **parts: object
) -> None:
    """One input of these rows, or why there is none."""
    if rows.why is not None:
        time = f" {window[0]} {window[1]:g}" if window and rows.why == NONE_IN_TIME else ""
        kind = ", ".join(f"{name} is {_text(value)}" for name, value in rows.where.items())
        return found.leave_out(table, column.name, f"{f'where {kind}: ' * bool(kind)}{rows.why}{time}")
    name = "_".join([*map(_text, rows.of), column.name, *map(_text, rows.split)])
    more = {"where": rows.where} if rows.where else {}
    found.add(table, name, column=column.name, **more, **({"on_or_before": window} if window else {}), **parts)


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else str(plain(value))


def _no_mean(column: Column, about: list[Column], late: bool) -> str | None:
    if column in about:
        return _ABOUT
    if not column.is_numeric:
        return _no_input(column) or "a category in each row: an input could be `where` it is one, with reduce: any"
    if LEAKING_COLUMNS.match(column.name) or column.looks_like_code:
        return _no_input(column)
    if late:
        return LATE
    return None


def _baseline(profile: Profile, time: str, subjects: Subjects) -> tuple[str, float] | None:
    """On or before 0, else 1, if most subjects of every site have a row there: those rows are known at the start."""
    for last in (0, 1):
        rows = profile.rows[time] <= last
        ids = profile.rows[subjects.column]
        shares = [ids[rows & (profile.site == site)].nunique() / count for site, count in subjects.patients.items()]
        if min(shares) >= _HAVE_BASELINE:
            return time, last
    return None


def free_name(text: str, taken: set[str]) -> str:
    """A name that a study file allows and that is not taken."""
    name = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:_LONGEST] or "input"
    name = name if name[0].isalpha() else f"x_{name}"
    return next(n for n in (name, *(f"{name}_{i}" for i in range(2, 1000))) if n not in taken)


def typed_tables(profiles: Mapping[str, Profile], site: str) -> dict[str, pd.DataFrame]:
    """The site's tables as a round reads them."""
    return {name: profile.of_site(site) for name, profile in profiles.items()}
