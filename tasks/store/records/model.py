"""The global models: where each lies, what it is, and which is the newest."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, model_validator

from tasks.foreign.bounds import MAX_INPUTS, MAX_SITES, Count, LongText, Moment, Name, Pem, Round, Signature, Text
from tasks.store.records.ledger import LedgerPin, Spend
from tasks.store.records.record import Digest, Figures, Reasons, Record, gathered
from tasks.study.names import SiteName


class ModelRef(Record):
    """A model in the store, pinned by its digest."""

    server_round: Round
    key: Name
    sha256: Digest


class NoisedFigures(Record):
    """Figures over all sites' held-out patients, from noised sums of their statistics.

    errors: standard error of each, of the noise alone, not of the few patients. num_examples: a noised count.
    """

    figures: Figures = Field(default_factory=dict)
    errors: Figures = Field(default_factory=dict)
    num_examples: float
    model_sha256: Digest

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_rounds(cls, data: Any) -> Any:
        return gathered(gathered(data, "figures", {"auc": "auc"}), "errors", {"standard_error": "auc"})


class PrivateAuc(Record):
    """What stood on cards before figures had names; their signatures hold for it as it is."""

    auc: float
    standard_error: float
    num_examples: float
    model_sha256: Digest


class UsedStrategy(Record):
    """By which strategy a model was made. `since`: the round in which it began afresh, with no state from before."""

    name: Name
    since: Round
    state: ModelRef | None = Field(default=None, description="what the hub keeps of it for the next round")


class ModelCard(Record):
    """What a model is, where it came from and what it cost. Each names the card of the model before: a chain."""

    LATER: ClassVar[frozenset[str]] = frozenset({"noised", "strategy"})

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
    private_auc: PrivateAuc | None = Field(default=None, description="of a round from before there were other figures")
    noised: NoisedFigures | None = Field(default=None, description="of the evaluated model before this one")
    strategy: UsedStrategy | None = Field(default=None, description="null: fed_avg, as from the first round on")
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


class Pointer(Record):
    """`latest.json`: the newest closed round and its model."""

    study: Name
    server_round: Round
    model: ModelRef
    evaluated_model: ModelRef
    averaged_rounds: Count = 0
