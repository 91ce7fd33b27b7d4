"""Reading study files: a file that says anything it cannot mean is refused with the line, the key and the remedy."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tasks.errors import ConfigError
from tasks.foreign.files import listed
from tasks.foreign.yaml_file import line_of, read_yaml
from tasks.study.channels import OLD_KEY
from tasks.study.codec import CODEC_SECTIONS
from tasks.study.label import LABEL_SECTIONS, Condition
from tasks.study.privacy import PRIVACY_SECTIONS
from tasks.study.sections import Input, Study
from tasks.study.strategy import STRATEGY_SECTIONS

#: What pydantic puts into a place to say which branch of a union it tried.
_UNION_TAGS = (
    *PRIVACY_SECTIONS,
    *LABEL_SECTIONS,
    *STRATEGY_SECTIONS,
    "full",
    "constrained-int",
    "literal['full']",
    "literal['tensor']",
)


def load_study(path: Path, *, columns: dict[str, set[str]] | None = None) -> Study:
    """Read one study file.

    Args:
        path: the YAML file; its stem must be the study's name.
        columns: table -> its columns. Where given, a column that no table has is refused.

    Raises:
        ConfigError: with the line, the key and what would be allowed.
    """
    try:
        study, root = _parse(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        known = ", ".join(path.stem for path in listed(path.parent, "*.yaml")) or "none"
        raise ConfigError(f"no study file {path}; studies in {path.parent}: {known}") from None
    if columns is not None:
        _check_columns(path, root, study, columns)
    return study


def load_studies(folder: Path, *, columns: dict[str, set[str]] | None = None) -> dict[str, Study]:
    """Read every `*.yaml` in `folder`, by name."""
    return {path.stem: load_study(path, columns=columns) for path in listed(folder, "*.yaml")}


def readable_studies(folder: Path) -> tuple[dict[str, Study], dict[str, str]]:
    """The studies of `folder` by name, and what is wrong with each file that is none."""
    studies, problems = {}, {}
    for path in listed(folder, "*.yaml"):
        try:
            studies[path.stem] = load_study(path)
        except ConfigError as error:
            problems[path.stem] = str(error)
    return studies, problems


@cache
def _parse(path: Path, _mtime_ns: int) -> tuple[Study, yaml.Node]:
    """Kept as long as the file stays as it is: Airflow parses a DAG file before every task."""
    root, content = _read(path)
    try:
        study = Study.model_validate(content)
    except ValidationError as error:
        raise ConfigError(_explain(path, root, error)) from None
    if study.study != path.stem:
        line = line_of(root, ("study",))
        raise ConfigError(f"{path}:{line}: study is {study.study!r}, but the file is named {path.name}")
    return study, root


def _read(path: Path) -> tuple[yaml.Node, Any]:
    """The file's node tree, which knows the lines, and its content."""
    document = read_yaml(path)
    if not isinstance(document.root, yaml.MappingNode):
        raise ConfigError(f"{path}: a study is a mapping of keys; this file holds none")
    return document.root, document.content


def _explain(path: Path, root: yaml.Node, error: ValidationError) -> str:
    lines = []
    problems = error.errors()
    for problem in problems:
        if problem["type"] == "too_short" and any(p["loc"][:-1] == problem["loc"] for p in problems):
            continue  # its one item was wrong, which is told already
        loc = _as_spelled(root, _without_tags(problem["loc"]) or _named_place(problem["msg"]))
        lines.append(f"{path}:{_line(root, loc)}: {'.'.join(map(str, loc)) or 'study'}: {_reason(problem)}")
    return "\n".join(dict.fromkeys(lines))


def _without_tags(loc: tuple[Any, ...]) -> tuple[Any, ...]:
    """The keys of a place alone; a codec's name may be a key elsewhere."""
    if loc[:1] == ("codec",) and loc[1:2] and loc[1] in CODEC_SECTIONS:
        loc = (loc[0], *loc[2:])
    return tuple(part for part in loc if part not in _UNION_TAGS)


def _as_spelled(root: yaml.Node, loc: tuple[Any, ...]) -> tuple[Any, ...]:
    """Where the file has what is wrong: a codec may stand where mechanisms do (`tasks.study.codec`)."""
    if loc[:1] != ("codec",) or any(key.value == "codec" for key, _ in root.value):
        return loc
    return ("privacy", *("mechanism" if part == "name" else part for part in loc[1:]))


def _line(root: yaml.Node, loc: tuple[Any, ...]) -> int:
    """Where a key stands, or its old name."""
    named = {key.value for key, _ in root.value}
    return line_of(root, (OLD_KEY,) if loc == ("channel",) and OLD_KEY in named else loc)


def _named_place(message: str) -> tuple[str, ...]:
    """A rule across keys names the key at fault first: "rounds.min_sites is 14, but ..."."""
    return tuple(message.removeprefix("Value error, ").split()[0].rstrip(":").split("."))


def _reason(problem: Any) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        if problem["loc"] == (OLD_KEY,):
            return f"is what channel was called once, and channel stands here too: leave {OLD_KEY} out"
        allowed = _allowed_keys(problem["loc"][:-1])
        return f"unknown key; allowed: {', '.join(allowed)}" if allowed else "unknown key"
    return message


def _allowed_keys(loc: tuple[Any, ...]) -> list[str]:
    model: Any = Study
    conditions = dict.fromkeys(("positive_when", "counted_when", "event_when"), Condition)
    nested = {
        "inputs": Input,
        **conditions,
        **PRIVACY_SECTIONS,
        **LABEL_SECTIONS,
        **STRATEGY_SECTIONS,
        **CODEC_SECTIONS,
    }
    for part in loc:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part) if model else None
        model = nested.get(part) or (field.annotation if field and hasattr(field.annotation, "model_fields") else None)
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _check_columns(path: Path, root: yaml.Node, study: Study, columns: dict[str, set[str]]) -> None:
    for table in study.data.tables:
        if table not in columns:
            place = f"{path}:{line_of(root, ('data', 'tables'))}"
            raise ConfigError(
                f"{place}: data.tables: no suite for table {table}; there is one for: {', '.join(sorted(columns))}"
            )
    for loc, table, column in _columns_read(study):
        if column not in columns[table]:
            allowed = ", ".join(sorted(columns[table]))
            raise ConfigError(f"{path}:{line_of(root, loc)}: table {table} has no column {column}; it has: {allowed}")


def _columns_read(study: Study) -> list[tuple[tuple[Any, ...], str, str]]:
    read: list[tuple[tuple[Any, ...], str, str]] = []
    for key in study.data.reading.columns:
        table, _, column = key.partition(".")
        read.append((("data", "reading", "columns", key), table, column))
    read += study.label.columns()
    for i, spec in enumerate(study.inputs):
        if spec.column is not None:
            read.append((("inputs", i, "column"), spec.table, spec.column))
        read += [(("inputs", i, "where", name), spec.table, name) for name in spec.where]
        if spec.on_or_before is not None:
            read.append((("inputs", i, "on_or_before"), spec.table, spec.on_or_before[0]))
    return read
