"""The records that pass between hub and sites: all of them JSON in the object store, none with a patient's value."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.study import Evaluation, Privacy, Training

Digest = str
Unit = Literal["patient", "site", "nothing"]
Step = Literal["validate_data", "train_local", "privatize_and_upload", "validate_global"]


class Record(BaseModel):
    """Frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelRef(Record):
    """A model in the store, pinned by its digest."""

    server_round: int = Field(ge=0)
    key: str
    sha256: Digest


class Plan(Record):
    """What one round is. Written once by the hub; sites follow it and nothing else."""

    study: str
    study_digest: Digest
    server_round: int = Field(gt=0)
    run_id: str
    opened_at: datetime
    deadline: datetime
    sites: tuple[str, ...]
    left_out: dict[str, str] = Field(default_factory=dict, description="site -> why it was not asked")
    min_sites: int
    strict: bool
    base_model: ModelRef
    training: Training
    privacy: Privacy
    evaluation: Evaluation
    total_rounds: int


class Spend(Record):
    """What one release costs, and all releases of this unit so far."""

    mechanism: str
    unit: Unit
    neighbours: str
    noise_multiplier: float | None = Field(default=None, description="sd of the noise / sensitivity")
    clip_norm: float | None = None
    mu: float | None = Field(default=None, description="Gaussian-DP parameter of this release")
    releases: int = Field(ge=1, description="releases of this unit so far, this one included")
    epsilon: float | None = Field(default=None, description="total of all releases so far")
    delta: float | None = None
    epsilon_budget: float | None = None


class LedgerEntry(Record):
    """One spend, written before the update that it pays for leaves the site."""

    study: str
    server_round: int
    site: str
    spend: Spend
    commitment: Digest = Field(description="keyed hash of what is released: the same round never releases two things")
    recorded_at: datetime


class TensorSpec(Record):
    """Name, shape and type of one tensor of an update."""

    name: str
    shape: tuple[int, ...]
    dtype: Literal["F32"]


class Manifest(Record):
    """What a site says of its update; the hub checks every line of it before a byte is averaged."""

    study: str
    server_round: int
    site: str
    site_token: str
    base_model_sha256: Digest
    num_examples: int = Field(gt=0)
    local_iterations: int = Field(gt=0)
    data_version: str
    code_version: str
    spend: Spend
    tensors: tuple[TensorSpec, ...]
    num_bytes: int = Field(gt=0)
    sha256: Digest
    seconds: dict[str, float]
    signature: str = Field(default="", description="Ed25519 over the manifest without this field, base64")


class Refusal(Record):
    """Why a site sends no update. The reason names columns and expectations, never values."""

    study: str
    server_round: int
    site: str
    step: Step
    reason: str


class Chosen(Record):
    """One update that goes into the model."""

    site: str
    sha256: Digest
    weight: float = Field(gt=0)
    num_examples: int
    local_iterations: int
    num_bytes: int
    spend: Spend
    seconds: dict[str, float]


class Selection(Record):
    """Which updates make the model, frozen before averaging, so that a rerun makes the same model."""

    study: str
    server_round: int
    run_id: str
    chosen: tuple[Chosen, ...]
    missing: dict[str, str] = Field(description="site -> why it is not in")


class SiteMetrics(Record):
    """A site's validation of the global model. Cells under `min_cell` patients are suppressed: null."""

    study: str
    server_round: int
    site: str
    model_sha256: Digest
    min_cell: int
    num_examples: int | None = None
    log_loss: float | None = None
    auc: float | None = None
    suppressed: tuple[str, ...] = ()
    seconds: float = 0.0


class ModelCard(Record):
    """What a model is, where it came from and what it cost."""

    study: str
    title: str
    study_digest: Digest
    server_round: int
    created_at: datetime
    model: ModelRef
    evaluated_model: ModelRef
    averaged_rounds: int
    base_model: ModelRef | None
    architecture: str
    inputs: tuple[str, ...]
    contributors: dict[str, float]
    missing: dict[str, str]
    spend: Spend | None
    code_version: str
    intended_use: str
    limits: str


class DailyValidation(Record):
    """The daily check of a site's data: per study "valid", or what failed."""

    site: str
    outcomes: dict[str, str]


class SiteRow(Record):
    """One site's part in a closed round."""

    site: str
    contributed: bool
    reason: str = ""
    num_examples: int | None = None
    weight: float | None = None
    num_bytes: int = 0
    data_valid: bool | None = None
    failed_expectations: tuple[str, ...] = ()
    waived_expectations: tuple[str, ...] = ()
    releases: int = 0
    epsilon: float | None = None
    seconds: dict[str, float] = Field(default_factory=dict)
    metrics: SiteMetrics | None = None


class RoundMetrics(Record):
    """A closed round. `status` is amber when a site is missing; `auc` and `log_loss` are over unsuppressed sites.

    `pooled_*` stand only where the held-out patients may be pooled, as on the demo's public data.
    """

    study: str
    server_round: int
    run_id: str
    status: Literal["complete", "partial", "failed"]
    message: str
    mechanism: str
    opened_at: datetime
    closed_at: datetime
    seconds: float
    total_rounds: int
    sites: tuple[SiteRow, ...]
    num_contributors: int
    num_bytes: int
    epsilon: float | None
    epsilon_budget: float | None
    delta: float | None
    model_sha256: Digest | None
    auc: float | None = None
    log_loss: float | None = None
    pooled_auc: float | None = None
    pooled_log_loss: float | None = None
    step_seconds: dict[str, float] = Field(default_factory=dict)
    slowest: str | None = None


class Pointer(Record):
    """`latest.json`: the newest closed round and its model."""

    study: str
    server_round: int
    model: ModelRef
    evaluated_model: ModelRef
    averaged_rounds: int = 0


class Enrolment(Record):
    """A site that the hub has admitted: its certificate, and the token that identifies its contributions."""

    site: str
    token: str
    certificate_pem: str
    enrolled_at: datetime
    active: bool = True


class Baselines(Record):
    """Reference lines of the demo, where pooling is possible: a real federation has none of them."""

    study: str
    pooled_auc: float
    pooled_log_loss: float
    local_only_auc: float
    local_only_log_loss: float
    note: str
