"""What the command was told of cells: `--missing`, `--below-limit`, `--above-limit`, `--decimal`, `--same`, `--keep`"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from tasks.data.cells import as_number
from tasks.errors import ConfigError
from tasks.study_init.folder import Table
from tasks.study_reading import CellRules, ColumnRules, TableRules

Rules = TypeVar("Rules", bound=CellRules)


@dataclass(frozen=True)
class Answers:
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

    def beside_every(self, table: str, column: str, rules: ColumnRules) -> ColumnRules:
        """The rules of a column of numbers or dates: its own and those of all such columns."""
        return TableRules(every=self.every, columns={column: rules}).of(column, is_text=False)


def read_answers(answers: Answers, tables: Mapping[str, Table]) -> Told:
    """Sort the options by column.

    Raises:
        ConfigError: an option names no column, no rule, or a number as a missing value of all columns.
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
    return Told(_valid("", every, CellRules), rules, tuple(same.items()), keep)


def _add(every: dict[str, Any], columns: dict[str, dict[str, Any]], place: str | None) -> dict[str, Any]:
    return every if place is None else columns.setdefault(place, {})


def _placed(
    option: str, texts: Iterable[str], tables: Mapping[str, Table], sign: str = "="
) -> Iterator[tuple[str | None, str]]:
    """Each option's column, None where it is for all, and the rest."""
    for text in texts:
        place, found, rest = text.partition(sign)
        if found and place.partition(".")[0] in tables:
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
    value, equals, others = text.partition("=")
    listed = tuple(other.strip() for other in others.split(",") if other.strip())
    if not (equals and value.strip() and listed):
        raise ConfigError(f"--same {text}: write VALUE=OTHER,OTHER or TABLE.COLUMN:VALUE=OTHER,OTHER")
    return value.strip(), listed


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
