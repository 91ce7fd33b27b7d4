"""A bar on stderr for work that takes a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


@dataclass(frozen=True)
class Bar:
    """A bar that is shown; called with the units done and the units there are."""

    _progress: Progress
    _task: TaskID

    def __call__(self, done: int, total: int) -> None:
        """Move it."""
        self._progress.update(self._task, completed=done, total=total)

    def note(self, text: str) -> None:
        """A line above it, which stays."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def bar(name: str, console: Console | None = None) -> Iterator[Bar]:
    """Shows `name`, how much is done of how much, and what time is left; gone when the work is done.

    Args:
        console: where; stderr unless given.

    Yields:
        the bar, which the work calls.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console or Console(stderr=True), transient=True) as progress:
        yield Bar(progress, progress.add_task(name, total=None))
