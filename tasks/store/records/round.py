"""What passes between hub and sites in a round, from the plan to the selection."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from tasks.foreign.bounds import (
    MAX_RANK,
    MAX_SITES,
    MAX_TENSORS,
    Count,
    Length,
    Moment,
    Name,
    Pem,
    Round,
    Seconds,
    Signature,
    Text,
)
from tasks.store.records.ledger import Spend
from tasks.store.records.model import ModelRef
from tasks.store.records.record import Digest, Reasons, Record
from tasks.study.channels import PLAIN, PhaseName, PlannedChannel, Step
from tasks.study.codec import Dense, StudyCodec, as_spelled_once, respelled
from tasks.study.names import SiteName
from tasks.study.privacy import Privacy
from tasks.study.sections import Evaluation, Training
from tasks.study.strategy import FED_AVG, StrategySettings


class Plan(Record):
    """What one round is. Written once by the hub; sites follow it and nothing else.

    A codec that was a mechanism once is written as one, so that the signature of an older plan holds.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"num_sums", "codec", "strategy"})

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
    channel: PlannedChannel = PLAIN
    evaluation: Evaluation
    num_sums: Count | None = Field(
        default=None,
        description="values that ride on a summed gradient and tell how good a model is; None: two for each score bin",
    )
    codec: StudyCodec = Dense()
    total_rounds: Count
    strategy: StrategySettings = FED_AVG
    certificate_pem: Pem = Field(default="", description="the hub's, issued by the consortium's authority")
    signature: Signature = Field(default="", description="Ed25519 of the hub over the plan without this field, base64")

    @model_validator(mode="before")
    @classmethod
    def _spelled_today(cls, data: Any) -> Any:
        return respelled(data)

    @model_serializer(mode="wrap")
    def _spelled_once(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return as_spelled_once(handler(self))

    def end_of(self, phase: PhaseName | None) -> datetime:
        """When a phase is over for the sites; what belongs to none ends with the round."""
        ends = {"keys": self.keys_deadline, "updates": self.upload_deadline}
        return (ends.get(phase) if phase else None) or self.deadline


class TensorSpec(Record):
    """Name, shape and type of one tensor of an update."""

    name: Name
    shape: tuple[Length, ...] = Field(max_length=MAX_RANK)
    dtype: Literal["F32", "F16", "I32", "I8", "U64", "U8"]


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
