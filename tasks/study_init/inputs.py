"""Candidates for model inputs, from the columns' names and types alone. `tasks.study_init.settle` judges them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pandas as pd

from tasks.study import LEAKING_COLUMNS, Input
from tasks.study_init.columns import TIME, Column, Profile
from tasks.study_init.label import Outcome
from tasks.study_init.subjects import Subjects

#: Share of a site's subjects that must have a row on or before a day for it to be taken as the baseline.
_HAVE_BASELINE = 0.8
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


def find_candidates(profiles: Mapping[str, Profile], subjects: Subjects, outcome: Outcome) -> Candidates:
    """Every column as one or more inputs, or left out with a reason."""
    found = Candidates()
    for profile in profiles.values():
        names = {subjects.column} | ({subjects.site_column} if profile.has_site_codes else set())
        names |= {outcome.column} if profile.name == outcome.table else set()
        columns = [column for column in profile.columns.values() if column.name not in names]
        if profile.key == (subjects.column,):
            _from_single_rows(found, profile, columns)
        else:
            _from_many_rows(found, profile, columns, subjects)
    return found


def _from_single_rows(found: Candidates, profile: Profile, columns: list[Column]) -> None:
    for column in columns:
        why = _no_input(column)
        if why is not None:
            found.leave_out(profile.name, column.name, why)
        elif column.is_numeric:
            found.add(profile.name, column.name, column=column.name)
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
    """Means over the rows that are known in time; one per category where the rows are of several kinds."""
    times = [c for c in columns if c.is_numeric and TIME.search(c.name)]
    dates = [c for c in columns if c.type in ("date", "partial_date")]
    time = times[0].name if times else None
    window = None if time is None else _baseline(profile, time, subjects)
    late = bool(times or dates) and window is None
    kinds = [c for c in columns if c.name in profile.key and c.type == "string"]
    for column in columns:
        why = _no_mean(column, times, kinds, late)
        if why is not None:
            found.leave_out(profile.name, column.name, why)
            continue
        rows = {"on_or_before": window} if window else {}
        for name, where in _kinds(column, kinds):
            found.add(profile.name, name, column=column.name, reduce="mean", **rows, **where)


def _no_mean(column: Column, times: list[Column], kinds: list[Column], late: bool) -> str | None:
    if column in times or column in kinds:
        return "says what a row is about"
    if not column.is_numeric:
        return _no_input(column) or "a category in each row: an input could be `where` it is one, with reduce: any"
    if LEAKING_COLUMNS.match(column.name) or column.looks_like_code:
        return _no_input(column)
    if late:
        return "rows may lie after the outcome: add on_or_before with a study day, then reduce: mean"
    return None


def _kinds(column: Column, kinds: list[Column]) -> Iterator[tuple[str, dict[str, object]]]:
    """Rows of several kinds (a test's code beside its value) are not averaged together."""
    if len(kinds) != 1 or not kinds[0].categories:
        yield column.name, {}
        return
    for value in kinds[0].categories:
        yield f"{value}_{column.name}", {"where": {kinds[0].name: value}}


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
