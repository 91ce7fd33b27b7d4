"""What the command was told of cells: `--missing`, `--below-limit`, `--above-limit`, `--decimal`, `--same`, `--keep`"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pandas as pd
from pydantic import ValidationError

from tasks.data.drafting.folder import Table
from tasks.data.drafting.questions import shell
from tasks.data.reading.cells import as_number, trim
from tasks.errors import ConfigError
from tasks.study.reading import AppliedRules, CellRules, ColumnRules, TableRules

#: A table and a column, as nobody writes a code or a value.
_PLACE = re.compile(r"[^\W\d]\w+\.\w[\w -]*")
#: One value of `--same`, in double quotes where it holds a sign that parts values.
_QUOTED, _BARE = r'\s*"[^"]+"\s*', r'\s*[^\s",][^,]*'
_VALUE, _OTHER = rf"{_QUOTED}|[^\s\",=][^,=]*", rf"{_QUOTED}|{_BARE}"
_SAME = re.compile(rf"(?P<value>{_VALUE})=(?P<others>(?:{_OTHER})(?:,(?:{_OTHER}))*)")
Rules = TypeVar("Rules", bound=CellRules)


@dataclass(frozen=True)
class ToldOptions:
    """The options as they were typed, each for one column (`TABLE.COLUMN=...`) or for all."""

    missing: tuple[str, ...] = ()
    below_limit: tuple[str, ...] = ()
    above_limit: tuple[str, ...] = ()
    decimal: tuple[str, ...] = ()
    same: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()


@dataclass(frozen=True)
class Told:
    """The answers by column: `every` is for all columns of numbers and dates, `same` for any that has the spellings."""

    every: CellRules = field(default_factory=CellRules)
    columns: Mapping[str, ColumnRules] = field(default_factory=dict)
    same: tuple[tuple[str, tuple[str, ...]], ...] = ()
    keep: frozenset[str] = frozenset()

    def of(self, table: str, column: str, cells: Iterable[str]) -> ColumnRules:
        """What was said of one column that holds these texts, with every `--same` that fits them."""
        own, found = self.columns.get(f"{table}.{column}", ColumnRules()), set(cells if self.same else ())
        fitting = {v: o for v, o in self.same if set(o) & found and len({v, *o} & found) > 1 and v not in own.same}
        return own.model_copy(update={"same": {**own.same, **fitting}}) if fitting else own

    def beside_every(self, table: str, column: str, rules: ColumnRules) -> AppliedRules:
        """The rules of a column of numbers or dates: its own and those of all such columns."""
        return TableRules(every=self.every, columns={column: rules}).of(column, is_text=False)


def sort_options(answers: ToldOptions, tables: Mapping[str, Table]) -> Told:
    """Sort the options by column.

    Raises:
        ConfigError: an option names no column, no rule, a cell that its column has not, or a number as a missing value
            of all columns.
    """
    every: dict[str, Any] = {}
    columns: dict[str, dict[str, Any]] = {}
    for place, code in _placed("--missing", answers.missing, tables):
        if place is None and as_number(code) is not None:
            raise ConfigError(f"--missing {code}: a number may be a value elsewhere: say --missing TABLE.COLUMN={code}")
        _add(every, columns, place).setdefault("missing", []).append(code)
    for key in ("below_limit", "above_limit", "decimal"):
        for place, rule in _placed(_option(key), getattr(answers, key), tables):
            _add(every, columns, place)[key] = rule
    same: dict[str, tuple[str, ...]] = {}
    for place, text in _placed("--same", answers.same, tables, sign=":"):
        value, others = _spellings(text)
        target = same if place is None else columns.setdefault(place, {}).setdefault("same", {})
        target[value] = (*target.get(value, ()), *others)
    keep = frozenset(_known("--keep", text, tables) for text in answers.keep)
    rules = {place: _valid(place, content, ColumnRules) for place, content in columns.items()}
    for place, own in rules.items():
        _refuse_unused(place, own, tables)
    return Told(_valid("", every, CellRules), rules, tuple(same.items()), keep)


def _refuse_unused(place: str, own: ColumnRules, tables: Mapping[str, Table]) -> None:
    """A code that no cell is, or a rule that no cell needs, is a slip of the pen."""
    table, _, column = place.partition(".")
    cells = {str(text) for text in trim(tables[table].rows[column]).dropna().unique()}
    values = {value for value, others in own.same.items() if cells.intersection(others)}
    unused = [
        *_unused(own, cells | values, f"{place}="),
        *(f"--same {place}:{v}={o}" for v, others in own.same.items() for o in others if o not in cells),
    ]
    if unused:
        raise ConfigError(f"{unused[0]}: no cell of {place} at any site is so: correct or leave out the option")


def _unused(rules: CellRules, cells: Collection[str], where: str = "") -> list[str]:
    """The options that none of these cells needs. `where` stands before an option's value."""
    numbers = {number for number in map(as_number, (c.replace(",", ".") for c in cells)) if number is not None}
    points = ",." if rules.decimal == "either" else ","
    needed = {
        "below_limit": any(cell[0] in "<≤" for cell in cells),
        "above_limit": any(cell[0] in ">≥" for cell in cells),
        "decimal": any(point in cell for cell in cells for point in points),
    }
    codes = [code for code in rules.missing if code not in cells and as_number(code) not in numbers]
    options = [("missing", code) for code in codes] + [(key, getattr(rules, key)) for key in needed if not needed[key]]
    return [f"{_option(key)} {shell(f'{where}{value}')}" for key, value in options if value]


