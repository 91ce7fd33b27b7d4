"""What only people can answer about a folder's cells: every question at once, each with the options that answer it.

A question names table, column, sites, counts and classes of cells. A cell itself is named only where at least
`MIN_CELL` patients share it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from tasks.data.drafting.subjects import MIN_CELL
from tasks.errors import DataError

_MOST = 40


@dataclass(frozen=True)
class ColumnQuestion:
    """`what` is odd about a column, and which options would settle it."""

    table: str
    column: str
    what: str
    answers: tuple[str, ...]

    @property
    def place(self) -> str:
        return f"{self.table}.{self.column}"

    def __str__(self) -> str:
        answers = [*self.answers, f"--keep {shell(self.place)}"]
        return f"{self.place}: {self.what}: {'; '.join(answers)}"


def require_answers(questions: Iterable[ColumnQuestion]) -> None:
    """Raise DataError with all of them, unless there are none."""
    asked = list(questions)
    if not asked:
        return
    lines = [f"  {question}" for question in asked[:_MOST]]
    more = [f"  and {len(asked) - _MOST} more"] * (len(asked) > _MOST)
    num = len({question.place for question in asked})
    columns = "1 column holds" if num == 1 else f"{num} columns hold"
    head = (
        f"{columns} cells that could mean two things: correct the export, or say what they are; --keep: as they stand"
    )
    raise DataError("\n".join([head, *lines, *more]))


def shell(text: str) -> str:
    """The text as an option's value is typed: in quotes where a shell would take it apart."""
    return shlex.quote(text)


def shared(values: pd.Series, patients: pd.MultiIndex) -> dict[str, int]:
    """Value -> how many patients have it, for those that at least `MIN_CELL` have; most frequent first."""
    once = pd.DataFrame({"value": values.to_numpy(), "patient": patients}).dropna(subset="value").drop_duplicates()
    counts = once["value"].value_counts()
    return {str(value): int(count) for value, count in counts.items() if count >= MIN_CELL}


def at_sites(site: pd.Series, all_sites: int) -> str:
    """Where it is: ` at s01, s02`, or nothing where it is everywhere."""
    names = sorted(site.unique())
    if len(names) == all_sites and all_sites > 1:
        return " at all sites"
    listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return f" at {listed}"
