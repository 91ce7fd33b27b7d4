"""Ledgers for tests: two sites with keys and certificates, chains of entries, and what the hub pins of them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from botocore.exceptions import ClientError
from cryptography import x509

from tasks.privacy.accounting import compose, gdp_epsilon, noise_multiplier_for
from tasks.privacy.ledger.chain import FIRST, Link
from tasks.store import layout
from tasks.store.identity import ensure_authority, ensure_site_identity
from tasks.store.objects import ObjectStore, to_json
from tasks.store.records.ledger import LedgerEntry, Spend
from tasks.store.records.round import Chosen, Selection
from tasks.store.records.site import Enrolment
from tasks.store.settings import PROJECT

SITE, OTHER = "701", "702"
ROUNDS, EPSILON, DELTA = 20, 3.0, 1e-5
#: Before any clock that a test reads.
RECORDED = datetime(2026, 3, 1, 2, 5, tzinfo=UTC)


def study_content(name: str) -> dict[str, Any]:
    """The shipped study's file with both sites, local_dp, and the budget of `gaussian_spend`."""
    content: dict[str, Any] = yaml.safe_load((PROJECT / "studies" / "xanomeline_derm56.yaml").read_text())
    privacy = {"epsilon": EPSILON, "delta": DELTA, "clip_norm": 1, "public_num_examples": 211}
    return content | {
        "study": name,
        "channel": "plain",
        "sites": {SITE: ["701"], OTHER: ["702"]},
        "privacy": {"mechanism": "local_dp"} | privacy,
        "rounds": {"total": ROUNDS, "min_sites": 2, "deadline_seconds": 60},
        "evaluation": {"holdout_fraction": 0.17},
    }


@lru_cache
def gaussian_spend(releases: int, *, total: int = ROUNDS, epsilon: float = EPSILON, delta: float = DELTA) -> Spend:
    """What `local_dp` costs, without the limit on the number of releases."""
    multiplier = noise_multiplier_for(epsilon, delta, total)
    return Spend(
        mechanism="local_dp",
        unit="patient",
        neighbours="training sets that differ in one patient",
        trust="",
        noise_multiplier=multiplier,
        clip_norm=1.0,
        mu=compose(multiplier, 1),
        releases=releases,
        epsilon=gdp_epsilon(compose(multiplier, releases), delta),
        delta=delta,
        epsilon_budget=epsilon,
    )


def make_identities(folder: Path) -> Path:
    """Keys and certificates of both sites; site 701's lie in `<folder>/701`."""
    authority = ensure_authority(folder / "ca")
    for site in (SITE, OTHER):
        ensure_site_identity(folder / site, site, authority)
    return folder


def certificate(identities: Path, site: str = SITE) -> x509.Certificate:
    return x509.load_pem_x509_certificate((identities / site / "certificate.pem").read_bytes())


def enrol(hub: ObjectStore, identities: Path) -> None:
    """Put both sites' enrolments in the store; another test may have left its own there."""
    for site in (SITE, OTHER):
        pem = (identities / site / "certificate.pem").read_text()
        enrolment = Enrolment(site=site, token=f"token-of-{site}", certificate_pem=pem, enrolled_at=RECORDED)
        hub.put(layout.enrolment(site), to_json(enrolment), content_type="application/json")


def entry(number: int, previous: str, **changes: Any) -> LedgerEntry:
    """An unsigned entry, the `number`-th, of the round of that number."""
    content: dict[str, Any] = {
        "study": "study",
        "site": SITE,
        "previous": previous,
        "sequence": number,
        "server_round": number,
        "spend": gaussian_spend(number),
        "release_sha256": f"{number:064x}",
        "recorded_at": RECORDED.replace(day=min(28, number)),
    }
    return LedgerEntry(**(content | changes))


def make_chain(identities: Path, length: int, **changes: Any) -> list[Link]:
    """A valid chain of site 701; `changes` go into every entry."""
    links: list[Link] = []
    for sequence in range(1, length + 1):
        made = entry(sequence, links[-1].sha256 if links else FIRST, **changes)
        links.append(Link.seal(made, identities / made.site))
    return links


def put_chain(hub: ObjectStore, study: str, site: str, links: list[Link]) -> None:
    """Write entries into the store over whatever is there."""
    for link in links:
        key = layout.ledger_entry(study, site, link.entry.sequence)
        hub.put(key, link.body, content_type="application/json")


def select(hub: ObjectStore, study: str, server_round: int, pinned: Mapping[str, tuple[int, str]]) -> None:
    """The hub freezes a round in which these sites' updates were accepted: site -> (sequence, sha256)."""
    chosen = tuple(
        Chosen(
            site=site,
            sha256="c" * 64,
            weight=1.0,
            num_examples=10,
            local_iterations=1,
            num_bytes=100,
            spend=gaussian_spend(sequence),
            ledger_sequence=sequence,
            ledger_sha256=digest,
            seconds={},
        )
        for site, (sequence, digest) in pinned.items()
    )
    selection = Selection(study=study, server_round=server_round, run_id="run", chosen=chosen, missing={})
    hub.create_record(layout.selection(study, server_round), selection)


def remove(hub: ObjectStore, study: str, *sequences: int) -> None:
    """Take entries of site 701 out of the store."""
    for sequence in sequences:
        hub.client.delete_object(Bucket=layout.BUCKET, Key=layout.ledger_entry(study, SITE, sequence))


def clear(hub: ObjectStore, study: str) -> None:
    """Take a study's objects out of the store, so that the next test can have its name."""
    for key in list(hub.keys(layout.study_prefix(study) + "/")):
        hub.client.delete_object(Bucket=layout.BUCKET, Key=key)


@dataclass
class MemoryClient:
    """What `ObjectStore` needs of boto3, in memory: for tests of many histories, where a real store takes minutes."""

    objects: dict[str, bytes] = field(default_factory=dict)

    def store(self) -> ObjectStore:
        return ObjectStore(self, layout.BUCKET, "memory")

    def put_object(self, *, Key: str, Body: bytes, IfNoneMatch: str = "", **_: object) -> None:
        if IfNoneMatch and Key in self.objects:
            raise _error("PreconditionFailed", "put_object")
        self.objects[Key] = Body

    def get_object(self, *, Key: str, **_: object) -> dict[str, Any]:
        if Key not in self.objects:
            raise _error("NoSuchKey", "get_object")
        return {"Body": io.BytesIO(self.objects[Key]), "ContentLength": len(self.objects[Key])}

    def head_object(self, *, Key: str, **_: object) -> dict[str, Any]:
        return self.get_object(Key=Key)

    def delete_object(self, *, Key: str, **_: object) -> None:
        self.objects.pop(Key, None)

    def list_objects_v2(self, *, Prefix: str, **_: object) -> dict[str, Any]:
        return {"Contents": [{"Key": key} for key in sorted(self.objects) if key.startswith(Prefix)]}


def _error(code: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code}}, operation)
