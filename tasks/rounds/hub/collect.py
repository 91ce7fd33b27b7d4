"""Checking every line of what a site sends before a byte of it is averaged."""

from __future__ import annotations

import math

import torch

from tasks import __version__
from tasks.errors import BudgetExhausted, ObjectMissing, StoreError, StoreUnavailable, UpdateRejected
from tasks.learning.flat import Shape, norm
from tasks.learning.training import num_iterations
from tasks.privacy.codecs import codec_of
from tasks.privacy.ledger.chain import MAX_ENTRY
from tasks.privacy.sanitizer import plan_spend
from tasks.rounds.hub.context import HubContext
from tasks.store import layout
from tasks.store.identity import is_signed_by
from tasks.store.objects import to_json
from tasks.store.records.ledger import LedgerEntry
from tasks.store.records.round import Manifest, Plan, TensorSpec
from tasks.store.records.site import Enrolment
from tasks.store.weights import DTYPE_BYTES, MAX_HEADER, from_bytes, sha256

MAX_EXAMPLES = 10_000_000


def checked_update(
    hub: HubContext, plan: Plan, site: str, enrolment: Enrolment | None, shape: Shape
) -> tuple[Manifest, torch.Tensor]:
    """One site's manifest and its update as a flat float32 vector, after every check.

    Raises:
        UpdateRejected: with the first reason found. StoreUnavailable: worth a retry.
    """
    manifest = checked_manifest(hub, plan, site, enrolment)
    codec = codec_of(plan, shape)
    if not codec.admits(manifest.tensors):
        raise UpdateRejected(site, "wrong tensors in its manifest")
    update = codec.read(read_body(hub, plan, manifest), site)
    size = norm(update)
    if not size <= hub.study.rounds.max_update_norm:
        what = "holds NaN or infinity" if size != size or size == float("inf") else f"has norm {size:.3g}"
        raise UpdateRejected(site, f"{what}; the largest norm allowed is {hub.study.rounds.max_update_norm:g}")
    return manifest, update


def read_vector(body: bytes | bytearray, name: str, dtype: torch.dtype, site: str) -> torch.Tensor:
    """The one tensor of a safetensors body, (n,), which must have this name and type. Raises UpdateRejected."""
    try:
        tensors = from_bytes(body)
    except StoreError as error:
        raise UpdateRejected(site, str(error)) from None
    if list(tensors) != [name] or tensors[name].dtype != dtype or tensors[name].ndim != 1:
        raise UpdateRejected(site, f"its tensors are not one vector {name} of {dtype}")
    return tensors[name]


def read_body(hub: HubContext, plan: Plan, manifest: Manifest) -> bytearray:
    """The tensors' bytes, read once; never more than their announced size and a header. Raises UpdateRejected."""
    site, key = manifest.site, layout.update_tensors(plan.study, plan.server_round, manifest.site)
    most = sum(_num_bytes(spec) for spec in manifest.tensors) + MAX_HEADER
    try:
        size = hub.store.size(key)
        if size != manifest.num_bytes or size > most:
            raise UpdateRejected(site, f"{size} bytes uploaded, its manifest says {manifest.num_bytes}")
        body = hub.store.get_into(key, bytearray(size))
    except ObjectMissing:
        raise UpdateRejected(site, "a manifest without tensors") from None
    if sha256(body) != manifest.sha256:
        raise UpdateRejected(site, "the tensors' sha256 is not the one in its manifest")
    return body


def checked_manifest(
    hub: HubContext, plan: Plan, site: str, enrolment: Enrolment | None, roster_sha256: str | None = None
) -> Manifest:
    """A manifest whose lines are as they must be, and whose spend is in the ledger. Its tensors are the caller's."""
    if enrolment is None:
        raise UpdateRejected(site, "the site is not enrolled, or its enrolment was revoked")
    manifest = _manifest(hub, plan, site)
    _check_manifest(manifest, plan, site, enrolment)
    if manifest.roster_sha256 != roster_sha256:
        raise UpdateRejected(site, "its masks are not those of this round's roster")
    _check_spend(hub, manifest, plan, enrolment)
    return manifest


