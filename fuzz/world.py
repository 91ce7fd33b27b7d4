"""One masked round of three sites, made by the project's own functions, in memory but for the sites' keys."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from cryptography import x509

from tasks import __version__
from tasks.errors import ObjectMissing, StoreError
from tasks.learning.flat import Shape
from tasks.privacy.ledger.chain import FIRST, Link
from tasks.privacy.sanitizer import plan_spend, specs_of
from tasks.privacy.secure_sum import opening, protocol
from tasks.privacy.secure_sum.checks import signed
from tasks.privacy.secure_sum.records import KeyMessage, Presence, Roster, SealingKey, Survivors, UnmaskAnswer
from tasks.privacy.secure_sum.records import record_sha256 as record_sha256
from tasks.rounds.hub.context import HubContext
from tasks.store import clock, layout
from tasks.store.hub_signature import sign_as_hub
from tasks.store.identity import ensure_authority, ensure_hub_identity, ensure_site_identity, sign
from tasks.store.objects import ObjectStore, to_json
from tasks.store.records.ledger import LedgerEntry
from tasks.store.records.model import ModelRef
from tasks.store.records.round import Manifest, Plan
from tasks.store.records.site import Enrolment
from tasks.store.settings import PROJECT
from tasks.store.weights import Weights, sha256, to_bytes
from tasks.study.file import load_study
from tasks.study.round_terms import deadlines
from tasks.study.sections import Study

SITES = ("701", "703", "704")
SITE = "703"
BASE: Weights = {"bias": torch.zeros(2), "weight": torch.zeros(3, 7)}


class Shelf(ObjectStore):
    """A store in memory, for what the parsers read through one."""

    def __init__(self) -> None:
        object.__setattr__(self, "bodies", {})
        super().__init__(client=None, bucket="memory", identity="hub")

    bodies: dict[str, bytes]

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        """As the real one, limit included."""
        if key not in self.bodies:
            raise ObjectMissing(key)
        if max_bytes is not None and len(self.bodies[key]) > max_bytes:
            raise StoreError(f"{key} is too large")
        return self.bodies[key]

    def size(self, key: str) -> int:
        """Bytes of an object."""
        return len(self.get(key))

    def exists(self, key: str) -> bool:
        """Whether it is there."""
        return key in self.bodies

    def keys(self, prefix: str) -> Iterator[str]:
        """All keys under `prefix`, sorted."""
        return iter(sorted(key for key in self.bodies if key.startswith(prefix)))


@dataclass
class World:
    """A round up to the survivors' answers, and what one site has sent in it."""

    folder: Path
    study: Study
    authority: x509.Certificate
    store: Shelf
    plan: Plan
    sealing: dict[str, SealingKey]
    messages: dict[str, KeyMessage]
    roster: Roster
    survivors: Survivors
    answer: UnmaskAnswer
    masked: bytes
    entry: bytes
    manifest: Manifest
    enrolment: Enrolment
    shape: Shape = field(default_factory=lambda: Shape.of(BASE))

    @property
    def hub(self) -> HubContext:
        """The hub's view, with the store in memory."""
        return HubContext(self.study, self.store)

    def sign(self, message: bytes) -> str:
        """As the site: a site that lies signs its lies."""
        return sign(self.folder / SITE, message)


