"""The records that pass between hub and sites: all of them JSON in the object store, none with a patient's value."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.foreign.bounds import (
    MAX_INPUTS,
    MAX_NAMED,
    MAX_RANK,
    MAX_SITES,
    MAX_STEPS,
    MAX_STUDIES,
    MAX_TENSORS,
    Amount,
    Count,
    Duration,
    Length,
    LongText,
    Moment,
    Name,
    Note,
    Pem,
    Round,
    Seconds,
    Sha256,
    Signature,
    StepSeconds,
    Text,
)
from tasks.study.privacy import Privacy, promises
from tasks.study.sections import Aggregation, Evaluation, SiteName, Training

Digest = Sha256
Reasons = Annotated[dict[SiteName, Text], Field(max_length=MAX_SITES)]
Expectations = Annotated[tuple[Name, ...], Field(max_length=MAX_NAMED)]
Unit = Literal["patient", "site", "nothing"]
Step = Literal["validate_data", "train_local", "privatize_and_upload", "unmask", "validate_global"]


class Record(BaseModel):
    """Frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelRef(Record):
    """A model in the store, pinned by its digest."""

    server_round: Round
    key: Name
    sha256: Digest


class Plan(Record):
    """What one round is. Written once by the hub; sites follow it and nothing else."""

    study: Name
    study_digest: Digest
    server_round: Round = Field(gt=0)
    run_id: Name
    opened_at: Moment
    deadline: Moment
    sites: tuple[SiteName, ...] = Field(max_length=MAX_SITES)
    left_out: Reasons = Field(default_factory=dict, description="site -> why it was not asked")
    min_sites: Count
    strict: bool
    base_model: ModelRef
    evaluated_model: ModelRef = Field(description="what sites count their held-out patients by: base model or average")
    fixed_sha256: Digest | None = Field(
        default=None, description="of the model's frozen parameters and buffers, which do not travel; None without any"
    )
    keys_deadline: Moment | None = Field(default=None, description="masks: until when a site may join the roster")
    upload_deadline: Moment | None = Field(default=None, description="masks: until when it may upload")
    training: Training
    privacy: Privacy
    aggregation: Aggregation = "plain"
    evaluation: Evaluation
    total_rounds: Count
    certificate_pem: Pem = Field(default="", description="the hub's, issued by the consortium's authority")
    signature: Signature = Field(default="", description="Ed25519 of the hub over the plan without this field, base64")


class Spend(Record):
    """What one release costs, and all releases of this unit so far.

    `mu` (Gaussian mechanisms) or `pure_epsilon` (sparse vector) is of this release alone; `epsilon` at `delta` is the
    total. `trust` says whom the promise needs: of a masked sum, for example, that few sites tell the hub their noise.
    """

    mechanism: Name
    unit: Unit
    neighbours: Note
    trust: Note = ""
    noise_multiplier: Amount | None = Field(default=None, description="sd of the noise / sensitivity")
    clip_norm: Amount | None = None
    mu: Amount | None = Field(default=None, description="Gaussian-DP parameter of this release")
    pure_epsilon: Amount | None = Field(default=None, description="pure epsilon of this release")
    releases: Count = Field(ge=1, description="releases of this unit so far, this one included")
    epsilon: Amount | None = Field(default=None, description="total of all releases so far")
    delta: Amount | None = None
    epsilon_budget: Amount | None = None

    @property
    def promises(self) -> bool:
        """Whether anybody is protected; if not, there is no epsilon and no budget."""
        return self.unit != "nothing"


class LedgerEntry(Record):
    """One spend, written before the update that it pays for leaves the site. Each names the entry before it."""

    study: Name
    site: SiteName
    sequence: Count = Field(ge=1, description="1, 2, 3 ... without gaps; equals spend.releases")
    previous: Digest = Field(description="sha256 of the entry before, as stored; 64 zeros before the first")
    server_round: Round = Field(gt=0)
    spend: Spend
    plan_sha256: Digest | None = Field(default=None, description="of the plan that asked for it; older entries: null")
    release_sha256: Digest = Field(
        description="sha256 of the bytes that leave: a round never releases two things. Zeros: paid for, nothing left"
    )
    recorded_at: Moment
    signature: Signature = Field(
        default="", description="Ed25519 of the site over the entry without this field, base64"
    )


