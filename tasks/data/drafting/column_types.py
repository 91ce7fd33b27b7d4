"""Which type a column has, and what has to be asked before it can be known.

One stray code makes no text of a column of numbers: where most cells are numbers or dates, the rest is asked about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import pandas as pd

from tasks.data.checks.suite import ColumnType
from tasks.data.drafting import cell_kinds as kinds
from tasks.data.drafting.cell_kinds import CellKind, is_no_word, kind_of
from tasks.data.drafting.questions import ColumnQuestion, at_sites, shared, shell
from tasks.data.drafting.told import Told
from tasks.data.drafting.word_meanings import NO, YES, meanings, plain_text
from tasks.data.reading.cells import LIMIT, typed
from tasks.study.reading import AppliedRules, ColumnRules

_NUMBERS = frozenset({kinds.INTEGER, kinds.YEAR, kinds.NUMBER})
_DATES = frozenset({kinds.DATE, kinds.PARTIAL, kinds.YEAR})
#: More different texts than this are no categories, so a code among them is one text of many.
_FEW = 50


@dataclass(frozen=True)
class Source:
    """A column's trimmed cells over all sites, and whose each is."""

    table: str
    name: str
    cells: pd.Series
    site: pd.Series
    patients: pd.MultiIndex

    @property
    def place(self) -> str:
        return f"{self.table}.{self.name}"


@dataclass(frozen=True)
class ReadColumn:
    """A column as a round will read it. `own`: its rules in the study; `names`: digits that name something."""

    type: ColumnType
    own: ColumnRules
    values: pd.Series
    question: ColumnQuestion | None = None
    names: bool = False


def read_column(source: Source, told: Told, *, is_code: bool) -> ReadColumn:
    """Type and values of a column; a question where its cells could mean two things.

    Args:
        source: its cells.
        told: what the command was told.
        is_code: by its name it names something: with odd cells among its numbers it is a name, and no question.
    """
    own = told.of(source.table, source.name, source.cells.dropna().unique())
    rules = told.beside_every(source.table, source.name, own)
    counts = _kinds(source.cells, rules)
    names = _names_something(source.cells, counts, is_code=is_code)
    type_ = "string" if names else _main_type(counts)
    odd = {} if type_ == "string" else {kind: n for kind, n in counts.items() if not _fits(kind, type_, rules, counts)}
    if type_ != "string" and not odd:
        return _typed(source, type_, rules, own)
    asks = source.place not in told.keep
    if odd:
        question = _odd_cells(source, type_, odd, rules) if asks and not is_code else None
        return replace(_as_text(source, own), question=question, names=is_code)
    codes = set() if names or not asks else _codes_among_words(source.cells, own)
    known = tuple(sorted(codes & set(told.every.missing)))
    own = own.model_copy(update={"missing": (*own.missing, *known)}) if known else own
    question = _codes_of_words(source, codes - set(known)) if codes - set(known) else None
    return replace(_as_text(source, own), question=question, names=names)


def _typed(source: Source, type_: ColumnType, rules: AppliedRules, own: ColumnRules) -> ReadColumn:
    """The narrowest type that all values have: `<3` read as a half of it is no whole number."""
    values, bad = typed(source.cells, type_, rules)
    if bad and type_ in ("integer", "date"):
        return _typed(source, "number" if type_ == "integer" else "partial_date", rules, own)
    return ReadColumn(type_, own, values)


def _as_text(source: Source, own: ColumnRules) -> ReadColumn:
    return _typed(source, "string", AppliedRules(**own.model_dump()), own)


def _kinds(cells: pd.Series, rules: AppliedRules) -> Counter[CellKind]:
    """How many cells of each kind there are, without those that the rules read as missing."""
    texts = typed(cells, "string", rules.model_copy(update={"missing": ()}))[0].value_counts()
    number, _ = typed(pd.Series(texts.index, dtype=str), "number", rules.model_copy(update={"missing": ()}))
    known, _ = typed(pd.Series(texts.index, dtype=str), "number", rules)
    coded = {t for t, n, k in zip(texts.index, number, known, strict=True) if pd.notna(n) and pd.isna(k)}
    found: Counter[CellKind] = Counter()
    for text, count in texts.items():
        if text not in coded and text not in rules.missing:
            found[_kind(str(text), rules)] += int(count)
    return found


def _kind(text: str, rules: AppliedRules) -> CellKind:
    """The cell's kind; that of the number in a limit, where it may be a thousand."""
    kind = kind_of(text)
    limit = LIMIT.fullmatch(text) if rules.decimal and kind in (kinds.BELOW, kinds.ABOVE) else None
    inner = kind_of(limit["limit"]) if limit else kind
    thousands = (kinds.COMMA_3, kinds.POINT_3)
    return inner if inner in thousands and not _fits(inner, "number", rules, Counter()) else kind


def _main_type(counts: Counter[CellKind]) -> ColumnType:
    """What most cells are that are no codes for a missing value; of limits alone, `<18` and `>64`, are groups."""
    filled = counts.total() - counts[kinds.CODE]
    dates = counts[kinds.DATE] + counts[kinds.PARTIAL]
    if dates and 2 * (dates + counts[kinds.YEAR]) > filled:
        return "date" if dates == counts[kinds.DATE] and not counts[kinds.YEAR] else "partial_date"
    numbers = sum(counts[kind] for kind in kinds.NUMBERLIKE)
    if 2 * numbers > filled and numbers > sum(counts[kind] for kind in kinds.LIMITS):
        return "number" if counts[kinds.NUMBER] or counts[kinds.POINT_3] else "integer"
    return "string"


