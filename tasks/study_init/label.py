"""The outcome: which column tells it, and which of its values is the positive one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tasks.errors import ConfigError, DataError
from tasks.study_init.columns import Column, Profile
from tasks.study_init.rounding import plain
from tasks.study_init.subjects import MIN_CELL

_OUTCOME = re.compile(r"(^|_)(label|outcome|target|event|endpoint|response|y)(_|$)", re.IGNORECASE)
_POSITIVE = {"1", "y", "yes", "true", "t", "positive", "pos", "event", "case", "present", "dead", "responder"}
_NEGATIVE = {"0", "n", "no", "false", "f", "negative", "neg", "none", "no event", "control", "absent", "alive"}


@dataclass(frozen=True)
class Outcome:
    """`column` of `table` is `value` in a row of each positive subject; `why` says how it was chosen."""

    table: str
    column: str
    value: str | int | float
    why: str


def find_outcome(profiles: Mapping[str, Profile], subject: str, wanted: str | None = None) -> Outcome:
    """Find the label, or read it from `TABLE.COLUMN[=VALUE]`.

    Raises:
        ConfigError: no such table, column or value, no value that is plainly positive, or no or several candidates.
        DataError: the column is empty in places, or one of the two outcomes is missing or too rare.
    """
    if wanted is None:
        table, column = _only_candidate(profiles, subject)
        why = "the only column that looks like an outcome; --label takes another"
        value = _positive_value(profiles[table], column)
    else:
        table, column, text = _parse(profiles, wanted)
        why = "as --label says"
        given = text is not None
        value = _given_value(profiles[table], column, str(text)) if given else _positive_value(profiles[table], column)
    _check_counts(profiles, subject, table, column, value)
    return Outcome(table, column, value, why)


def _only_candidate(profiles: Mapping[str, Profile], subject: str) -> tuple[str, str]:
    main = next(iter(profiles.values()))
    named = [(p.name, c) for p in profiles.values() for c in p.columns if c != subject and _is_named(p, c)]
    last = str(main.rows.columns[-1])
    found = named or ([(main.name, last)] if main.columns[last].is_flag and main.rows[last].nunique() == 2 else [])
    if len(found) == 1:
        return found[0]
    names = ", ".join(f"{table}.{column}" for table, column in found)
    what = f"more than one column could be the label: {names}" if found else "no column is plainly the label"
    raise ConfigError(f"{what}; say which with --label TABLE.COLUMN or --label TABLE.COLUMN=VALUE")


def _is_named(profile: Profile, column: str) -> bool:
    return bool(_OUTCOME.search(column)) and profile.rows[column].nunique() == 2


def _parse(profiles: Mapping[str, Profile], wanted: str) -> tuple[str, str, str | None]:
    table, dot, rest = wanted.partition(".")
    if not dot or table not in profiles:
        raise ConfigError(f"--label {wanted}: write TABLE.COLUMN or TABLE.COLUMN=VALUE; tables: {', '.join(profiles)}")
    columns = profiles[table].columns
    name, equals, value = rest.partition("=")
    if rest in columns:
        return table, rest, None
    if name not in columns:
        raise ConfigError(f"--label {wanted}: {table} has no column {name}; it has: {', '.join(columns)}")
    return table, name, value if equals else None


def _given_value(profile: Profile, column: str, text: str) -> str | int | float:
    if not profile.columns[column].is_numeric:
        return text
    try:
        return plain(float(text))
    except ValueError:
        raise ConfigError(f"--label {profile.name}.{column}={text}: the column holds numbers") from None


def _positive_value(profile: Profile, column: str) -> str | int | float:
    """Of two values the one that says yes."""
    place, values = f"{profile.name}.{column}", profile.rows[column]
    if values.isna().any():
        raise DataError(
            f"label {place}: {int(values.isna().sum())} cells are empty, and would count as negative: leave those "
            "patients out, or name the positive value with --label TABLE.COLUMN=VALUE if that is meant"
        )
    if values.nunique() != 2:
        many = "the same value everywhere" if values.nunique() < 2 else f"{values.nunique()} different values"
        remedy = "take another column" if values.nunique() < 2 else "name the positive one: --label TABLE.COLUMN=VALUE"
        raise DataError(f"label {place}: it has {many}, not two; {remedy}")
    yes = [value for value in values.unique() if _says(value, profile.columns[column], _POSITIVE)]
    no = [value for value in values.unique() if _says(value, profile.columns[column], _NEGATIVE)]
    if len(yes) != 1 or len(no) > 1:
        raise ConfigError(f"label {place}: which of its two values is positive? Say --label {place}=VALUE")
    return plain(yes[0]) if profile.columns[column].is_numeric else str(yes[0])


def _says(value: Any, column: Column, words: set[str]) -> bool:
    return str(plain(value) if column.is_numeric else value).strip().lower() in words


def _check_counts(
    profiles: Mapping[str, Profile], subject: str, table: str, column: str, value: str | int | float
) -> None:
    """Both outcomes must be those of enough patients: of fewer, nothing can be learnt and nothing may be told."""
    main, rows = next(iter(profiles.values())), profiles[table]
    hit = (rows.rows[column] == value).fillna(False).to_numpy(dtype=bool)
    positive = int(pd.MultiIndex.from_arrays([rows.site[hit], rows.rows[subject][hit]]).nunique())
    fewer = min(positive, len(main.rows) - positive)
    if fewer < MIN_CELL:
        which = "positive" if positive == fewer else "negative"
        raise DataError(f"label {table}.{column}: fewer than {MIN_CELL} patients are {which}: nothing to learn from")