class TensorSpec(Record):
    """Name, shape and type of one tensor of an update."""

    name: Name
    shape: tuple[Length, ...] = Field(max_length=MAX_RANK)
    dtype: Literal["F32", "I32", "U64", "U8"]


class Manifest(Record):
    """What a site says of its update; the hub checks every line of it before a byte is averaged."""

    study: Name
    server_round: Round
    site: SiteName
    site_token: Name
    base_model_sha256: Digest
    plan_sha256: Digest = Field(description="of the plan that the site has followed, as stored")
    num_examples: Count = Field(gt=0)
    local_iterations: Count = Field(gt=0)
    data_version: Name
    code_version: Name
    spend: Spend
    ledger_sequence: Count = Field(ge=1)
    ledger_sha256: Digest = Field(description="of the ledger entry that pays for this update")
    roster_sha256: Digest | None = Field(default=None, description="whose masks are on it; null where there are none")
    tensors: tuple[TensorSpec, ...] = Field(max_length=MAX_TENSORS)
    num_bytes: Count = Field(gt=0)
    sha256: Digest
    seconds: Seconds
    signature: Signature = Field(default="", description="Ed25519 over the manifest without this field, base64")


class EncryptedSum(Record):
    """The sum that the sites are asked to decrypt: of which updates, and its digest."""

    study: Name
    server_round: Round
    updates: dict[SiteName, Digest] = Field(max_length=MAX_SITES, description="site -> sha256 of its encrypted update")
    sha256: Digest


class DecryptedSum(Record):
    """A site's word on what an encrypted sum is."""

    study: Name
    server_round: Round
    site: SiteName
    sum_sha256: Digest
    values_sha256: Digest
    signature: Signature = Field(default="", description="Ed25519 over the record without this field, base64")


class Settled(Record):
    """A round that takes no more updates: whose are in, and once it is closed, how it ended.

    Each step of a site asks for it first, so that nothing is paid for a round that goes on without the site.
    """

    study: Name
    server_round: Round
    status: Literal["selected", "complete", "partial", "failed"]
    sites: tuple[SiteName, ...] = Field(max_length=MAX_SITES)
    certificate_pem: Pem = Field(default="", description="the hub's, issued by the consortium's authority")
    signature: Signature = Field(
        default="", description="Ed25519 of the hub over the record without this field, base64"
    )


class RunRecord(Record):
    """Which round an Airflow run has had. A run is one round, however often it is cleared."""

    study: Name
    run_id: Name
    server_round: Round


class Refusal(Record):
    """Why a site sends no update. The reason names columns and expectations, never values.

    It counts in the run that it was made in, until the site tries again and withdraws it.
    """

    study: Name
    server_round: Round
    site: SiteName
    step: Step
    reason: Text
    run_id: Name = ""
    withdrawn: bool = False


class Chosen(Record):
    """One update that goes into the model."""

    site: SiteName
    sha256: Digest
    weight: float = Field(gt=0)
    num_examples: Count
    local_iterations: Count
    num_bytes: Count
    spend: Spend
    ledger_sequence: Count
    ledger_sha256: Digest = Field(description="pins the site's ledger up to here: each entry names the one before")
    seconds: Seconds


class Selection(Record):
    """Which updates make the model, frozen before averaging, so that a rerun makes the same model."""

    study: Name
    server_round: Round
    run_id: Name
    chosen: tuple[Chosen, ...] = Field(max_length=MAX_SITES)
    missing: Reasons = Field(description="site -> why it is not in")


class SiteMetrics(Record):
    """A site's validation of the global model. Cells under `min_cell` patients are suppressed: null."""

    study: Name
    server_round: Round
    site: SiteName
    model_sha256: Digest
    min_cell: Count
    num_examples: Count | None = None
    log_loss: float | None = Field(default=None, ge=0, le=1e6)
    auc: float | None = Field(default=None, ge=0, le=1)
    suppressed: tuple[Name, ...] = Field(default=(), max_length=16)
    seconds: StepSeconds = 0.0


class PrivateAuc(Record):
    """AUC over all sites' held-out patients, from noised counts by label and bin of predicted risk."""

    auc: float
    standard_error: float = Field(description="of the noise alone, not of the few patients")
    num_examples: float = Field(description="noised count of held-out patients")
    model_sha256: Digest


