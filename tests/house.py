"""The house in figures: loose modules, import cycles between rooms, lines that ask what a room should know by itself.

`python -m tests.house` prints them; `python -m tests.house FOLDER` those of another checkout, to compare.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

#: Each room imports only rooms before it.
ROOMS = (
    "foreign",
    "study",
    "store",
    "learning",
    "report",
    "data",
    "exam",
    "privacy",
    "rounds",
    "simulation",
    "deploy",
)
#: The module that lies loose above all rooms.
DOOR = "cli"
#: The sections of a study's `privacy`: who asks for one of them by name asks which mechanism it is.
SECTIONS = frozenset(
    {
        "NoPrivacy",
        "PatientLevel",
        "NoiseShares",
        "LocalDP",
        "DistributedDP",
        "GaussianUpdate",
        "SparseVector",
    }
)
#: Where mechanisms and channels are at home; `study` has their sections.
PRIVACY_ROOMS = ("tasks/privacy/", "tasks/study/privacy.py", "tasks/study_privacy.py")
CHANNEL_ROOMS = ("tasks/rounds/channels/", "tasks/privacy/secure_sum/")

#: Names that several modules give a class on purpose: a channel is a module with these two sides.
SHARED_NAMES = frozenset({"Site", "Hub"})


class Import(NamedTuple):
    """A module imports another one in a line of a file; `late`: within a function, `typed`: for type checkers only."""

    path: str
    line: int
    source: str
    target: str
    late: bool
    typed: bool

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.source} imports {self.target}"


@dataclass(frozen=True)
class House:
    """The modules of `tasks`, as they lie below a folder."""

    root: Path

    @cached_property
    def files(self) -> list[Path]:
        """Every Python file of `tasks`."""
        return sorted((self.root / "tasks").rglob("*.py"))

    @cached_property
    def modules(self) -> dict[str, Path]:
        """Dotted name -> file; a package has the name of its folder."""
        names = {path: path.relative_to(self.root).with_suffix("").parts for path in self.files}
        return {".".join(parts[:-1] if parts[-1] == "__init__" else parts): path for path, parts in names.items()}

    @property
    def loose(self) -> list[str]:
        """The modules that lie in no room."""
        return [path.stem for path in self.files if path.parent == self.root / "tasks" and path.stem != "__init__"]

    def imports(self) -> tuple[Import, ...]:
        """Every import of one module by another, wherever it stands."""
        return self._all_imports

    @cached_property
    def _all_imports(self) -> tuple[Import, ...]:
        return tuple(self._read_imports())

    def _read_imports(self) -> Iterator[Import]:
        known = self.modules
        for name, path in known.items():
            for node, late, typed in _imports(_tree(path)):
                for target in sorted(_targets(node, known) - {name}):
                    yield Import(self.place(path), node.lineno, name, target, late, typed)

    @cached_property
    def _needs(self) -> Mapping[str, set[str]]:
        return graph_of((each.source, each.target) for each in self.imports() if not each.typed)

    def needed_by(self, *entries: str) -> set[str]:
        """The files of these modules and of all that they import, but for type checkers."""
        graph = self._needs
        found: set[str] = set()
        todo = list(entries)
        while todo:
            if (module := todo.pop()) not in found:
                found.add(module)
                todo += graph.get(module, ())
        return {self.place(self.modules[module]) for module in found}

    def place(self, path: Path) -> str:
        """A file as the project names it, with slashes."""
        return path.relative_to(self.root).as_posix()

    def between_rooms(self) -> list[Import]:
        """The imports from one room into another."""
        return [each for each in self.imports() if room_of(each.source) != room_of(each.target)]


def room_of(module: str) -> str:
    """The room of a module; one that lies loose is a room of its own."""
    return module.split(".")[1] if "." in module else module


def upward(imports: Iterable[Import]) -> list[Import]:
    """The imports of a room that comes later. What lies loose is before all rooms, but for the command's door."""
    place = {room: number for number, room in enumerate(ROOMS, 1)} | {DOOR: len(ROOMS) + 1}
    return [each for each in imports if place.get(room_of(each.target), 0) > place.get(room_of(each.source), 0)]