@dataclass(frozen=True)
class Answered:
    """A column as it will be read: TABLE.COLUMN, its own rules, its cells, and whether they are words."""

    place: str
    own: ColumnRules
    cells: pd.Series
    is_text: bool


def unmatched(told: Told, columns: Iterable[Answered]) -> list[str]:
    """Notes on answers for all columns: those that no cell needs, and cells among words that they leave as they are."""
    cells: set[str] = set()
    same: set[str] = set()
    left = []
    for column in columns:
        counts = column.cells.value_counts()
        codes = {code for code in told.every.missing if code in counts.index}
        cells |= codes if column.is_text else set(counts.index)
        same |= set(column.own.same)
        if column.is_text and column.place not in told.keep:
            left += [_stays(column.place, code, counts[code]) for code in sorted(codes - set(column.own.missing))]
    spellings = [f"--same {shell(spelled(value, others))}" for value, others in told.same if value not in same]
    return [
        *(f"{option}: no cell is so" for option in _unused(told.every, cells)),
        *(f"{option}: no column has two of these" for option in spellings),
        *left,
    ]


def _stays(place: str, code: str, count: int) -> str:
    option = f"--missing {shell(f'{place}={code}')}"
    return f"{place}: {count} cells {code} among words stay a value; {option} makes them missing"


def _add(every: dict[str, Any], columns: dict[str, dict[str, Any]], place: str | None) -> dict[str, Any]:
    return every if place is None else columns.setdefault(place, {})


def _placed(
    option: str, texts: Iterable[str], tables: Mapping[str, Table], sign: str = "="
) -> Iterator[tuple[str | None, str]]:
    """Each option's column, None where it is for all, and the rest."""
    for text in texts:
        place, found, rest = text.partition(sign)
        if found and (place.partition(".")[0] in tables or _PLACE.fullmatch(place)):
            yield _known(option, place, tables), rest.strip()
        else:
            yield None, text.strip()


def _known(option: str, place: str, tables: Mapping[str, Table]) -> str:
    table, _, column = place.partition(".")
    if table not in tables:
        raise ConfigError(f"{option} {place}: write TABLE.COLUMN; tables: {', '.join(tables)}")
    if column not in tables[table].rows.columns:
        columns = ", ".join(tables[table].rows.columns)
        raise ConfigError(f"{option} {place}: {table} has no column {column}; it has: {columns}")
    return place


def _spellings(text: str) -> tuple[str, tuple[str, ...]]:
    match = _SAME.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"--same {text}: write VALUE=OTHER,OTHER or TABLE.COLUMN:VALUE=OTHER,OTHER; "
            'with a comma or equals sign in it, a value stands in double quotes: "a, b"'
        )
    others = (_unquoted(other[0]) for other in re.finditer(_OTHER, match["others"]))
    return _unquoted(match["value"]), tuple(others)


def _unquoted(text: str) -> str:
    return text.strip().removeprefix('"').removesuffix('"')


def spelled(value: str, others: Iterable[str]) -> str:
    """What `--same` is given for these, so that it is read as it was meant."""
    quoted = [f'"{text}"' if re.search("[,=]", text) else text for text in (value, *others)]
    return f"{quoted[0]}={','.join(quoted[1:])}"


def _valid(place: str, content: dict[str, Any], kind: type[Rules]) -> Rules:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
    option = _option(str(first["loc"][0]) if first["loc"] else "same")
    where = f" for {place}" if place else ""
    raise ConfigError(f"{option}{where}: {str(first['msg']).removeprefix('Value error, ')}")


def _option(key: str) -> str:
    return f"--{key.replace('_', '-')}"
