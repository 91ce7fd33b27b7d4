"""What hub and sites exchange in a secure sum, and the private state that a site keeps. Byte strings are base64."""

from __future__ import annotations

import base64
import hashlib
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer

from tasks.foreign.bounds import MAX_SITES, Count, Name, Pem, Round, Sha256, Signature, Text
from tasks.store.objects import to_json
from tasks.store.records.record import Record
from tasks.study.names import SiteName


def _from_base64(value: object) -> object:
    """Only the one spelling that encoding gives, so that a record has one digest."""
    if not isinstance(value, str):
        return value
    raw = base64.b64decode(value, validate=True)
    if base64.b64encode(raw).decode() != value:
        raise ValueError("not the canonical base64 of its bytes")
    return raw


def _to_base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


Base64Bytes = Annotated[bytes, BeforeValidator(_from_base64), PlainSerializer(_to_base64, when_used="json")]
KeyBytes = Annotated[Base64Bytes, Field(min_length=32, max_length=32)]
Share = Annotated[Base64Bytes, Field(min_length=33, max_length=33)]
#: Two shares and what sealing adds (`sealing.seal`).
Sealed = Annotated[Base64Bytes, Field(min_length=114, max_length=114)]


class SealingKey(Record):
    """A site's long-lived X25519 key, to which other sites seal its shares."""

    site: SiteName
    certificate_pem: Pem
    public_key: KeyBytes
    signature: Signature = Field(default="", description="Ed25519 over the record without this field, base64")


class RoundKeys(Record):
    """A site's secrets of one round, and the one roster it has joined with them. Never leaves the site."""

    model_config = ConfigDict(hide_input_in_errors=True)

    study: Name
    server_round: Round = Field(gt=0)
    site: SiteName
    mask_private_key: KeyBytes = Field(repr=False)
    self_seed: KeyBytes = Field(repr=False)
    plan_sha256: Sha256 = Field(description="the plan that they were drawn for, and no other")
    roster_sha256: Sha256 | None = None
    used_for: Sha256 | None = Field(default=None, description="what they have masked, once; the secrets are then blank")


class Presence(Record):
    """A site's signed word that it takes part in a round, and how many entries its ledger had before it.

    The other sites keep it and show it to that site in later rounds: a site whose ledger was set back learns of it.
    """

    study: Name
    server_round: Round = Field(gt=0)
    site: SiteName
    plan_sha256: Sha256
    ledger_entries: Count
    signature: Signature = Field(default="", description="Ed25519 over the record without this field, base64")


class SharePair(Record):
    """One holder's shares of a site's mask key and self seed, sealed to it, and the digests of the two shares.

    A digest hides its share (257 random bits) and lets the hub see whose share is wrong.
    """

    sealed: Sealed
    self_seed_share_sha256: Sha256
    mask_key_share_sha256: Sha256


class KeyMessage(Record):
    """A site's public part in a round: its mask key, a commitment to its self seed, and the sealed shares of both."""

    study: Name
    server_round: Round = Field(gt=0)
    site: SiteName
    plan_sha256: Sha256 = Field(description="of the plan that the sender follows: all members follow the same")
    certificate_pem: Pem
    threshold: Count = Field(ge=2)
    mask_public_key: KeyBytes
    self_seed_commitment: Sha256
    shares: dict[SiteName, SharePair] = Field(
        max_length=MAX_SITES, description="by holder: every planned site, the sender too"
    )
    presence: Presence | None = None
    witnessed: dict[SiteName, Presence] = Field(
        default_factory=dict, max_length=MAX_SITES, description="site -> the newest word of it that the sender has kept"
    )
    signature: Signature = Field(default="", description="Ed25519 over the message without this field, base64")


class Roster(Record):
    """Whose key messages take part, frozen by the hub: every member masks against exactly these."""

    study: Name
    server_round: Round = Field(gt=0)
    run_id: Name
    threshold: Count = Field(ge=2)
    members: dict[SiteName, Sha256] = Field(
        max_length=MAX_SITES, description="site -> SHA-256 of its key message's JSON"
    )
    missing: dict[SiteName, Text] = Field(
        default_factory=dict, max_length=MAX_SITES, description="site -> why it is not a member"
    )
    tolerated_dropouts: Count


class Survivors(Record):
    """Whose uploads the hub has, frozen: the sum is over exactly these."""

    study: Name
    server_round: Round = Field(gt=0)
    roster_sha256: Sha256
    sites: tuple[SiteName, ...] = Field(max_length=MAX_SITES)


class UnmaskAnswer(Record):
    """A survivor's shares: of the self seeds of survivors, and of the mask keys of members that dropped out."""

    study: Name
    server_round: Round = Field(gt=0)
    site: SiteName
    survivors_sha256: Sha256
    self_seed_shares: dict[SiteName, Share] = Field(max_length=MAX_SITES)
    mask_key_shares: dict[SiteName, Share] = Field(max_length=MAX_SITES)
    signature: Signature = Field(default="", description="Ed25519 over the answer without this field, base64")


def record_sha256(record: Record) -> str:
    """SHA-256, hex, of the record's JSON bytes."""
    return hashlib.sha256(to_json(record)).hexdigest()
