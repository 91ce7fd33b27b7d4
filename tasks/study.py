"""A study is one YAML file: data, label, inputs, model, training, privacy, rounds.

`load_study` refuses a file that says anything it cannot mean, with the line, the key and what would be allowed.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from tasks.errors import ConfigError

#: Columns that say how treatment went or ended. As an input they would leak the outcome.
LEAKING_COLUMNS = re.compile(
    r"^(TRTDURD?|AVGDD|CUMDOSE|TRTEDT|VISNUMEN|RFEND.*|COMP\d*FL|EFFFL|DISCONFL|DSRAEFL|DTHFL|DC.*|EOSSTT|CNSR|EVNTDESC)$"
)


def _not_leaking(column: str) -> str:
    if LEAKING_COLUMNS.match(column):
        raise ValueError(f"{column} is known only after the outcome, so no input may read it")
    return column


#: What pydantic puts into a place to say which branch of a union it tried.
_UNION_TAGS = ("none", "local_dp", "full", "constrained-int", "literal['full']")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
SiteName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=32)]
Cell = str | int | float
InputColumn = Annotated[str, AfterValidator(_not_leaking)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Data(_Section):
    """Which tables each site has, and the suites that guard them."""

    root: str = "data/sites"
    suites: str = "expectations"
    tables: tuple[Identifier, ...] = Field(min_length=1)
    subject: str = "USUBJID"
    pin: str | None = "data.dvc"


class Condition(_Section):
    """One comparison on a row. All conditions of a label must hold in the same row."""

    column: str
    is_: Cell | None = Field(default=None, alias="is")
    is_not: Cell | None = None
    at_most: float | None = None
    at_least: float | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Condition:
        if len(self.model_fields_set - {"column"}) != 1:
            raise ValueError("give exactly one of: is, is_not, at_most, at_least")
        return self


class Label(_Section):
    """A subject is positive if any of its rows in `table` meets every condition."""

    name: Identifier
    table: Identifier
    positive_when: tuple[Condition, ...] = Field(min_length=1)


class Input(_Section):
    """One model input, built from the rows that `where` and `on_or_before` leave, then scaled by public constants.

    value = clip((transform(x) - centre') / scale, -clip, clip) * gain, with centre' = transform(centre);
    a subject without rows gets the centre.
    """

    name: Identifier
    table: Identifier
    column: InputColumn | None = None
    where: dict[InputColumn, Cell] = Field(default_factory=dict)
    on_or_before: tuple[InputColumn, float] | None = None
    reduce: Literal["only", "last", "mean", "any", "count", "count_distinct"] = "only"
    codes: dict[str, float] | None = None
    other: float | None = None
    transform: Literal["identity", "log1p"] = "identity"
    centre: float
    scale: float = Field(gt=0)
    clip: float = Field(default=4.0, gt=0)
    gain: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _column_needed(self) -> Input:
        if self.column is None and self.reduce not in ("any", "count"):
            raise ValueError(f"reduce: {self.reduce} needs a column")
        return self


class Model(_Section):
    """A `torch.nn.Module` by import path; it is called as `path(num_inputs, **options)`."""

    path: str = Field(pattern=r"^[\w.]+:\w+$")
    options: dict[str, Any] = Field(default_factory=dict)


class Training(_Section):
    """What a site does between two global models."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = Field(gt=0, le=10)
    batch_size: Annotated[int, Field(gt=0)] | Literal["full"] = "full"
    local_epochs: int | None = Field(default=None, gt=0)
    local_iterations: int | None = Field(default=None, gt=0)
    l2: float = Field(default=0.0, ge=0)
    optimizer_state: Literal["restart", "keep"] = "restart"
    weighting: Literal["iterations", "samples", "plain"] = "iterations"
    average_iterates: Literal["none", "second_half"] = "none"
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one_length(self) -> Training:
        if (self.local_epochs is None) == (self.local_iterations is None):
            raise ValueError("give exactly one of: local_epochs, local_iterations")
        return self


class NoPrivacy(_Section):
    """Raw updates leave the site. Only for public data, and only when the study owns up to it."""

    mechanism: Literal["none"]
    i_accept_no_privacy: Literal[True]


class LocalDP(_Section):
    """Patient-level differential privacy of each update by itself (see `tasks.privacy.local_dp`)."""

    mechanism: Literal["local_dp"]
    epsilon: float = Field(gt=0, le=100, description="total over `rounds.total` rounds")
    delta: float = Field(gt=0, lt=0.1)
    clip_norm: float = Field(gt=0)
    public_num_examples: int = Field(
        gt=0, description="N: the divisor of the summed gradients, a public planning figure"
    )


Privacy = Annotated[NoPrivacy | LocalDP, Field(discriminator="mechanism")]


class Rounds(_Section):
    """How many rounds the budget pays for, and when a round is complete."""

    total: int = Field(gt=0, le=10_000)
    min_sites: int = Field(gt=0)
    deadline_seconds: float = Field(gt=0)
    strict: bool = False
    max_update_norm: float = Field(default=1000.0, gt=0)


class Evaluation(_Section):
    """Which patients are held out at each site, and the smallest cell that may leave it."""

    holdout_fraction: float = Field(gt=0, lt=1)
    split_seed: int = Field(default=0, ge=0)
    min_cell: int = Field(default=5, ge=2)
    data_are_public: bool = Field(default=False, description="the hub may pool held-out patients for reference lines")


class Study(_Section):
    """One federated study, as its YAML file has it."""

    study: Identifier
    title: str
    description: str
    owner: str
    closed: bool = False
    data: Data
    sites: dict[SiteName, tuple[str, ...]] = Field(min_length=1)
    label: Label
    inputs: tuple[Input, ...] = Field(min_length=1)
    model: Model
    training: Training
    privacy: Privacy
    rounds: Rounds
    evaluation: Evaluation

    @property
    def digest(self) -> str:
        """sha256 of the canonical study: two files that mean the same have the same digest."""
        canonical = json.dumps(self.model_dump(mode="json", by_alias=True), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def input_names(self) -> list[str]:
        return [spec.name for spec in self.inputs]

    @model_validator(mode="after")
    def _parts_fit(self) -> Study:
        self._check_rounds()
        self._check_tables()
        if isinstance(self.privacy, LocalDP):
            _check_private_training(self.training)
        return self

    def _check_rounds(self) -> None:
        if self.rounds.min_sites > len(self.sites):
            raise ValueError(f"rounds.min_sites is {self.rounds.min_sites}, but the study has {len(self.sites)} sites")
        members = [member for group in self.sites.values() for member in group]
        if len(members) != len(set(members)):
            raise ValueError("sites hold one SITEID twice")

    def _check_tables(self) -> None:
        names = [spec.name for spec in self.inputs]
        if len(names) != len(set(names)):
            raise ValueError("inputs use a name twice")
        places = [("label.table", self.label.table)]
        places += [(f"inputs.{i}.table", spec.table) for i, spec in enumerate(self.inputs)]
        for place, table in places:
            if table not in self.data.tables:
                raise ValueError(f"{place} is {table}, which is not among data.tables: {', '.join(self.data.tables)}")


def _check_private_training(training: Training) -> None:
    """Patient-level DP here is one clipped full-batch gradient step: anything else would be accounted wrongly."""
    wanted = {"optimizer": "sgd", "batch_size": "full", "local_iterations": 1}
    for key, value in wanted.items():
        if getattr(training, key) != value:
            raise ValueError(f"training.{key} must be {value} with privacy.mechanism local_dp")
    if training.weighting == "samples":
        raise ValueError("training.weighting must be plain or iterations with privacy.mechanism local_dp")


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
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "none"
        raise ConfigError(f"no study file {path}; studies in {path.parent}: {known}") from None
    if columns is not None:
        _check_columns(path, root, study, columns)
    return study


def load_studies(folder: Path, *, columns: dict[str, set[str]] | None = None) -> dict[str, Study]:
    """Read every `*.yaml` in `folder`, by name."""
    return {path.stem: load_study(path, columns=columns) for path in sorted(folder.glob("*.yaml"))}


@cache
def _parse(path: Path, _mtime_ns: int) -> tuple[Study, yaml.Node]:
    """Kept as long as the file stays as it is: Airflow parses a DAG file before every task."""
    root, content = _read(path)
    try:
        study = Study.model_validate(content)
    except ValidationError as error:
        raise ConfigError(_explain(path, root, error)) from None
    if study.study != path.stem:
        line = _line(root, ("study",))
        raise ConfigError(f"{path}:{line}: study is {study.study!r}, but the file is named {path.name}")
    return study, root


def _read(path: Path) -> tuple[yaml.Node, Any]:
    """The file's node tree, which knows the lines, and its content."""
    try:
        loader = _Loader(path.read_text())
        node = loader.get_single_node()
        content = loader.construct_document(node) if node is not None else None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{place}: not readable as YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{path}: a study is a mapping of keys; this file holds none")
    return node, content


def _explain(path: Path, root: yaml.Node, error: ValidationError) -> str:
    lines = []
    problems = error.errors()
    for problem in problems:
        if problem["type"] == "too_short" and any(p["loc"][:-1] == problem["loc"] for p in problems):
            continue  # its one item was wrong, which is told already
        loc = tuple(part for part in problem["loc"] if part not in _UNION_TAGS) or _named_place(problem["msg"])
        lines.append(f"{path}:{_line(root, loc)}: {'.'.join(map(str, loc)) or 'study'}: {_reason(problem)}")
    return "\n".join(dict.fromkeys(lines))


def _named_place(message: str) -> tuple[str, ...]:
    """A rule across keys names the key at fault first: "rounds.min_sites is 14, but ..."."""
    return tuple(message.removeprefix("Value error, ").split()[0].rstrip(":").split("."))


def _reason(problem: Any) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        allowed = _allowed_keys(problem["loc"][:-1])
        return f"unknown key; allowed: {', '.join(allowed)}" if allowed else "unknown key"
    return message


def _allowed_keys(loc: tuple[Any, ...]) -> list[str]:
    model: Any = Study
    nested = {"inputs": Input, "positive_when": Condition, "none": NoPrivacy, "local_dp": LocalDP}
    for part in loc:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part) if model else None
        model = nested.get(part) or (field.annotation if field and hasattr(field.annotation, "model_fields") else None)
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _line(node: yaml.Node, loc: tuple[Any, ...]) -> int:
    """The 1-based line of `loc`, or of its nearest parent that the file has."""
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


def _check_columns(path: Path, root: yaml.Node, study: Study, columns: dict[str, set[str]]) -> None:
    for table in study.data.tables:
        if table not in columns:
            place = f"{path}:{_line(root, ('data', 'tables'))}"
            raise ConfigError(
                f"{place}: data.tables: no suite for table {table}; there is one for: {', '.join(sorted(columns))}"
            )
    for loc, table, column in _columns_read(study):
        if column not in columns[table]:
            allowed = ", ".join(sorted(columns[table]))
            raise ConfigError(f"{path}:{_line(root, loc)}: table {table} has no column {column}; it has: {allowed}")


def _columns_read(study: Study) -> list[tuple[tuple[Any, ...], str, str]]:
    read: list[tuple[tuple[Any, ...], str, str]] = []
    for i, condition in enumerate(study.label.positive_when):
        read.append((("label", "positive_when", i, "column"), study.label.table, condition.column))
    for i, spec in enumerate(study.inputs):
        if spec.column is not None:
            read.append((("inputs", i, "column"), spec.table, spec.column))
        read += [(("inputs", i, "where", name), spec.table, name) for name in spec.where]
        if spec.on_or_before is not None:
            read.append((("inputs", i, "on_or_before"), spec.table, spec.on_or_before[0]))
    return read
