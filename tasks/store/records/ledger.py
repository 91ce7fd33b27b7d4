"""What was spent: the entries of a site's ledger."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.foreign.bounds import Amount, Count, Moment, Name, Note, Round, Signature
from tasks.store.records.record import Digest, Record
from tasks.study.names import SiteName

Unit = Literal["patient", "site", "nothing"]


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


class LedgerPin(Record):
    """How far a site's ledger has come, by the entry that says so: each entry names the one before."""

    sequence: Count = Field(ge=1)
    sha256: Digest