def cycles(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """The sets of nodes that reach each other (Tarjan 1972), those of one node left out."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            place = stack.index(node)
            group = set(stack[place:])
            del stack[place:]
            if len(group) > 1:
                found.append(group)

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def graph_of(pairs: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    """Node -> the nodes that it leads to."""
    found: dict[str, set[str]] = {}
    for source, target in pairs:
        found.setdefault(source, set()).add(target)
    return found


def asking_for_mechanism(house: House) -> list[str]:
    """`file:line` of what outside privacy's room asks which mechanism it is."""
    return _asking(house, PRIVACY_ROOMS, _asks_mechanism)


def asking_for_channel(house: House) -> list[str]:
    """`file:line` of what outside the channels' room asks how updates travel."""
    return _asking(house, CHANNEL_ROOMS, _asks_channel)


def doubles(house: House) -> dict[str, list[str]]:
    """Public classes, types and type variables whose name stands in several modules -> `file:line` of each."""
    found: dict[str, dict[Path, str]] = {}
    for path in house.files:
        for name, line in _types(_tree(path)):
            found.setdefault(name, {})[path] = f"{house.place(path)}:{line}"
    return {name: list(places.values()) for name, places in found.items() if len(places) > 1}


def functions(house: House) -> list[tuple[int, str]]:
    """Length and place of every function: its lines without its docstring."""
    found = []
    for path in house.files:
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if ast.get_docstring(node) is not None:
                    lines -= (node.body[0].end_lineno or 0) - node.body[0].lineno + 1
                found.append((lines, f"{path.relative_to(house.root)}:{node.lineno} {node.name}"))
    return sorted(found)


def table(house: House) -> str:
    """The figures, a line each."""
    sizes = sorted((len(path.read_text().splitlines()), str(path.relative_to(house.root))) for path in house.files)
    lengths = functions(house)
    rooms = house.between_rooms()
    knots = cycles(graph_of((room_of(each.source), room_of(each.target)) for each in rooms))
    modules = cycles(graph_of((each.source, each.target) for each in house.imports()))
    mechanism, channel = asking_for_mechanism(house), asking_for_channel(house)
    rows = (
        ("modules", len(house.files)),
        ("loose modules", len(house.loose)),
        ("import cycles between rooms", f"{len(knots)}, of {sum(map(len, knots))} rooms"),
        ("import cycles between modules", f"{len(modules)}, of {sum(map(len, modules))} modules"),
        ("imports from room to room", len(rooms)),
        ("lines outside privacy that ask for a mechanism", f"{len(mechanism)} in {_files(mechanism)} files"),
        ("lines outside the channels that ask for a channel", f"{len(channel)} in {_files(channel)} files"),
        ("names of more than one class or type", len(doubles(house))),
        ("modules over 300 lines", sum(size > 300 for size, _ in sizes)),
        ("largest module", f"{sizes[-1][0]} lines, {sizes[-1][1]}"),
        ("function: median", lengths[len(lengths) // 2][0]),
        ("function: 95 of 100", lengths[len(lengths) * 95 // 100][0]),
        ("function: longest", f"{lengths[-1][0]} lines, {lengths[-1][1]}"),
    )
    return "\n".join(f"{name:<52}{value}" for name, value in rows)


def _files(places: Iterable[str]) -> int:
    return len({place.partition(":")[0] for place in places})


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _imports(tree: ast.AST, late: bool = False, typed: bool = False) -> Iterator[tuple[ast.stmt, bool, bool]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, late, typed
        within = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        checked = typed or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        yield from _imports(node, within, checked)


def _targets(node: ast.stmt, known: Mapping[str, Path]) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names if alias.name in known}
    assert isinstance(node, ast.ImportFrom)
    if node.level or node.module is None or node.module.partition(".")[0] != "tasks":
        return set()
    full = {f"{node.module}.{alias.name}" for alias in node.names}
    return {name if name in known else node.module for name in full}


def _asking(house: House, at_home: tuple[str, ...], asks: Callable[[ast.AST], bool]) -> list[str]:
    found = set()
    for path in house.files:
        place = house.place(path)
        if not place.startswith(at_home):
            nodes = (node for node in ast.walk(_tree(path)) if asks(node))
            found |= {(place, _line(node)) for node in nodes}
    return [f"{place}:{line}" for place, line in sorted(found)]


def _line(node: ast.AST) -> int:
    line = getattr(node, "lineno", None) or getattr(getattr(node, "pattern", None), "lineno", None)
    assert isinstance(line, int)
    return line


def _types(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Names in CamelCase that a module gives, not those that it imports, and the line of each."""
    for node in tree.body:
        for target in getattr(node, "targets", [getattr(node, "target", node)]):
            name = getattr(target, "id", getattr(target, "name", ""))
            if name[:1].isupper() and (len(name) == 1 or not name.isupper()):
                yield name, node.lineno


def _asks_mechanism(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="isinstance"), args=[_, kinds]):
            return any(isinstance(each, ast.Name) and each.id in SECTIONS for each in ast.walk(kinds))
        case ast.match_case(pattern=pattern):
            classes = (each.cls for each in ast.walk(pattern) if isinstance(each, ast.MatchClass))
            return any(isinstance(each, ast.Name) and each.id in SECTIONS for each in classes)
        case ast.Compare():
            return _named(node, "mechanism") or _named(node, "WITHOUT_PRIVACY")
    return False


def _asks_channel(node: ast.AST) -> bool:
    return isinstance(node, ast.Compare) and (_named(node, "aggregation") or _named(node, "channel"))


def _named(node: ast.Compare, name: str) -> bool:
    """Whether a side of a comparison is called so, as a variable or an attribute, or is the name of what is."""
    sides = [node.left, *node.comparators]
    sides += [side.value for side in sides if isinstance(side, ast.Attribute) and side.attr == "name"]
    return any(getattr(side, "attr", getattr(side, "id", None)) == name for side in sides)


if __name__ == "__main__":
    print(table(House(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve())))
