"""Waiting for the sites, and checking every line of what they send before a byte is averaged."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import torch

from tasks import __version__, layout
from tasks.aggregation import Shape, flat_update, norm
from tasks.enrolment import is_signed_by
from tasks.errors import BudgetExhausted, ObjectMissing, StoreError, StoreUnavailable, UpdateRejected
from tasks.hub.context import HubContext
from tasks.privacy.sanitizer import plan_spend
from tasks.records import Enrolment, LedgerEntry, Manifest, Plan, Refusal
from tasks.storage import to_json
from tasks.tensors import sha256
from tasks.training import num_iterations

#: A safetensors header may add this much to the tensors' own bytes.
MAX_HEADER = 1 << 20
MAX_EXAMPLES = 10_000_000
POLL_SECONDS = 0.2


@dataclass
class Answers:
    """Who has answered a round so far."""

    updates: set[str] = field(default_factory=set)
    refusals: set[str] = field(default_factory=set)

    def missing(self, plan: Plan) -> list[str]:
        """Sites that have said nothing."""
        return [site for site in plan.sites if site not in self.updates | self.refusals]


def wait_for_answers(
    hub: HubContext, plan: Plan, *, say: Callable[[str], None] = print, sleep: Callable[[float], None] = time.sleep
) -> Answers:
    """Until every site has answered, the deadline has passed, or the quorum is out of reach."""
    last = ""
    while True:
        answers = read_answers(hub, plan)
        silent = answers.missing(plan)
        line = f"round {plan.server_round}: {len(answers.updates)} updates, {len(answers.refusals)} refusals"
        if line != last:
            say(f"{line}; waiting for {', '.join(silent) or 'nobody'}")
            last = line
        hopeless = len(answers.updates) + len(silent) < plan.min_sites
        if not silent or hopeless or datetime.now(UTC) >= plan.deadline:
            return answers
        sleep(POLL_SECONDS)


def read_answers(hub: HubContext, plan: Plan) -> Answers:
    """Who has answered by now. A manifest counts for more than a refusal of an earlier try."""
    answers = Answers()
    prefix = f"{layout.round_prefix(plan.study, plan.server_round)}/updates/"
    for key in hub.store.keys(prefix):
        site, _, name = key.removeprefix(prefix).partition("/")  # a site may write deeper keys: they are no answers
        if site in plan.sites and name == "manifest.json":
            answers.updates.add(site)
        elif site in plan.sites and name == "refusal.json":
            answers.refusals.add(site)
    answers.refusals -= answers.updates
    return answers


def reason_of(hub: HubContext, plan: Plan, site: str, answers: Answers) -> str:
    """Why a site has sent no update."""
    if site not in answers.refusals:
        return "no answer before the deadline"
    try:
        refusal = hub.store.get_record(layout.refusal(plan.study, plan.server_round, site), Refusal)
    except StoreError as error:
        return f"its refusal cannot be read ({type(error).__name__})"
    return f"{refusal.step}: {refusal.reason}"


def checked_update(
    hub: HubContext, plan: Plan, site: str, enrolment: Enrolment | None, shape: Shape
) -> tuple[Manifest, torch.Tensor]:
    """One site's manifest and its update as a flat float32 vector, after every check.

    Raises:
        UpdateRejected: with the first reason found. StoreUnavailable: worth a retry.
    """
    manifest = _manifest(hub, plan, site)
    _check_manifest(manifest, plan, site, enrolment, shape)
    _check_spend(hub, manifest, plan)
    key = layout.update_tensors(plan.study, plan.server_round, site)
    body = _body(hub, key, manifest, site, shape)
    update = flat_update(body, shape, site)
    size = norm(update)
    if not size <= hub.study.rounds.max_update_norm:
        what = "holds NaN or infinity" if size != size or size == float("inf") else f"has norm {size:.3g}"
        raise UpdateRejected(site, f"{what}; the largest norm allowed is {hub.study.rounds.max_update_norm:g}")
    return manifest, update


def _manifest(hub: HubContext, plan: Plan, site: str) -> Manifest:
    try:
        return hub.store.get_record(layout.update_manifest(plan.study, plan.server_round, site), Manifest)
    except StoreUnavailable:
        raise
    except StoreError as error:
        raise UpdateRejected(site, f"manifest: {error}") from None


def _check_manifest(manifest: Manifest, plan: Plan, site: str, enrolment: Enrolment | None, shape: Shape) -> None:
    if enrolment is None:
        raise UpdateRejected(site, "the site is not enrolled, or its enrolment was revoked")
    facts: dict[str, tuple[object, object]] = {
        "study": (manifest.study, plan.study),
        "round": (manifest.server_round, plan.server_round),
        "site": (manifest.site, site),
        "site token": (manifest.site_token == enrolment.token, True),
        "base model": (manifest.base_model_sha256, plan.base_model.sha256),
        "tensors": (manifest.tensors, shape.specs),
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
    if not all(0 <= seconds < float("inf") for seconds in manifest.seconds.values()):
        raise UpdateRejected(site, "the seconds in its manifest are no durations")
    if not is_signed_by(enrolment, manifest.signature, to_json(manifest.model_copy(update={"signature": ""}))):
        raise UpdateRejected(site, "the signature is not the enrolled site's")


def _check_spend(hub: HubContext, manifest: Manifest, plan: Plan) -> None:
    """The manifest must say what the ledger says, and the ledger what the plan costs."""
    site = manifest.site
    try:
        entry = hub.store.get_record(layout.ledger_entry(plan.study, site, plan.server_round), LedgerEntry)
    except ObjectMissing:
        raise UpdateRejected(site, "its privacy spend is not in the ledger") from None
    except StoreUnavailable:
        raise
    except StoreError as error:
        raise UpdateRejected(site, f"its ledger entry cannot be read ({type(error).__name__})") from None
    if entry.spend != manifest.spend or (entry.site, entry.server_round) != (site, plan.server_round):
        raise UpdateRejected(site, "its manifest and its ledger entry disagree on the privacy spend")
    try:
        planned = plan_spend(plan, manifest.spend.releases)
    except BudgetExhausted as error:
        raise UpdateRejected(site, f"its privacy spend: {error}") from None
    if manifest.spend != planned:
        raise UpdateRejected(site, "its privacy spend is not what the plan costs")


def _body(hub: HubContext, key: str, manifest: Manifest, site: str, shape: Shape) -> bytearray:
    """Read the tensors once; never more than the model's own size and a header."""
    try:
        size = hub.store.size(key)
        if size != manifest.num_bytes or size > 4 * shape.num_values + MAX_HEADER:
            raise UpdateRejected(site, f"{size} bytes uploaded, its manifest says {manifest.num_bytes}")
        body = hub.store.get_into(key, bytearray(size))
    except ObjectMissing:
        raise UpdateRejected(site, "a manifest without tensors") from None
    if sha256(body) != manifest.sha256:
        raise UpdateRejected(site, "the tensors' sha256 is not the one in its manifest")
    return body
