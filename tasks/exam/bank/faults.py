"""What is wrong with the files of an import, all of it at once: nobody should have to start again for each fault."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tasks.errors import DataError

#: A file of another kind may be wrong in every line.
MAX_FAULTS = 50
_MAX_PLACES = 10
_NOTHING = "nothing has been imported"


@dataclass
class Faults:
    """Collects faults; the same one in several lines is told once, with the lines."""

    _found: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)
    _errors: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self._found or self._errors)

    def add(self, path: Path | str, problem: str, remedy: str, place: str = "") -> None:
        """`place` is such as "line 4 (107004)"."""
        self._found.setdefault((str(path), problem, remedy), []).append(place)

    def add_error(self, error: DataError) -> None:
        """A fault that has a sentence of its own already."""
        self._errors.append(str(error).removesuffix(f"; {_NOTHING}"))

    def refuse(self) -> None:
        """Raise DataError with every fault, if there is one."""
        texts = [*self._errors, *(_sentence(*fault, places) for fault, places in self._found.items())]
        if not texts:
            return
        if len(texts) == 1:
            raise DataError(f"{texts[0]}; {_NOTHING}")
        more = [f"... and {len(texts) - MAX_FAULTS} more"] if len(texts) > MAX_FAULTS else []
        raise DataError("\n".join([f"{len(texts)} faults, and {_NOTHING}:", *texts[:MAX_FAULTS], *more]))


def _sentence(path: str, problem: str, remedy: str, places: list[str]) -> str:
    place = f" {places[0]}:" if places[0] else ""
    others = f" (and {first_few(places[1:])})" if len(places) > 1 else ""
    return f"{path}{place} {problem}{others}. {remedy}"


def first_few(names: Iterable[str]) -> str:
    """The first few, and how many there are."""
    named = list(names)
    more = f" ... {len(named)} in all" if len(named) > _MAX_PLACES else ""
    return ", ".join(named[:_MAX_PLACES]) + more
