"""What a closed round came to, and the lines that it is compared with."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

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
from tasks.store.records.model import PrivateAuc
from tasks.store.records.record import Digest, Expectations, Record
from tasks.study.channels import PLAIN, ClosedChannel
from tasks.study.privacy import promises
from tasks.study.sections import SiteName


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
    channel: ClosedChannel = PLAIN
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


class Baselines(Record):
    """Reference lines of the demo, where pooling is possible: a real federation has none of them."""

    study: Name
    pooled_auc: float
    pooled_log_loss: float
    local_only_auc: float
    local_only_log_loss: float
    note: Text