def _fits(kind: CellKind, type_: ColumnType, rules: AppliedRules, counts: Counter[CellKind]) -> bool:
    """Whether such cells are of the type, as the rules read them.

    A point before three digits may be that of thousands beside decimal commas, and where all others are whole numbers.
    """
    whole = counts[kinds.INTEGER] + counts[kinds.YEAR] if not counts[kinds.NUMBER] else 0
    if type_ in ("date", "partial_date"):
        return kind in _DATES
    read = {
        kinds.BELOW: rules.below_limit,
        kinds.BELOW_ZERO: rules.below_limit in ("limit", "missing"),
        kinds.ABOVE: rules.above_limit,
        kinds.COMMA: rules.decimal,
        kinds.COMMA_3: rules.decimal and rules.is_own_decimal,
        kinds.POINT_3: rules.decimal == "either" or not (rules.decimal or whole),
        kinds.ZERO_LED: type_ == "number",  # 098 beside 098.6
    }
    return kind in _NUMBERS or bool(read.get(kind))


def _names_something(cells: pd.Series, counts: Counter[CellKind], *, is_code: bool) -> bool:
    """Whether digits are a name: of more than 15 digits, or with leading zeros and all of one length."""
    if counts[kinds.LONG] and 2 * counts[kinds.LONG] >= counts.total():
        return True
    digits = counts[kinds.INTEGER] + counts[kinds.YEAR] + counts[kinds.ZERO_LED]
    if not counts[kinds.ZERO_LED] or 2 * digits <= counts.total():
        return False
    lengths = cells.dropna().str.len().unique()
    return is_code or counts[kinds.ZERO_LED] == digits or len(lengths) == 1


def _odd_cells(source: Source, type_: ColumnType, odd: dict[CellKind, int], rules: AppliedRules) -> ColumnQuestion:
    what = "numbers" if type_ in ("integer", "number") else "dates"
    flags_of_words = _words_of_flag(source, rules)
    classes, answers = [], []
    cells, _ = typed(source.cells, "string", AppliedRules(same=rules.same))
    of_kind = cells.map(lambda text: _kind(text, rules) if isinstance(text, str) else None)
    open_ = ~cells.isin(list(rules.missing))
    for kind, count in sorted(odd.items(), key=lambda pair: -pair[1]):
        mine = (of_kind == kind) & open_
        named, flags = _named(source, kind, mine, flags_of_words)
        sites = at_sites(source.site[mine], source.site.nunique()) if mine.any() else ""
        classes.append(f"{count} cells {kind.words}{named}{sites}")
        answers += flags
    said = f"most cells are {what}, the others are {' and '.join(classes)}"
    return ColumnQuestion(source.table, source.name, said, tuple(answers))


def _named(source: Source, kind: CellKind, mine: pd.Series, of_flag: Mapping[str, str]) -> tuple[str, list[str]]:
    """The texts of codes, which are those of a list, and those words that enough patients share; and the remedies."""
    cells = source.cells[mine]
    if kind is kinds.CODE:
        codes = sorted(cells.unique())[:5]
        return f" ({', '.join(codes)})", [of_flag.get(code, f"--missing {shell(code)}") for code in codes]
    if kind is kinds.WORD:
        words = list(shared(cells, source.patients[mine.to_numpy()]))[:3]
        if words:
            missing = {word: f"--missing {shell(f'{source.place}={word}')}" for word in words}
            return f" ({', '.join(words)})", [of_flag.get(word, missing[word]) for word in words]
    return "", [kind.remedy.format(place=shell(source.place))] if kind.remedy else []


def _words_of_flag(source: Source, rules: AppliedRules) -> dict[str, str]:
    """Word -> the option that makes it 1 or 0, where numbers are 0 and 1 and words say yes; of sexes, whichever."""
    numbers, _ = typed(source.cells, "number", rules)
    words = [str(text) for text in source.cells[numbers.isna()].dropna().unique()]
    if not numbers.dropna().isin([0, 1, 2]).all():
        return {}
    meaning = meanings(words)
    if set(meaning.values()) >= {"male", "female"}:
        number = dict.fromkeys(("male", "female"), "NUMBER")
    elif numbers.dropna().isin([0, 1]).all() and any(plain_text(word) in YES for word in words):
        number = {"yes": "1", "no": "0"}
        meaning = {w: "yes" if plain_text(w) in YES else "no" if plain_text(w) in NO else "" for w in words}
    else:
        return {}
    return {w: f"--same {shell(f'{source.place}:{number[m]}={w}')}" for w, m in meaning.items() if m in number}


def _codes_among_words(cells: pd.Series, own: ColumnRules) -> set[str]:
    """What stands for no value in a column of words, as long as it is one of few texts."""
    texts = set(typed(cells, "string", AppliedRules(**own.model_dump()))[0].dropna().unique())
    return {text for text in texts if is_no_word(text, texts)} if len(texts) <= _FEW else set()


def _codes_of_words(source: Source, codes: Iterable[str]) -> ColumnQuestion:
    found = sorted(codes)
    mine = source.cells.isin(found)
    what = f"{int(mine.sum())} cells {kinds.CODE.words} ({', '.join(found)}) among words"
    where = at_sites(source.site[mine], source.site.nunique())
    answers = tuple(f"--missing {shell(f'{source.place}={code}')}" for code in found)
    return ColumnQuestion(source.table, source.name, f"{what}{where}", answers)
