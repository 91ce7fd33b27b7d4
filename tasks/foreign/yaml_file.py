"""Reads YAML that a person wrote: a mistake is told by its line, and a hostile file costs no more than a long one.

PyYAML walks a document by recursion, in C: nested deeply enough it ends the process instead of raising. And an alias
stands for all that its anchor holds, so that nine lines can stand for a billion values. Both are therefore counted in
the stream of events, before any node is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml.resolver import Resolver

from tasks.errors import ConfigError, PharmafedError
from tasks.foreign.files import MAX_TEXT_BYTES, read_ordinary

#: Lists and mappings within each other; a study needs six.
MAX_DEPTH = 40
#: Values in a document, those that aliases stand for included.
MAX_VALUES = 1_000_000
#: Characters of a number or date; base 60 of a long one would take minutes.
MAX_NUMBER = 64
_TEXT = "tag:yaml.org,2002:str"
_NULL = "tag:yaml.org,2002:null"
_RESOLVER: Any = Resolver()
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Document:
    """One document: `content` as plain values, `root` with the lines. Both are None for an empty file."""

    root: yaml.Node | None
    content: Any


class _Problem(Exception):
    """What is wrong, and on which 1-based line, where that is known."""

    def __init__(self, text: str, line: int | None) -> None:
        super().__init__(text)
        self.text, self.line = text, line


def read_yaml(path: Path, *, max_bytes: int = MAX_TEXT_BYTES, error: type[PharmafedError] = ConfigError) -> Document:
    """Read one YAML file.

    Raises:
        FileNotFoundError: there is none.
        PharmafedError: of type `error`, with the line: no ordinary file, too large, too deep, not YAML in UTF-8, or
            it says more by aliases or tags than a file for people needs.
    """
    return parse_yaml(path, read_ordinary(path, max_bytes, error), error=error)


def parse_yaml(path: Path, raw: bytes, *, error: type[PharmafedError] = ConfigError) -> Document:
    """The same of bytes that were read from `path`."""
    try:
        return _document(_decoded(raw))
    except _Problem as problem:
        place = f"{path}:{problem.line}" if problem.line else str(path)
        raise error(f"{place}: {problem.text}") from None


def as_written(document: Document) -> Any:
    """The document with every scalar as the text that stands there, `1:2`, `5.00` and `no` too; None where it is empty.

    Only a plain scalar that YAML reads as null is None. Keys are texts.
    """
    return None if document.root is None else _written(document.root)


def _written(node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return {key.value: _written(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_written(one) for one in node.value]
    return None if node.tag == _NULL else node.value


def line_of(node: yaml.Node, loc: tuple[Any, ...]) -> int:
    """The 1-based line of `loc`, or of its nearest parent that the document has."""
    line = int(node.start_mark.line) + 1
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if pair is None:
                break
            line, node = int(pair[0].start_mark.line) + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and str(part).isdigit() and int(part) < len(node.value):
            node = node.value[int(part)]
            line = int(node.start_mark.line) + 1
    return line


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
    raise _Problem("not readable as YAML: it is not UTF-8", line)


def _document(text: str) -> Document:
    try:
        _check_events(text)
        loader = _Loader(text)
        node = loader.get_single_node()
        return Document(node, loader.construct_document(node) if node is not None else None)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "broken"
        raise _Problem(f"not readable as YAML: {problem}", mark.line + 1 if mark else None) from None
    except ValueError:  # of int() or datetime()
        raise _Problem("not readable as YAML: a number or date that there cannot be: put it in quotes", None) from None


def _check_events(text: str) -> None:
    """Depth, tags, long numbers, and how many values each anchor stands for."""
    anchored: dict[str, int] = {}
    unfinished: list[tuple[str | None, int]] = []
    event: Any
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1
        if getattr(event, "tag", None) is not None:
            raise _Problem(f"a tag ({event.tag[:40]!r}) has no meaning here: leave it out", line)
        if isinstance(event, yaml.CollectionStartEvent):
            if len(unfinished) == MAX_DEPTH:
                raise _Problem(f"lists and mappings nested deeper than {MAX_DEPTH}", line)
            unfinished.append((event.anchor, 1))
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, values = unfinished.pop()
        elif isinstance(event, yaml.NodeEvent):
            anchor, values = _single(event, anchored, line)
        else:
            continue
        if anchor is not None:
            anchored[anchor] = values
        _add(unfinished, values, line)


def _single(event: yaml.NodeEvent, anchored: dict[str, int], line: int) -> tuple[str | None, int]:
    """The anchor of a scalar, or how many values an alias stands for."""
    if isinstance(event, yaml.ScalarEvent):
        long = len(event.value) > MAX_NUMBER and event.implicit[0]
        if long and _RESOLVER.resolve(yaml.ScalarNode, event.value, (True, False)) != _TEXT:
            raise _Problem(f"a number of {len(event.value):,} characters: put it in quotes if it is a text", line)
        return event.anchor, 1
    if event.anchor not in anchored:
        raise _Problem(f"*{event.anchor} stands for nothing before it, or for itself", line)
    return None, anchored[event.anchor]


def _add(unfinished: list[tuple[str | None, int]], values: int, line: int) -> None:
    """Count the values of a part in what it is a part of."""
    if not unfinished:
        return
    anchor, before = unfinished[-1]
    if before + values > MAX_VALUES:
        raise _Problem(f"more than {MAX_VALUES:,} values, with those that aliases stand for", line)
    unfinished[-1] = anchor, before + values