class LedgerPin(Record):
    """How far a site's ledger has come, by the entry that says so: each entry names the one before."""

    sequence: Count = Field(ge=1)
    sha256: Digest


class ModelCard(Record):
    """What a model is, where it came from and what it cost. Each names the card of the model before: a chain."""

    study: Name
    title: Text
    study_digest: Digest
    server_round: Round
    created_at: Moment
    model: ModelRef
    evaluated_model: ModelRef
    averaged_rounds: Count
    base_model: ModelRef | None
    architecture: Text
    inputs: tuple[Name, ...] = Field(max_length=MAX_INPUTS)
    contributors: dict[SiteName, float] = Field(max_length=MAX_SITES)
    missing: Reasons
    spend: Spend | None
    private_auc: PrivateAuc | None = Field(default=None, description="of the evaluated model before this one")
    code_version: Name
    intended_use: LongText
    limits: LongText
    previous_sha256: Digest | None = Field(default=None, description="of the base model's card; null: the first model")
    ledgers: dict[SiteName, LedgerPin] = Field(
        default_factory=dict,
        max_length=MAX_SITES,
        description="site -> the newest ledger entry that the hub has accepted an update for",
    )
    certificate_pem: Pem = Field(default="", description="the hub's, issued by the consortium's authority")
    signature: Signature = Field(default="", description="Ed25519 of the hub over the card without this field, base64")


class DailyValidation(Record):
    """The daily check of a site's data: per study "valid", or what failed."""

    site: SiteName
    outcomes: dict[Name, Text] = Field(max_length=MAX_STUDIES)


class SiteRow(Record):
    """One site's part in a closed round."""

    site: SiteName
    contributed: bool
    reason: Text = ""
    num_examples: Count | None = None
    weight: float | None = None
    num_bytes: Count = 0
    data_valid: bool | None = None
    failed_expectations: Expectations = ()
    waived_expectations: Expectations = ()
    releases: Count = 0
    epsilon: Amount | None = None
    seconds: Seconds = Field(default_factory=dict)
    metrics: SiteMetrics | None = None


class RoundMetrics(Record):
    """A closed round. `status` is amber when a site is missing; `auc` and `log_loss` are over unsuppressed sites.

    `pooled_*` stand only where the held-out patients may be pooled, as on the demo's public data.
    """

    study: Name
    server_round: Round
    run_id: Name
    status: Literal["complete", "partial", "failed"]
    message: LongText
    mechanism: Name
    aggregation: Name = "plain"
    promise: Spend | None = Field(default=None, description="the contributor's spend that has released most")
    opened_at: Moment
    closed_at: Moment
    seconds: Duration
    total_rounds: Count
    idle_expectations: Expectations = Field(
        default=(), description="that looked at few patients' rows, or none, at every site; where sites tell that"
    )
    sites: tuple[SiteRow, ...] = Field(max_length=MAX_SITES)
    num_contributors: Count
    num_bytes: Count
    epsilon: Amount | None
    epsilon_budget: Amount | None
    delta: Amount | None
    model_sha256: Digest | None
    auc: float | None = None
    log_loss: float | None = None
    pooled_auc: float | None = None
    pooled_log_loss: float | None = None
    private_auc: PrivateAuc | None = Field(default=None, description="of the model that the round started from")
    step_seconds: dict[Name, Duration] = Field(default_factory=dict, max_length=MAX_STEPS)
    slowest: Name | None = None

    @property
    def promises(self) -> bool:
        """Whether the round's mechanism protects anybody."""
        return promises(self.mechanism)


class Pointer(Record):
    """`latest.json`: the newest closed round and its model."""

    study: Name
    server_round: Round
    model: ModelRef
    evaluated_model: ModelRef
    averaged_rounds: Count = 0


class Enrolment(Record):
    """A site that the hub has admitted: its certificate, and the token that identifies its contributions."""

    site: SiteName
    token: Name
    certificate_pem: Pem
    enrolled_at: Moment
    active: bool = True


class Baselines(Record):
    """Reference lines of the demo, where pooling is possible: a real federation has none of them."""

    study: Name
    pooled_auc: float
    pooled_log_loss: float
    local_only_auc: float
    local_only_log_loss: float
    note: Text
