"""Which of the project's modules a module needs, read from the source: what a stage of the pipeline depends on."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

from tasks.store.settings import PROJECT


def needed_by(*entries: str) -> set[str]:
    """Paths of the entry modules and of all that they import, at the top or inside a function."""
    found: set[str] = set()
    todo = [_path(entry) for entry in entries]
    while todo:
        path = todo.pop()
        if path is None or (name := path.relative_to(PROJECT).as_posix()) in found:
            continue
        found.add(name)
        todo += [_path(module) for module in _imports(ast.parse(path.read_text()))]
    return {name for name in found if not name.endswith("__init__.py")}


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in _outside_type_checking(ast.iter_child_nodes(tree)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "tasks":
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "tasks")


def _outside_type_checking(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    for node in nodes:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from _outside_type_checking(ast.iter_child_nodes(node))


def _path(module: str) -> Path | None:
    base = PROJECT.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)
