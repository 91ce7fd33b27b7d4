"""Values that are spelled otherwise at one site: Y, Yes and y; M and male; and a site whose values no other has.

Looked at site by site: what one site writes otherwise would there be another category, or another outcome, and no
expectation would fail.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping

import pandas as pd

from tasks.study_init.column_types import Source
from tasks.study_init.questions import Question, at_sites, shared, shell
from tasks.study_init.subjects import MIN_CELL

_SAME = "--same {place}:VALUE=OTHER,OTHER"
#: More different values than this are no codes: of ages, a small site may well have none that another has.
_MOST_CODES = 12
#: More different texts than this are no categories, unless the column's name says that they are those of tests.
_MOST_VALUES, _MOST_TESTS = 20, 1000
_TESTS = re.compile(r"test|param|analyte|assay|item", re.IGNORECASE)
#: Words for the same, in small letters; they count only where a column holds no others.
_WORDS = {
    "yes": "y,yes,t,true,1,1.0,+,pos,positive,present,ja,j,oui,si,sí,sim,s,はい,有,あり,陽性",
    "no": "n,no,f,false,0,0.0,-,neg,negative,absent,nein,non,não,nao,いいえ,無,なし,陰性",
    "unknown": "u,unk,unknown,不明",
}
_SEXES = {
    "male": "m,male,man,boy,mann,männlich,masculin,masculino,h,homme,男,男性",
    "female": "f,female,woman,girl,w,weiblich,frau,femme,femenino,女,女性",
    "unknown": "u,unk,unknown,不明",
}


def spelled_twice(source: Source, values: pd.Series) -> Question | None:
    """A question about values of a text column that are equal up to case, blanks, width or words for yes and no."""
    texts = [str(text) for text in values.dropna().unique()]
    if not 1 < len(texts) <= _MOST_TESTS:
        return None
    groups = _groups(texts)
    if len(groups) > _MOST_VALUES and not _TESTS.search(source.name):
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
        f"--same {shell(f'{source.place}:{first}=' + ','.join(others))}"
        for first, *others in known
        if told.keys() >= {first, *others}
    ]
    return Question(source.table, source.name, what, tuple(answers) or (_SAME.format(place=source.place),))


def coded_otherwise(source: Source, values: pd.Series, positive: object = None) -> Question | None:
    """A question about sites that share no value of a coded column with most others, beside a label's `positive` one.

    A column with one value a site, such as the country, says the same of all its patients, and one that no two sites
    share, such as the ward, is no common code; neither is asked about. Of a label one negative value is enough.
    """
    sets = {site: set(own.dropna().unique()) - {positive} for site, own in values.groupby(source.site)}
    fewest = 2 if positive is None else 1
    sets = {site: own for site, own in sets.items() if len(own) >= fewest}
    if len(sets) < 2 or len(set().union(*sets.values())) > _MOST_CODES:
        return None
    groups = _sharing(sets)
    if positive is None and len(groups) == len(sets) and {len(own) for own in sets.values()} != {2}:
        return None
    alone = [site for group in groups[1:] for site in group] or (_other_pair(sets) if positive is None else [])
    if not alone:
        return None
    mine = source.site.isin(alone)
    what = "values" if positive is None else "negative values"
    where = at_sites(source.site[mine], source.site.nunique())
    said = f"its {what}{where} are none that most other sites have"
    return Question(source.table, source.name, said, (_SAME.format(place=source.place),))


def _sharing(sets: Mapping[str, set[object]]) -> list[list[str]]:
    """Groups of sites that share values, directly or by way of others; the largest first."""
    groups: list[tuple[list[str], set[object]]] = []
    for site, own in sets.items():
        sharing = [group for group in groups if group[1] & own]
        groups = [group for group in groups if not group[1] & own]
        groups.append(
            ([*(s for sites, _ in sharing for s in sites), site], own.union(*(known for _, known in sharing)))
        )
    return sorted((sites for sites, _ in groups), key=len, reverse=True)


def _other_pair(sets: Mapping[str, set[object]]) -> list[str]:
    """Sites with two numbers where most have two others: 1 and 2 for 0 and 1."""
    if max(map(len, sets.values())) > 2 or any(isinstance(value, str) for own in sets.values() for value in own):
        return []
    pairs = Counter(frozenset(own) for own in sets.values() if len(own) == 2)
    usual = pairs.most_common(1)[0][0] if pairs else frozenset()
    return [site for site, own in sets.items() if len(own) == 2 and own != usual]


def _groups(texts: Iterable[str]) -> list[list[str]]:
    """Texts of one meaning together."""
    listed = list(texts)
    plain = {text: _plain(text) for text in listed}
    for words in (_WORDS, _SEXES):
        meaning = {word: name for name, spelled in words.items() for word in spelled.split(",")}
        if all(key in meaning for key in plain.values()):
            plain = {text: meaning[key] for text, key in plain.items()}
    groups: dict[str, list[str]] = {}
    for text in listed:
        groups.setdefault(plain[text], []).append(text)
    return list(groups.values())


def _plain(text: str) -> str:
    """Without case, width, accents and double blanks; hyphen and underscore are blanks between letters."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"(?<=\w)[\s_\-]+(?=\w)", " ", folded).strip().rstrip(".")


def _listed(group: list[str], told: dict[str, int]) -> str:
    named = [text for text in group if text in told]
    rare = len(group) - len(named)
    more = [f"{rare} that fewer than {MIN_CELL} patients have"] * bool(rare)
    return " = ".join([*named, *more])
