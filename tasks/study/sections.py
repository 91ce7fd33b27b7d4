"""A study is one YAML file: data, label, inputs, model, training, privacy, channel, codec, strategy, rounds.

The sections and their rules; `tasks.study.file` reads the file and names the line of what breaks a rule.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from tasks.foreign.bounds import MAX_COUNT, MAX_INPUTS, MAX_SITES, LongText, PlainOptions, Text
from tasks.study.channels import OLD_KEY, PLAIN, StudyChannel
from tasks.study.codec import Dense, StudyCodec, as_spelled_once, respelled
from tasks.study.fits import Combination, require_fit
from tasks.study.label import Label
from tasks.study.names import Cell, Identifier, SiteName
from tasks.study.privacy import Privacy, Section
from tasks.study.reading import Reading
from tasks.study.strategy import FED_AVG, StrategySettings

#: Share of a site's patients that may lack an input, where a study says nothing.
MAX_MISSING = 0.2

#: Columns that say how treatment went or ended. As an input they would leak the outcome.
LEAKING_COLUMNS = re.compile(
    r"^(TRTDURD?|AVGDD|CUMDOSE|TRTEDT|VISNUMEN|RFEND.*|COMP\d*FL|EFFFL|DISCONFL|DSRAEFL|DTHFL|DC.*|EOSSTT|CNSR|EVNTDESC)$"
)


def _not_leaking(column: str) -> str:
    if LEAKING_COLUMNS.match(column):
        raise ValueError(f"{column} is known only after the outcome, so no input may read it")
    return column


InputColumn = Annotated[str, AfterValidator(_not_leaking)]


class Data(Section):
    """Which tables each site has, and the suites that guard them."""

    root: str = "data/sites"
    suites: str = "expectations"
    tables: tuple[Identifier, ...] = Field(min_length=1)
    subject: str = "USUBJID"
    pin: str | None = "data.dvc"
    reading: Reading = Reading()
    max_missing: float = Field(
        default=MAX_MISSING,
        ge=0,
        le=1,
        description="largest share of a site's patients that may lack an input; they get its centre",
    )


class Input(Section):
    """One model input, built from the rows that `where` and `on_or_before` leave, then scaled by public constants.

    value = clip((transform(x) - centre') / scale, -clip, clip) * gain, with centre' = transform(centre);
    a subject without rows gets the centre. reduce: missing is 1 for a subject without a value, else 0.
    max_missing: this input's own `data.max_missing`. missing_as: what a subject without a value gets instead, such as
    the worst there is; public, in natural units. within: how many days before that of `on_or_before` a row may lie, so
    that a last value is not carried forward for longer.
    """

    name: Identifier
    table: Identifier
    column: InputColumn | None = None
    where: dict[InputColumn, Cell] = Field(default_factory=dict)
    on_or_before: tuple[InputColumn, float] | None = None
    reduce: Literal["only", "last", "mean", "any", "count", "count_distinct", "missing"] = "only"
    codes: dict[str, float] | None = None
    other: float | None = None
    transform: Literal["identity", "log1p"] = "identity"
    centre: float
    scale: float = Field(gt=0)
    clip: float = Field(default=4.0, gt=0)
    gain: float = Field(default=1.0, gt=0)
    max_missing: float | None = Field(default=None, ge=0, le=1)
    missing_as: float | None = None
    within: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _column_needed(self) -> Input:
        if self.column is None and self.reduce not in ("any", "count"):
            raise ValueError(f"reduce: {self.reduce} needs a column")
        return self

    @model_validator(mode="after")
    def _of_what_may_be_missing(self) -> Input:
        if self.within is not None and self.on_or_before is None:
            raise ValueError("within needs on_or_before: it counts days before that one")
        if self.missing_as is not None and self.reduce not in ("only", "last", "mean"):
            raise ValueError(f"missing_as has no meaning with reduce: {self.reduce}, which is missing for nobody")
        if self.missing_as is not None and self.transform == "log1p" and self.missing_as <= -1:
            raise ValueError(f"missing_as is {self.missing_as:g}, which has no log1p")
        return self


class Model(Section):
    """A `torch.nn.Module` by import path; it is called as `path(num_inputs, **options)`.

    Each site allows what may be imported, see `tasks.learning.own_models.policy`.
    """

    path: str = Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")
    options: PlainOptions = Field(default_factory=dict)


class Training(Section):
    """What a site does between two global models."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = Field(gt=0, le=10)
    batch_size: Annotated[int, Field(gt=0, le=MAX_COUNT)] | Literal["full"] = "full"
    local_epochs: int | None = Field(default=None, gt=0, le=MAX_COUNT)
    local_iterations: int | None = Field(default=None, gt=0, le=MAX_COUNT)
    l2: float = Field(default=0.0, ge=0)
    optimizer_state: Literal["restart", "keep"] = "restart"
    weighting: Literal["iterations", "samples", "plain"] = "iterations"
    average_iterates: Literal["none", "second_half"] = "none"
    seed: int = Field(default=0, ge=0, lt=1 << 64)

    @model_validator(mode="after")
    def _one_length(self) -> Training:
        if (self.local_epochs is None) == (self.local_iterations is None):
            raise ValueError("give exactly one of: local_epochs, local_iterations")
        return self


class Rounds(Section):
    """How many rounds the budget pays for, and when a round is complete."""

    total: int = Field(gt=0, le=10_000)
    min_sites: int = Field(gt=0)
    deadline_seconds: float = Field(gt=0)
    strict: bool = False
    max_update_norm: float = Field(default=1000.0, gt=0)


class Evaluation(Section):
    """Which patients are held out at each site, and the smallest cell that may leave it."""

    holdout_fraction: float = Field(gt=0, lt=1)
    split_seed: int = Field(default=0, ge=0, lt=1 << 64)
    min_cell: int = Field(default=5, ge=2, le=MAX_COUNT)
    data_are_public: bool = Field(default=False, description="the hub may pool held-out patients for reference lines")
    score_bins: int | None = Field(
        default=None,
        ge=2,
        le=100,
        description="bins of predicted risk in which held-out patients are counted",
    )


class Study(Section):
    """One federated study, as its YAML file has it."""

    study: Identifier
    title: Text
    description: LongText
    owner: str
    closed: bool = False
    data: Data
    sites: dict[SiteName, tuple[str, ...]] = Field(min_length=1, max_length=MAX_SITES)
    label: Label
    inputs: tuple[Input, ...] = Field(min_length=1, max_length=MAX_INPUTS)
    model: Model
    training: Training
    privacy: Privacy
    channel: StudyChannel = PLAIN
    strategy: StrategySettings = FED_AVG
    codec: StudyCodec = Dense()
    rounds: Rounds
    evaluation: Evaluation

    @property
    def digest(self) -> str:
        """sha256 of the canonical study: two files that mean the same have the same digest.

        What equals its default is left out, so a key that a later version knows changes no older study's digest. A
        default never changes: files that say nothing would mean something else under the same digest. A channel goes
        in under its old key, and a codec that was a mechanism once as one, so that the digest outlived both.
        """
        said = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        if "channel" in said:
            said[OLD_KEY] = said.pop("channel")
        canonical = json.dumps(as_spelled_once(said), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def input_names(self) -> list[str]:
        return [spec.name for spec in self.inputs]

    @model_validator(mode="before")
    @classmethod
    def _spelled_today(cls, data: Any) -> Any:
        return respelled(data)

    @model_validator(mode="after")
    def _parts_fit(self) -> Study:
        self._check_rounds()
        self._check_tables()
        require_fit(self._combination)
        return self

    @property
    def _combination(self) -> Combination:
        training = self.training
        return Combination(
            privacy=self.privacy,
            task=self.label.task,
            sums_over_patients=self.label.per_patient,
            channel=self.channel,
            strategy=self.strategy,
            codec=self.codec,
            weighting=training.weighting,
            optimizer=training.optimizer,
            batch_size=training.batch_size,
            local_iterations=training.local_iterations,
            local_epochs=training.local_epochs,
            score_bins=self.evaluation.score_bins,
            num_sites=len(self.sites),
            min_sites=self.rounds.min_sites,
        )

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
        unknown = self.data.reading.unknown_tables(self.data.tables)
        if unknown:
            tables = ", ".join(self.data.tables)
            raise ValueError(f"data.reading.columns has {unknown[0]}, which is no TABLE.COLUMN of {tables}")
        places = [("label.table", self.label.table)]
        places += [(".".join(map(str, loc)), table) for loc, table, _ in self.label.columns()]
        places += [(f"inputs.{i}.table", spec.table) for i, spec in enumerate(self.inputs)]
        for place, table in places:
            if table not in self.data.tables:
                raise ValueError(f"{place} is {table}, which is not among data.tables: {', '.join(self.data.tables)}")
