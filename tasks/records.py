"""The records that pass between hub and sites: all of them JSON in the object store, none with a patient's value."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.study import Aggregation, Evaluation, Training
from tasks.study_privacy import Privacy

Digest = str
Unit = Literal["patient", "site", "nothing"]
Step = Literal["validate_data", "train_local", "privatize_and_upload", "unmask", "validate_global"]


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
    evaluated_model: ModelRef = Field(description="what sites count their held-out patients by: base model or average")
    keys_deadline: datetime | None = Field(default=None, description="masks: until when a site may join the roster")
    upload_deadline: datetime | None = Field(default=None, description="masks: until when it may upload")
    training: Training
    privacy: Privacy
    aggregation: Aggregation = "plain"
    evaluation: Evaluation
    total_rounds: int
    certificate_pem: str = Field(default="", description="the hub's, issued by the consortium's authority")
    signature: str = Field(default="", description="Ed25519 of the hub over the plan without this field, base64")


class Spend(Record):
    """What one release costs, and all releases of this unit so far.

    `mu` (Gaussian mechanisms) or `pure_epsilon` (sparse vector) is of this release alone; `epsilon` at `delta` is the
    total. `trust` says whom the promise needs: of a masked sum, for example, that few sites tell the hub their noise.
    """

    mechanism: str
    unit: Unit
    neighbours: str
    trust: str = ""
    noise_multiplier: float | None = Field(default=None, description="sd of the noise / sensitivity")
    clip_norm: float | None = None
    mu: float | None = Field(default=None, description="Gaussian-DP parameter of this release")
    pure_epsilon: float | None = Field(default=None, description="pure epsilon of this release")
    releases: int = Field(ge=1, description="releases of this unit so far, this one included")
    epsilon: float | None = Field(default=None, description="total of all releases so far")
    delta: float | None = None
    epsilon_budget: float | None = None


class LedgerEntry(Record):
    """One spend, written before the update that it pays for leaves the site. Each names the entry before it."""

    study: str
    site: str
    sequence: int = Field(ge=1, description="1, 2, 3 ... without gaps; equals spend.releases")
    previous: Digest = Field(description="sha256 of the entry before, as stored; 64 zeros before the first")
    server_round: int = Field(gt=0)
    spend: Spend
    plan_sha256: Digest | None = Field(default=None, description="of the plan that asked for it; older entries: null")
    release_sha256: Digest = Field(
        description="sha256 of the bytes that leave: a round never releases two things. Zeros: paid for, nothing left"
    )
    recorded_at: datetime
    signature: str = Field(default="", description="Ed25519 of the site over the entry without this field, base64")


class TensorSpec(Record):
    """Name, shape and type of one tensor of an update."""

    name: str
    shape: tuple[int, ...]
    dtype: Literal["F32", "I32", "U64", "U8"]


class Manifest(Record):
    """What a site says of its update; the hub checks every line of it before a byte is averaged."""

    study: str
    server_round: int
    site: str
    site_token: str
    base_model_sha256: Digest
    plan_sha256: Digest = Field(description="of the plan that the site has followed, as stored")
    num_examples: int = Field(gt=0)
    local_iterations: int = Field(gt=0)
    data_version: str
    code_version: str
    spend: Spend
    ledger_sequence: int = Field(ge=1)
    ledger_sha256: Digest = Field(description="of the ledger entry that pays for this update")
    roster_sha256: Digest | None = Field(default=None, description="whose masks are on it; null where there are none")
    tensors: tuple[TensorSpec, ...]
    num_bytes: int = Field(gt=0)
    sha256: Digest
    seconds: dict[str, float]
    signature: str = Field(default="", description="Ed25519 over the manifest without this field, base64")


class EncryptedSum(Record):
    """The sum that the sites are asked to decrypt: of which updates, and its digest."""

    study: str
    server_round: int
    updates: dict[str, Digest] = Field(description="site -> sha256 of its encrypted update")
    sha256: Digest


class DecryptedSum(Record):
    """A site's word on what an encrypted sum is."""

    study: str
    server_round: int
    site: str
    sum_sha256: Digest
    values_sha256: Digest
    signature: str = Field(default="", description="Ed25519 over the record without this field, base64")


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
    ledger_sequence: int
    ledger_sha256: Digest = Field(description="pins the site's ledger up to here: each entry names the one before")
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


class PrivateAuc(Record):
    """AUC over all sites' held-out patients, from noised counts by label and bin of predicted risk."""

    auc: float
    standard_error: float = Field(description="of the noise alone, not of the few patients")
    num_examples: float = Field(description="noised count of held-out patients")
    model_sha256: Digest


class LedgerPin(Record):
    """How far a site's ledger has come, by the entry that says so: each entry names the one before."""

    sequence: int = Field(ge=1)
    sha256: Digest


class ModelCard(Record):
    """What a model is, where it came from and what it cost. Each names the card of the model before: a chain."""

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
    private_auc: PrivateAuc | None = Field(default=None, description="of the evaluated model before this one")
    code_version: str
    intended_use: str
    limits: str
    previous_sha256: Digest | None = Field(default=None, description="of the base model's card; null: the first model")
    ledgers: dict[str, LedgerPin] = Field(
        default_factory=dict, description="site -> the newest ledger entry that the hub has accepted an update for"
    )
    certificate_pem: str = Field(default="", description="the hub's, issued by the consortium's authority")
    signature: str = Field(default="", description="Ed25519 of the hub over the card without this field, base64")


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
    aggregation: str = "plain"
    promise: Spend | None = Field(default=None, description="the contributor's spend that has released most")
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
    private_auc: PrivateAuc | None = Field(default=None, description="of the model that the round started from")
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
