"""Which rows of a table hold one quantity: of one test, in one unit, of one specimen, method and position.

A value means something only with the columns that qualify it. Rows are told apart by the names that columns have in
CDISC, OMOP and hospital exports, and an input reads, by `where`, the rows of one kind alone: two are never averaged.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

import pandas as pd

from tasks.data.drafting.columns import MAX_CATEGORIES, Column, Profile
from tasks.data.drafting.names import CODE, has_a_word_of_time, is_named_like_a_test, is_named_like_a_time, words
from tasks.data.drafting.rounding import plain
from tasks.data.drafting.subjects import MIN_CELL

#: More kinds of rows in one table are not drafted.
MAX_KINDS = 1000
_NUMBER_CODE = re.compile(r"_?(cd|code|id|concept_id)$")
_CODED_TEST = re.compile(
    r"^((clinical_)?labs?_|vital_)?(test|param|parameter|analyte|item|component|measure|measurement|marker|biomarker|"
    r"question|variable|vital_sign)$"
)
_UNIT = re.compile(rf"^(?P<stem>.*?)_?(units?|uom){CODE}?$|^(?P<result>[a-z]{{2}}(orres|stres|dos)|aval)u$")
#: A unit in which patients lie.
_WARD = re.compile(r"care|ward|nurs|icu|hospital|clinic|admi|org")
_QUALIFIER = re.compile(
    rf"^((?P<stem>.*)_)?(specimen|specimen_type|sample_type|method|position|posture|laterality|fasting|stat|statistic){CODE}?$"
    r"|^[a-z]{2}(spec|method|pos|loc|lat|dir|fast|stat)$"
)
#: A result that was not obtained: nothing that a value may be of.
_STATUS = re.compile(r"stat$")
_RESULT = re.compile(r"(^|_)(value|valuenum|value_as_number|result|amount|level|aval)$|^[a-z]{2}(orres|stresn)$")
#: The study day first; the day on which something ended or was planned after it; a visit's number last.
_TIME_ORDER = (r"(?<!visit)(?<!visit_)(?<!end_)(?<!en)(day|dy)(_|$)", r"day|dy", r"week", r"month")
#: A visit by its name alone, and the names of those at the start.
_VISIT = re.compile(r"(^|_)(a?visit|timepoint|epoch|event)(_name)?$")
_START = re.compile(r"screen|baseline|^pre|random|enrol|inclusion|admission|^(day|visit|v) ?[01]$|^(week|month|t) ?0$")
LATE = "rows may lie after the outcome: add on_or_before with a study day, then reduce: mean"
NONE_IN_TIME = "no row on or before"
#: Of a patient's steps from one time to the next, the share that a number must take upwards to be a time itself.
_RISES = 0.9
Where = dict[str, str | float]


@dataclass(frozen=True)
class QuantityRows:
    """Rows that hold one quantity: `of` a kind, apart from others by `split`; or `why` they are no input."""

    where: Where
    of: tuple[str | float, ...] = ()
    split: tuple[str | float, ...] = ()
    why: str | None = None


def has_many_rows(profile: Profile) -> bool:
    """Whether a patient may have several."""
    return len(profile.key) != 1


def is_result(column: Column) -> bool:
    """Whether a number's name leaves open what was measured: another column says it."""
    return column.is_numeric and bool(_RESULT.search(words(column.name)))


def times(columns: list[Column]) -> list[Column]:
    """Numbers that by their names say when a row was measured, the best first."""
    found = [c for c in columns if c.is_numeric and is_named_like_a_time(c.name)]
    return sorted(found, key=lambda c: [not re.search(pattern, words(c.name)) for pattern in _TIME_ORDER])


def rising(profile: Profile, columns: list[Column], subject: str) -> list[Column]:
    """Numbers that may be a time by their names, such as `gestation_week` and `drinks_day`, and rise like one.

    They rise with the time of the row; where no column tells it, from row to row of a patient and kind.
    """
    named = [c for c in columns if c.is_numeric and has_a_word_of_time(c.name) and not is_named_like_a_time(c.name)]
    time = [c.name for c in [*times(columns), *(c for c in columns if c.type == "date")]][:1]
    apart = [
        profile.site,
        *(profile.rows[c] for c in [subject, *(k.name for k in kinds(profile, columns, dated=True))]),
    ]
    return [c for c in named if _rises(profile.rows, c.name, time, apart)]


