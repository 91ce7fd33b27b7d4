"""Values that are spelled otherwise at one site: Y, Yes and y; M and male; and a site whose values no other has.

Looked at site by site: what one site writes otherwise would there be another category, or another outcome, and no
expectation would fail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import pandas as pd

from tasks.data.drafting.column_types import Source
from tasks.data.drafting.names import is_named_like_a_test
from tasks.data.drafting.questions import ColumnQuestion, at_sites, shared, shell
from tasks.data.drafting.subjects import MIN_CELL
from tasks.data.drafting.told import spelled
from tasks.data.drafting.word_meanings import meanings

#: More different values than this are no codes: of ages, a small site may well have none that another has.
_MOST_CODES = 12
#: More different texts than this are no categories, unless the column's name says that they are those of tests.
_MOST_VALUES, _MOST_TESTS = 20, 1000
_OUTCOME = "are not those of most other sites: say what they mean, or patients have the wrong outcome"


def spelled_twice(source: Source, values: pd.Series) -> ColumnQuestion | None:
    """A question about values of a text column that are equal up to case, blanks, width or words for yes and no."""
    texts = [str(text) for text in values.dropna().unique()]
    if not 1 < len(texts) <= _MOST_TESTS:
        return None
    groups = _groups(texts)
    if len(groups) > _MOST_VALUES and not is_named_like_a_test(source.name):
        return None
    twice = [group for group in groups if len(group) > 1]
    if not twice:
        return None
    counts = values.value_counts()
    told = shared(values, source.patients)
    known = [sorted(group, key=lambda text: (-counts[text], text)) for group in twice]
    rarer = values.isin([text for first, *others in known for text in others])
    listed = "; ".join(_listed(group, told) for group in known[:5])
    where = at_sites(source.site[rarer], source.site.nunique())
    what = f"{len(twice)} values are spelled in several ways ({listed}){where}"
    answers = [
        f"--same {shell(f'{source.place}:{spelled(first, others)}')}"
        for first, *others in known
        if told.keys() >= {first, *others}
    ]
    return ColumnQuestion(source.table, source.name, what, tuple(answers) or (_same(source),))


def coded_otherwise(source: Source, values: pd.Series) -> ColumnQuestion | None:
    """A question about sites whose values of a coded column are mostly none that other sites have.

    Spellings of one value count as that value. A column with one value a site, such as the country, says the same of
    all its patients, and one of which no two sites share most values, such as the ward, is no common code; neither is
    asked about. Of tests, one that a single site lacks beside one that it alone has is enough.
    """
    every = _of_sites(source, _meant(values))
    sets = {site: own for site, own in every.items() if len(own) >= 2}
    is_test = is_named_like_a_test(source.name)
    if len(sets) < 2 or len(set().union(*sets.values())) > (_MOST_TESTS if is_test else _MOST_CODES):
        return None
    groups = _alike(sets)
    own_codes = len(groups) == len(sets) and {len(own) for own in sets.values()} != {2}
    alone = [] if own_codes else [site for group in groups[1:] for site in group]
    alone = alone or (_renamed(every) if is_test else [])
    return _others_than_most(source, alone, "are none that most other sites have")


def outcome_coded_otherwise(
    source: Source, values: pd.Series, positive: pd.Series, *, is_bound: bool
) -> ColumnQuestion | None:
    """A question about sites that may mean another outcome by their values than the label says.

    All patients of a site may have one outcome. But one that has a value that at most half of the sites have, and
    lacks one that most have, may use it instead; the positive value counts as one that most have.

    Args:
        source: the label's column.
        values: its typed values.
        positive: for each row whether it meets the label.
        is_bound: whether the label is a bound, so that other values are no other codes.
    """
    meant = _meant(values)
    sets = _of_sites(source, meant)
    counts = Counter(value for own in sets.values() for value in own)
    told = set() if is_bound else set(meant[positive].unique())
    usual = {value for value, n in counts.items() if 2 * n > len(sets)} | told
    if is_bound:
        few = len(counts) <= _MOST_CODES
        alone = [s for s, own in sets.items() if few and own - usual and positive[source.site == s].nunique() == 1]
    else:
        missed = usual if len(counts) <= _MOST_CODES else told
        alone = [s for s, own in sets.items() if not own or (own - usual and missed - own)]
    return _others_than_most(source, alone, _OUTCOME)


def _meant(values: pd.Series) -> pd.Series:
    """The values, one for all spellings of it."""
    texts = [text for text in values.dropna().unique() if isinstance(text, str)]
    first = {text: group[0] for group in _groups(texts) for text in group}
    return values.map(first) if first else values


def _of_sites(source: Source, values: pd.Series) -> dict[str, set[object]]:
    return {str(site): set(own.dropna().unique()) for site, own in values.groupby(source.site)}


def _renamed(sets: Mapping[str, set[object]]) -> list[str]:
    """Sites that alone lack a value and alone have another, with three sites or more."""
    counts = Counter(value for own in sets.values() for value in own)
    missed = {value for value, n in counts.items() if n == len(sets) - 1}
    alone = {value for value, n in counts.items() if n == 1}
    return [site for site, own in sets.items() if len(sets) > 2 and missed - own and alone & own]


def _others_than_most(source: Source, sites: list[str], what: str) -> ColumnQuestion | None:
    if not sites:
        return None
    where = at_sites(source.site[source.site.isin(sites)], source.site.nunique())
    return ColumnQuestion(source.table, source.name, f"its values{where} {what}", (_same(source),))


def _alike(sets: Mapping[str, set[object]]) -> list[list[str]]:
    """Groups of sites that share more than half of their values, directly or by way of others; the largest first."""
    groups: list[list[str]] = []
    for site, own in sets.items():
        like = [group for group in groups if any(_share(sets[other], own) for other in group)]
        groups = [group for group in groups if group not in like] + [[*(s for group in like for s in group), site]]
    return sorted(groups, key=len, reverse=True)


def _share(one: set[object], other: set[object]) -> bool:
    return 2 * len(one & other) > min(len(one), len(other))


def _same(source: Source) -> str:
    return f"--same {shell(f'{source.place}:VALUE=OTHER,OTHER')}"


def _groups(texts: Iterable[str]) -> list[list[str]]:
    """Texts of one meaning together."""
    groups: dict[str, list[str]] = {}
    for text, meaning in meanings(texts).items():
        groups.setdefault(meaning, []).append(text)
    return list(groups.values())


def _listed(group: list[str], told: dict[str, int]) -> str:
    named = [text for text in group if text in told]
    rare = len(group) - len(named)
    more = [f"{rare} that fewer than {MIN_CELL} patients have"] * bool(rare)
    return " = ".join([*named, *more])
