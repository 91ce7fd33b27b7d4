"""What a closed round came to, and the lines that it is compared with."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AliasChoices, Field, model_validator

from tasks.foreign.bounds import (
    MAX_SITES,
    MAX_STEPS,
    Amount,
    Count,
    Duration,
    LongText,
    Moment,
    Name,
    Round,
    Seconds,
    StepSeconds,
    Text,
)
from tasks.store.records.ledger import Spend
from tasks.store.records.model import NoisedFigures, UsedStrategy
from tasks.store.records.record import Digest, Expectations, Figures, Record, gathered
from tasks.study.channels import PLAIN, ClosedChannel
from tasks.study.names import SiteName
from tasks.study.privacy import promises


class SiteMetrics(Record):
    """A site's validation of the global model. Cells under `min_cell` patients are suppressed: null."""

    study: Name
    server_round: Round
    site: SiteName
    model_sha256: Digest
    min_cell: Count
    num_examples: Count | None = None
    figures: Figures = Field(default_factory=dict)
    suppressed: tuple[Name, ...] = Field(default=(), max_length=17)
    seconds: StepSeconds = 0.0

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_rounds(cls, data: Any) -> Any:
        return gathered(data, "figures", {"auc": "auc", "log_loss": "log_loss"})


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
    """A closed round. `status` is amber when a site is missing.

    figures: means over the sites that may report, weighted by their held-out patients. pooled: of all held-out patients
    together, only where they may be pooled, as on the demo's public data.
    """

    study: Name
    server_round: Round
    run_id: Name
    status: Literal["complete", "partial", "failed"]
    message: LongText
    task: Name = "binary"
    mechanism: Name
    channel: ClosedChannel = PLAIN
    codec: Name = "dense"
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
    dense_bytes: Count | None = Field(
        default=None, description="what as many updates would take in dense float32: as many as the model's own bytes"
    )
    epsilon: Amount | None
    epsilon_budget: Amount | None
    delta: Amount | None
    model_sha256: Digest | None
    figures: Figures = Field(default_factory=dict)
    pooled: Figures = Field(default_factory=dict)
    noised: NoisedFigures | None = Field(
        default=None,
        validation_alias=AliasChoices("noised", "private_auc"),
        description="of the model that the round started from",
    )
    strategy: UsedStrategy | None = Field(default=None, description="null: fed_avg, as from the first round on")
    step_seconds: dict[Name, Duration] = Field(default_factory=dict, max_length=MAX_STEPS)
    slowest: Name | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_rounds(cls, data: Any) -> Any:
        shared = gathered(data, "figures", {"auc": "auc", "log_loss": "log_loss"})
        return gathered(shared, "pooled", {"pooled_auc": "auc", "pooled_log_loss": "log_loss"})

    @property
    def share_of_dense(self) -> float | None:
        """Bytes uploaded, of what they would be in dense float32; None where nobody counted those."""
        return self.num_bytes / self.dense_bytes if self.dense_bytes else None

    @property
    def promises(self) -> bool:
        """Whether the round's mechanism protects anybody."""
        return promises(self.mechanism)


class Baselines(Record):
    """Reference lines of the demo, where pooling is possible: a real federation has none of them."""

    study: Name
    pooled: Figures
    local_only: Figures
    note: Text