def _manifest(hub: HubContext, plan: Plan, site: str) -> Manifest:
    try:
        return hub.store.get_record(layout.update_manifest(plan.study, plan.server_round, site), Manifest)
    except StoreUnavailable:
        raise
    except StoreError as error:
        raise UpdateRejected(site, f"manifest: {error}") from None


def _check_manifest(manifest: Manifest, plan: Plan, site: str, enrolment: Enrolment) -> None:
    facts: dict[str, tuple[object, object]] = {
        "study": (manifest.study, plan.study),
        "round": (manifest.server_round, plan.server_round),
        "site": (manifest.site, site),
        "site token": (manifest.site_token == enrolment.token, True),
        "base model": (manifest.base_model_sha256, plan.base_model.sha256),
        "plan": (manifest.plan_sha256, sha256(to_json(plan))),
        "code version": (manifest.code_version, __version__),
    }
    for name, (found, wanted) in facts.items():
        if found != wanted:
            raise UpdateRejected(site, f"wrong {name} in its manifest")
    if manifest.num_examples > MAX_EXAMPLES:
        raise UpdateRejected(site, f"counts beyond {MAX_EXAMPLES}")
    iterations = num_iterations(plan.training, manifest.num_examples)
    if manifest.local_iterations != iterations:
        raise UpdateRejected(site, f"{manifest.local_iterations} local iterations, the plan asks for {iterations}")
    if not is_signed_by(enrolment, manifest.signature, to_json(manifest.model_copy(update={"signature": ""}))):
        raise UpdateRejected(site, "the signature is not the enrolled site's")


def _check_spend(hub: HubContext, manifest: Manifest, plan: Plan, enrolment: Enrolment) -> None:
    """The ledger must hold an entry, signed by the site, for these very bytes, and it must cost what the plan costs."""
    site = manifest.site
    entry = _ledger_entry(hub, manifest, plan)
    if entry.spend != manifest.spend or (entry.site, entry.server_round) != (site, plan.server_round):
        raise UpdateRejected(site, "its manifest and its ledger entry disagree on the privacy spend")
    if entry.plan_sha256 != manifest.plan_sha256:
        raise UpdateRejected(site, "its ledger entry is for another plan")
    if entry.release_sha256 != manifest.sha256:
        raise UpdateRejected(site, "its ledger entry pays for another update")
    if not entry.sequence == manifest.ledger_sequence == manifest.spend.releases:
        raise UpdateRejected(site, "its ledger entry is not numbered by its releases")
    if not is_signed_by(enrolment, entry.signature, to_json(entry.model_copy(update={"signature": ""}))):
        raise UpdateRejected(site, "the signature of its ledger entry is not the enrolled site's")
    try:
        planned = plan_spend(plan, manifest.spend.releases)
    except BudgetExhausted as error:
        raise UpdateRejected(site, f"its privacy spend: {error}") from None
    if manifest.spend != planned:
        raise UpdateRejected(site, "its privacy spend is not what the plan costs")


def _ledger_entry(hub: HubContext, manifest: Manifest, plan: Plan) -> LedgerEntry:
    site = manifest.site
    try:
        body = hub.store.get(layout.ledger_entry(plan.study, site, manifest.ledger_sequence), max_bytes=MAX_ENTRY)
        entry = LedgerEntry.model_validate_json(body)
    except ObjectMissing:
        raise UpdateRejected(site, "its privacy spend is not in the ledger") from None
    except StoreUnavailable:
        raise
    except (StoreError, ValueError) as error:
        raise UpdateRejected(site, f"its ledger entry cannot be read ({type(error).__name__})") from None
    if sha256(body) != manifest.ledger_sha256:
        raise UpdateRejected(site, "its ledger entry is not the one that its manifest names")
    return entry


def _num_bytes(spec: TensorSpec) -> int:
    return math.prod(spec.shape) * DTYPE_BYTES[spec.dtype]