def _rises(rows: pd.DataFrame, column: str, time: list[str], apart: list[pd.Series]) -> bool:
    rows = rows[[column, *time]].dropna()
    rows = rows.sort_values(time, kind="stable") if time else rows
    apart = [group[rows.index] for group in apart]
    steps = rows[column].groupby(apart).diff()
    for name in time:
        steps = steps[rows[name] != rows[name].groupby(apart).shift()]
    steps = steps.dropna()
    return bool(len(steps) and (steps > 0).mean() >= _RISES)


def qualifiers(columns: list[Column]) -> list[Column]:
    """Columns that say how a value was measured: texts, codes, and few whole numbers beside what they are of."""
    return [c for c in columns if _is_qualifier(c) or _is_coded_qualifier(c, columns)]


def kinds(profile: Profile, columns: list[Column], *, dated: bool) -> list[Column]:
    """Columns that say what a row measures: named as a test's, or else texts of the key.

    Of two that say the same, such as a test's code and its name, one is enough. `dated`: rows are picked by their time,
    so that a visit's name says nothing more.
    """
    named = [c for c in columns if _is_test(c) or _is_coded_test(c, columns)]
    in_key = [c for c in columns if c.name in profile.key and c.categories and not _is_qualifier(c) and c not in named]
    if named and dated:
        in_key = [c for c in in_key if not is_named_like_a_time(c.name)]
    found: list[Column] = []
    for column in sorted(named, key=lambda c: not re.search(f"{CODE}$", words(c.name))) + in_key:
        if not found or not _follows(profile.rows, column.name, [c.name for c in found]):
            found.append(column)
    return found


def measured(
    profile: Profile, column: Column, kinds: list[Column], known: pd.Series | None, subject: str
) -> Iterator[QuantityRows]:
    """The rows of each kind that have a value in `column`, and those of too few patients not at all.

    Args:
        profile: the table.
        column: a number.
        kinds: what tells rows apart.
        known: for each row whether it is known in time; None where no column tells the time.
        subject: the column that names the patient.
    """
    rows = profile.rows.assign(**{"\0patient": profile.site + "\0" + profile.rows[subject].astype(str)})
    qualifying = [c for c in qualifiers(list(profile.columns.values())) if qualifies(c, column, profile)]
    found = _of_kinds(rows, [c.name for c in kinds])
    if len(found) > MAX_KINDS:
        yield QuantityRows({}, why=f"rows of more than {MAX_KINDS} kinds: write an input `where` they are of one")
        return
    for values, of_kind in found:
        where = dict(zip((c.name for c in kinds), values, strict=True))
        own = of_kind[of_kind[column.name].notna()]
        if own.empty:
            yield QuantityRows(where, why="no value")
        elif known is None and any(_is_late(c, where[c.name]) for c in kinds):
            yield QuantityRows(where, why=LATE)
        elif known is not None and not known[own.index].any():
            yield QuantityRows(where, why=NONE_IN_TIME)
        else:
            in_time = own if known is None else own[known[own.index]]
            yield from _of_one_quality(in_time, QuantityRows(where, values), qualifying)


def _of_kinds(rows: pd.DataFrame, kinds: list[str]) -> list[tuple[tuple[str | float, ...], pd.DataFrame]]:
    """The rows of each kind that enough patients have, by its values; the most frequent first."""
    if not kinds:
        return [((), rows)]
    patients = rows.groupby(kinds)["\0patient"].transform("nunique")
    common = rows[patients >= MIN_CELL]
    found = [(cast("tuple[str | float, ...]", values), own) for values, own in common.groupby(kinds)]
    return sorted(found, key=lambda kind: (-patients[kind[1].index[0]], kind[0]))


def _is_test(column: Column) -> bool:
    name = words(column.name)
    named = is_named_like_a_test(column.name) and not _is_qualifier(column)
    return named and (column.type == "string" or (column.is_whole and bool(_NUMBER_CODE.search(name))))


def _is_coded_test(column: Column, columns: list[Column]) -> bool:
    """`test` is 1 for haemoglobin and 2 for glucose, beside a `value`."""
    few = column.is_whole and 1 < column.num_values <= MAX_KINDS
    return few and bool(_CODED_TEST.search(words(column.name))) and any(is_result(c) for c in columns if c != column)


def _is_qualifier(column: Column) -> bool:
    text = column.type == "string" or bool(_NUMBER_CODE.search(words(column.name)))
    return text and _is_named_like_a_qualifier(column)


