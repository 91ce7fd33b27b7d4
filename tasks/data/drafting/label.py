"""The outcome: which column tells it, and which of its values is the positive one."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from tasks.data.drafting.column_types import Source
from tasks.data.drafting.columns import Column, Profile
from tasks.data.drafting.questions import ColumnQuestion, require_answers, shell
from tasks.data.drafting.rounding import plain
from tasks.data.drafting.spellings import outcome_coded_otherwise
from tasks.data.drafting.subjects import MIN_CELL
from tasks.data.drafting.word_meanings import NO, YES, plain_text
from tasks.data.reading.rows import meets
from tasks.errors import ConfigError, DataError
from tasks.study.label import Condition

_OUTCOME = re.compile(r"(^|_)(label|outcome|target|event|endpoint|response|y)(_|$)", re.IGNORECASE)
_POSITIVE = YES | {"event", "case", "dead", "responder"}
_NEGATIVE = NO | {"none", "no event", "control", "alive"}
_SIGNS: dict[str, Literal["is", "at_least", "at_most"]] = {"=": "is", ">=": "at_least", "<=": "at_most"}
_WANTED = re.compile(r"(?P<column>[^=<>]+)(?P<sign>[<>]=?|=)(?P<value>.*)")


@dataclass(frozen=True)
class LabelRule:
    """`column` of `table` is `value`, or at least or at most so high, in a row of each positive subject.

    `why` says how it was chosen, and what counts as negative beside one other value.
    """

    table: str
    column: str
    value: str | int | float
    why: str
    comparison: Literal["is", "at_least", "at_most"] = "is"

    @property
    def condition(self) -> dict[str, Any]:
        """As the study file has it under `positive_when`."""
        return {"column": self.column, self.comparison: self.value}

    def __str__(self) -> str:
        return f"{self.table}.{self.column} {self.comparison.replace('_', ' ')} {self.value}"


def find_outcome(
    profiles: Mapping[str, Profile], subject: str, wanted: str | None = None, keep: Collection[str] = ()
) -> LabelRule:
    """Find the label, or read it from `TABLE.COLUMN[=VALUE]`, `TABLE.COLUMN>=VALUE` or `TABLE.COLUMN<=VALUE`.

    Args:
        keep: columns (TABLE.COLUMN) whose values are right although one site has others.

    Raises:
        ConfigError: no such table, column or value, no value that is plainly positive, or no or several candidates.
        DataError: the column is empty in places, a site codes it otherwise, or one of the two outcomes is missing or
            too rare.
    """
    comparison: Literal["is", "at_least", "at_most"] = "is"
    if wanted is None:
        table, column = _only_candidate(profiles, subject)
        why = "the only column that looks like an outcome; --label takes another"
        value = _positive_value(profiles[table], column)
    else:
        table, column, sign, text = _parse(profiles, wanted)
        why, comparison = "as --label says", _SIGNS[sign or "="]
        value = _given_value(profiles[table], column, sign, text) if sign else _positive_value(profiles[table], column)
    outcome = LabelRule(table, column, value, why, comparison)
    require_answers(_other_codes(profiles, subject, outcome, keep))
    _check_counts(profiles, subject, outcome)
    return replace(outcome, why=why + _also_negative(profiles[table], outcome))


def label_questions(
    profiles: Mapping[str, Profile], subject: str, wanted: str | None, keep: Collection[str] = ()
) -> list[ColumnQuestion]:
    """What `find_outcome` would ask of a label with its value, told while others are asked; nothing of a wrong one."""
    try:
        table, column, sign, text = _parse(profiles, wanted or "")
        if not sign:
            return []
        value = _given_value(profiles[table], column, sign, text)
    except ConfigError:
        return []
    return _other_codes(profiles, subject, LabelRule(table, column, value, "", _SIGNS[sign]), keep)


def _other_codes(
    profiles: Mapping[str, Profile], subject: str, outcome: LabelRule, keep: Collection[str]
) -> list[ColumnQuestion]:
    """About sites that may code the outcome otherwise."""
    profile, place = profiles[outcome.table], f"{outcome.table}.{outcome.column}"
    if place in keep:
        return []
    values = profile.rows[outcome.column]
    patients = pd.MultiIndex.from_arrays([profile.site, profile.rows[subject]])
    source = Source(profile.name, outcome.column, values, profile.site, patients)
    positive = pd.Series(meets(values, _condition(outcome)), index=values.index)
    question = outcome_coded_otherwise(source, values, positive, is_bound=outcome.comparison != "is")
    return [question] if question is not None else []


def _also_negative(profile: Profile, outcome: LabelRule) -> str:
    values = profile.rows[outcome.column]
    others = values[~meets(values, _condition(outcome))].nunique()
    empty = int(values.isna().sum())
    parts = [f"{others} other values"] if others > 1 and outcome.comparison == "is" else []
    parts += [f"{empty} empty cells"] if empty else []
    return f"; {' and '.join(parts)} count as negative" if parts else ""


def _condition(outcome: LabelRule) -> Condition:
    return Condition.model_validate(outcome.condition)


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


def _parse(profiles: Mapping[str, Profile], wanted: str) -> tuple[str, str, str, str]:
    """Table, column, sign (empty where none is given) and value."""
    table, dot, rest = wanted.partition(".")
    if not dot or table not in profiles:
        raise ConfigError(
            f"--label {wanted}: write TABLE.COLUMN, TABLE.COLUMN=VALUE or TABLE.COLUMN>=VALUE; "
            f"tables: {', '.join(profiles)}"
        )
    columns = profiles[table].columns
    if rest in columns:
        return table, rest, "", ""
    match = _WANTED.fullmatch(rest)
    name, sign, value = match.group("column", "sign", "value") if match else (rest, "", "")
    if name.strip() not in columns:
        raise ConfigError(f"--label {wanted}: {table} has no column {name.strip()}; it has: {', '.join(columns)}")
    if sign in ("<", ">"):
        raise ConfigError(f"--label {wanted}: write {sign}= and the last value that counts")
    return table, name.strip(), sign, value.strip()


def _given_value(profile: Profile, column: str, sign: str, text: str) -> str | int | float:
    if not profile.columns[column].is_numeric:
        if sign != "=":
            raise ConfigError(f"--label {profile.name}.{column}{sign}{text}: the column holds no numbers; write =VALUE")
        return text
    try:
        return plain(float(text))
    except (ValueError, OverflowError):
        raise ConfigError(f"--label {profile.name}.{column}{sign}{text}: the column holds numbers") from None


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
        remedy = "take another column"
        if values.nunique() > 2:
            remedy = "name the positive one: --label TABLE.COLUMN=VALUE"
            if profile.columns[column].is_numeric:
                remedy += f", or where they begin: --label {shell(f'{place}>=VALUE')}"
        raise DataError(f"label {place}: it has {many}, not two; {remedy}")
    yes = [value for value in values.unique() if _says(value, profile.columns[column], _POSITIVE)]
    no = [value for value in values.unique() if _says(value, profile.columns[column], _NEGATIVE)]
    if len(yes) != 1 or len(no) > 1:
        raise ConfigError(f"label {place}: which of its two values is positive? Say --label {shell(place)}=VALUE")
    return plain(yes[0]) if profile.columns[column].is_numeric else str(yes[0])


def _says(value: Any, column: Column, words: frozenset[str]) -> bool:
    return plain_text(str(plain(value) if column.is_numeric else value)) in words


def _check_counts(profiles: Mapping[str, Profile], subject: str, outcome: LabelRule) -> None:
    """Both outcomes must be those of enough patients: of fewer, nothing can be learnt and nothing may be told."""
    main, rows = next(iter(profiles.values())), profiles[outcome.table]
    hit = meets(rows.rows[outcome.column], _condition(outcome))
    positive = int(pd.MultiIndex.from_arrays([rows.site[hit], rows.rows[subject][hit]]).nunique())
    fewer = min(positive, len(main.rows) - positive)
    if fewer < MIN_CELL:
        which = "positive" if positive == fewer else "negative"
        place = f"{outcome.table}.{outcome.column}"
        raise DataError(f"label {place}: fewer than {MIN_CELL} patients are {which}: nothing to learn from")