def make() -> World:
    """A new world, with new keys."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    authority = ensure_authority(folder / "ca")
    ensure_hub_identity(folder / "hub", authority)
    for site in SITES:
        ensure_site_identity(folder / site, site, authority)
    study = _study()
    plan = _plan(study, folder)
    plan_sha256 = sha256(to_json(plan))
    sealing = {site: _sealing_key(folder, site) for site in SITES}
    made = {site: _keys(folder, site, plan, plan_sha256, sealing, authority[1]) for site in SITES}
    messages = {site: message for site, (_, message) in made.items()}
    roster = opening.make_roster(messages, run_id="run", missing={}, tolerated_dropouts=0)
    keys = {
        site: protocol.join_roster(own, roster, messages, _private(folder, site), tolerated_dropouts=0)
        for site, (own, _) in made.items()
    }
    survivors = opening.freeze_survivors(roster, SITES)
    answer = protocol.answer(
        roster, survivors, messages, keys[SITE], _private(folder, SITE), _signer(folder, SITE), earlier=None
    )
    values = np.arange(Shape.of(BASE).num_values, dtype=np.int64)
    tensors = {"masked": torch.from_numpy(protocol.mask(values, keys[SITE], roster, messages))}
    body = to_bytes(tensors)
    entry = _entry(folder, plan, plan_sha256, sha256(body))
    manifest = _manifest(folder, plan, plan_sha256, roster, entry, tensors)
    enrolment = Enrolment(site=SITE, token="token", certificate_pem=_pem(folder, SITE), enrolled_at=clock.now())
    store = Shelf()
    store.bodies[layout.ledger_entry(plan.study, SITE, 1)] = entry.body
    return World(
        folder=folder,
        study=study,
        authority=authority[1],
        store=store,
        plan=plan,
        sealing=sealing,
        messages=messages,
        roster=roster,
        survivors=survivors,
        answer=answer,
        masked=body,
        entry=entry.body,
        manifest=manifest,
        enrolment=enrolment,
    )


def _study() -> Study:
    """The shipped masked study, over these three sites, none of which may be lost."""
    study = load_study(PROJECT / "studies" / "xanomeline_derm56.yaml")
    content = study.model_dump(by_alias=True, exclude_unset=True)
    content["sites"] = {site: content["sites"][site] for site in SITES}
    content["rounds"] |= {"min_sites": 3}
    content["privacy"] |= {"tolerated_dropouts": 0}
    content["evaluation"].pop("score_bins", None)
    return Study.model_validate(content)


def _plan(study: Study, folder: Path) -> Plan:
    now = clock.now()
    ref = ModelRef(server_round=0, key=layout.model(study.study, 0), sha256=sha256(to_bytes(BASE)))
    deadline, keys_deadline, upload_deadline = deadlines(study, now)
    plan = Plan(
        study=study.study,
        study_digest=study.digest,
        server_round=1,
        run_id="run",
        opened_at=now,
        deadline=deadline,
        keys_deadline=keys_deadline,
        upload_deadline=upload_deadline,
        sites=SITES,
        min_sites=3,
        strict=study.rounds.strict,
        base_model=ref,
        evaluated_model=ref,
        training=study.training,
        privacy=study.privacy,
        channel=study.channel,
        evaluation=study.evaluation,
        total_rounds=study.rounds.total,
    )
    return sign_as_hub(plan, folder / "hub")


def _keys(
    folder: Path, site: str, plan: Plan, plan_sha256: str, sealing: dict[str, SealingKey], authority: x509.Certificate
) -> tuple[protocol.RoundKeys, KeyMessage]:
    sign_ = _signer(folder, site)
    word = Presence(study=plan.study, server_round=1, site=site, plan_sha256=plan_sha256, ledger_entries=0)
    return protocol.make_round_keys(
        plan.study,
        1,
        site,
        protocol.open_sealing_keys(sealing, authority),
        3,
        _pem(folder, site),
        sign_,
        plan_sha256=plan_sha256,
        presence=signed(word, sign_),
        witnessed={site: signed(word, sign_)},
    )


def _sealing_key(folder: Path, site: str) -> SealingKey:
    return protocol.publish_sealing_key(site, _private(folder, site), _pem(folder, site), _signer(folder, site))


def _entry(folder: Path, plan: Plan, plan_sha256: str, release_sha256: str) -> Link:
    entry = LedgerEntry(
        study=plan.study,
        site=SITE,
        sequence=1,
        previous=FIRST,
        server_round=1,
        spend=plan_spend(plan, 1),
        plan_sha256=plan_sha256,
        release_sha256=release_sha256,
        recorded_at=clock.now(),
    )
    return Link.seal(entry, folder / SITE)


def _manifest(folder: Path, plan: Plan, plan_sha256: str, roster: Roster, entry: Link, tensors: Weights) -> Manifest:
    manifest = Manifest(
        study=plan.study,
        server_round=1,
        site=SITE,
        site_token="token",
        base_model_sha256=plan.base_model.sha256,
        plan_sha256=plan_sha256,
        num_examples=20,
        local_iterations=1,
        data_version="0" * 32,
        code_version=__version__,
        spend=entry.entry.spend,
        ledger_sequence=1,
        ledger_sha256=entry.sha256,
        roster_sha256=record_sha256(roster),
        tensors=specs_of(tensors),
        num_bytes=len(to_bytes(tensors)),
        sha256=sha256(to_bytes(tensors)),
        seconds={"train_local": 0.1},
    )
    return manifest.model_copy(update={"signature": sign(folder / SITE, to_json(manifest))})


def _signer(folder: Path, site: str) -> Callable[[bytes], str]:
    return partial(sign, folder / site)


def _pem(folder: Path, site: str) -> str:
    return (folder / site / "certificate.pem").read_text()


def _private(folder: Path, site: str) -> bytes:
    return (folder / site / "sealing.key").read_bytes()