def _is_named_like_a_qualifier(column: Column) -> bool:
    return _is_unit(column) or bool(_QUALIFIER.search(words(column.name)))


def _is_coded_qualifier(column: Column, columns: list[Column]) -> bool:
    """`unit` is 1 for mmol/L and 2 for mg/dL, beside a number that it is of; `insulin_units` alone are an amount."""
    if not (column.is_whole and 0 < column.num_values <= MAX_CATEGORIES and _is_named_like_a_qualifier(column)):
        return False
    others = [c for c in columns if c.is_numeric and not _is_named_like_a_qualifier(c)]
    others = [c for c in others if not (is_named_like_a_time(c.name) or c.looks_like_code)]
    stem = _stem(words(column.name))
    return any(not stem or words(c.name).startswith(stem) for c in others)


def _is_unit(column: Column) -> bool:
    name = words(column.name)
    return bool(_UNIT.search(name)) and not _WARD.search(name)


def qualifies(qualifier: Column, column: Column, profile: Profile) -> bool:
    """`weight_unit` is about weight, LBORRESU about LBORRES; `unit` about all, one row a patient about `value`."""
    others = [c for c in profile.columns.values() if c.name != qualifier.name and not _is_qualifier(c)]
    others = [c for c in others if not _is_named_like_a_qualifier(c) or not c.is_numeric]
    stem = _stem(words(qualifier.name))
    if stem and any(words(c.name).startswith(stem) for c in others):
        return words(column.name).startswith(stem)
    return has_many_rows(profile) or is_result(column)


def _stem(name: str) -> str:
    found = _UNIT.search(name) or _QUALIFIER.search(name)
    parts = found.groupdict() if found else {}
    return parts.get("stem") or parts.get("result") or ""


def _of_one_quality(rows: pd.DataFrame, found: QuantityRows, qualifying: list[Column]) -> Iterator[QuantityRows]:
    """Rows of one kind, apart by each column that qualifies them; in several units they are no input."""
    if not qualifying:
        yield found
        return
    first, *others = qualifying
    values = rows[first.name].astype(object)
    spelt = values.map({value: _plain(value) for value in values.dropna().unique()}).where(values.notna(), "")
    counts = rows["\0patient"].groupby(spelt).nunique()
    common = sorted(counts[counts >= MIN_CELL].index, key=lambda value: (-counts[value], value))
    alone = len(counts) == 1
    why = None if alone else _why_not(first, common)
    if why is not None:
        yield replace(found, why=why)
        return
    if len(common) < len(counts) and not alone:
        rare = f"values of another {first.name}, each of fewer than {MIN_CELL} patients, are not read"
        yield replace(found, why=rare)
    for value in counts.index if alone else common:
        own = rows[spelt == value]
        spellings = own[first.name].unique()
        exact = {first.name: spellings[0]} if value and len(spellings) == 1 and value in common else {}
        if not alone and not exact:
            yield replace(found, why=f"values without {first.name}, or with one spelt in several ways, are not read")
            continue
        split = (*found.split, spellings[0]) if len(common) > 1 else found.split
        yield from _of_one_quality(own, replace(found, where=found.where | exact, split=split), others)


def _why_not(qualifier: Column, common: list[str]) -> str | None:
    if _STATUS.search(words(qualifier.name)):
        return f"{qualifier.name} says of some values that they were not obtained: empty those cells"
    if _is_unit(qualifier) and len(common) > 1:
        units = " and ".join(value or "none" for value in common)
        return f"in {len(common)} units ({qualifier.name}: {units}): convert them to one"
    return None if common else f"too few patients have a value of one {qualifier.name}"


def _plain(value: object) -> str:
    """Spellings of one unit: `mg/dL` and `MG/DL`, and the two characters for micro; a code without `.0`."""
    value = plain(value) if isinstance(value, float) else value
    return "".join(unicodedata.normalize("NFKC", str(value)).casefold().split())


def _is_late(kind: Column, value: str | float) -> bool:
    """Whether a visit, of which nothing but the name is known, is not plainly at the start."""
    return bool(_VISIT.search(words(kind.name))) and not _START.search(words(str(value)).replace("_", " "))


def _follows(rows: pd.DataFrame, column: str, from_: list[str]) -> bool:
    return bool((rows.groupby(from_, dropna=False)[column].nunique(dropna=False) <= 1).all())
