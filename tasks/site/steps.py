"""The steps of a site in a round. Each is one Airflow task; each can be run again without harm."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TypeVar

import torch
from pydantic import BaseModel

from tasks import __version__, layout
from tasks.bounds import SITE_REASON, shorten
from tasks.enrolment import sign
from tasks.errors import PharmafedError, StoreUnavailable
from tasks.evaluation import suppress, validate_model
from tasks.files import alone
from tasks.models import build_model
from tasks.privacy.ledger import SiteLedger
from tasks.privacy.noise import SystemNoise
from tasks.privacy.sanitizer import Release, plan_spend, sanitize, specs_of
from tasks.privacy.secure_sum.records import Roster
from tasks.privacy.secure_sum.records import sha256 as roster_sha256
from tasks.records import Manifest, ModelCard, Plan, Refusal, SiteMetrics, Step
from tasks.site.context import SiteContext
from tasks.site.encryption import Encryption
from tasks.site.guard import before, no_values_in_errors
from tasks.site.local_update import local_update
from tasks.site.masking import Masking
from tasks.site.round_files import RoundFiles, forget_rounds_before
from tasks.site.validation import checked_patients, data_version, valid_patients
from tasks.storage import to_json
from tasks.tensors import Weights, fetch_model, from_bytes, set_parameters, sha256

Result = TypeVar("Result")


def validate_data(ctx: SiteContext, server_round: int) -> None:
    """Check the site's data against its pin and its suites; what fails is named in the round's record.

    Raises:
        ValidationFailed, DataError: the site is out of this round. StoreUnavailable: worth a retry.
    """

    def work(plan: Plan) -> None:
        result, _ = checked_patients(ctx)
        _create_if_new(ctx, layout.data_validation(plan.study, server_round, ctx.site), result)
        result.require()

    _run_step(ctx, server_round, "validate_data", work)


def train(ctx: SiteContext, server_round: int) -> None:
    """Train from the round's base model and leave the raw update in the site's own folder.

    Where the round is masked, the site then publishes its keys, which puts it up for the roster.
    """

    def work(plan: Plan) -> None:
        started = time.perf_counter()
        forget_rounds_before(ctx.round_dir(server_round), keep=f"{plan.base_model.server_round:04d}")
        files = RoundFiles(ctx.round_dir(server_round))
        if files.load_release() is None:
            base = fetch_model(ctx.store, plan.base_model)
            evaluated = fetch_model(ctx.store, plan.evaluated_model) if plan.evaluation.score_bins else base
            raw = local_update(_model(ctx), valid_patients(ctx), plan, base, evaluated, _kept_state(ctx, plan))
            files.save_raw(raw, time.perf_counter() - started)
        if plan.aggregation == "masks":
            Masking(ctx, plan).publish_keys()

    _run_step(ctx, server_round, "train_local", work)


def privatize_and_upload(ctx: SiteContext, server_round: int) -> None:
    """Sanitise the raw update, record the spend, then upload tensors and manifest, in that order.

    The bytes to upload are drawn once and kept: whatever is interrupted, a retry releases these bytes or nothing.

    Raises:
        PrivacyError: the update cannot be made private, masked or paid for; it stays at the site.
    """

    def work(plan: Plan) -> None:
        started = time.perf_counter()
        files, version = RoundFiles(ctx.round_dir(server_round)), data_version(ctx)
        roster = Masking(ctx, plan).roster() if plan.aggregation == "masks" else None
        ledger = SiteLedger(ctx.store, plan.study, ctx.site, ctx.work_dir, ctx.secrets_dir)
        spend = plan_spend(plan, ledger.next_release(server_round))
        body = files.load_release() or files.save_release(_release(ctx, plan, files, spend.releases, roster))
        entry, entry_sha256 = ledger.record(server_round, spend, sha256(body))
        ctx.store.create(layout.update_tensors(plan.study, server_round, ctx.site), body)
        num_examples, iterations, train_seconds = files.facts()
        manifest = Manifest(
            study=plan.study,
            server_round=plan.server_round,
            site=ctx.site,
            site_token=ctx.token(),
            base_model_sha256=plan.base_model.sha256,
            num_examples=num_examples,
            local_iterations=iterations,
            data_version=version,
            code_version=__version__,
            spend=entry.spend,
            ledger_sequence=entry.sequence,
            ledger_sha256=entry_sha256,
            roster_sha256=roster_sha256(roster) if roster else None,
            tensors=specs_of(from_bytes(body)),
            num_bytes=len(body),
            sha256=sha256(body),
            seconds={"train_local": train_seconds, "privatize_and_upload": _since(started)},
        )
        signed = manifest.model_copy(update={"signature": sign(ctx.secrets_dir, to_json(manifest))})
        _create_if_new(ctx, layout.update_manifest(plan.study, server_round, ctx.site), signed)
        files.forget_raw()
        if roster is not None:
            Masking(ctx, plan).forget_secrets()

    _run_step(ctx, server_round, "privatize_and_upload", work)


def unmask(ctx: SiteContext, server_round: int) -> None:
    """Help to open the round's sum: tell this site's shares of its masks, or decrypt it, and nothing but the sum.

    Raises:
        PrivacyError: the hub's story is not one that this site may answer; nothing leaves.
    """

    def work(plan: Plan) -> None:
        (Masking if plan.aggregation == "masks" else Encryption)(ctx, plan).answer()

    _run_step(ctx, server_round, "unmask", work)


def _release(ctx: SiteContext, plan: Plan, files: RoundFiles, releases: int, roster: Roster | None) -> Release:
    """Draw noise and masks over the raw update; nothing of it has left yet."""
    raw, base = files.load_raw(), fetch_model(ctx.store, plan.base_model)
    noise = SystemNoise()
    if roster is None:
        kept = RoundFiles(ctx.round_dir(plan.base_model.server_round)).kept("residual")
        carried = kept["residual"] if kept else None
        encrypt = Encryption(ctx, plan).encrypt if plan.aggregation == "ckks" else None
        return sanitize(raw, base, plan, releases=releases, noise=noise, carried=carried, encrypt=encrypt)
    masking = Masking(ctx, plan)
    masking.join(roster)
    mask = partial(masking.mask, roster)
    return sanitize(raw, base, plan, releases=releases, noise=noise, mask=mask, num_masked=len(roster.members))


def validate_global(ctx: SiteContext, server_round: int) -> SiteMetrics:
    """Validate the round's model on the site's held-out patients; only what passes the small-cell rule leaves.

    The full figures stay in the site's own folder.
    """

    def work(plan: Plan) -> SiteMetrics:
        started = time.perf_counter()
        patients = valid_patients(ctx)
        card = ctx.store.get_record(layout.card(plan.study, server_round), ModelCard)
        model = _model(ctx)
        set_parameters(model, fetch_model(ctx.store, card.evaluated_model))
        full = validate_model(
            model, patients.held_out_inputs, patients.held_out_labels, plan, ctx.site, card.evaluated_model.sha256
        )
        (ctx.round_dir(server_round) / "metrics.json").write_bytes(to_json(full))
        shown = suppress(full, patients.held_out_labels, plan.privacy.mechanism)
        metrics = shown.model_copy(update={"seconds": _since(started)})
        _create_if_new(ctx, layout.site_metrics(plan.study, server_round, ctx.site), metrics)
        return metrics

    return _run_step(ctx, server_round, "validate_global", work, with_deadline=False)


def _run_step(
    ctx: SiteContext, server_round: int, step: Step, work: Callable[[Plan], Result], *, with_deadline: bool = True
) -> Result:
    """Run a step under both guards; when it fails for good, tell the hub why, so that it need not wait."""
    torch.set_num_threads(1)
    what = f"{step} of round {server_round} at site {ctx.site}"
    try:
        with no_values_in_errors(step, ctx.site):
            plan = ctx.plan(server_round)
            if not with_deadline:
                return work(plan)
            with before(_deadline(plan, step), what), alone(ctx.round_dir(server_round)):
                return work(plan)
    except StoreUnavailable:
        raise
    except PharmafedError as error:
        if step != "validate_global":
            _refuse(ctx, server_round, step, error)
        raise
    raise AssertionError("unreachable: the guard raises")


def _refuse(ctx: SiteContext, server_round: int, step: Step, error: PharmafedError) -> None:
    """Best effort: without it the hub learns the same at the deadline."""
    reason = shorten(f"{type(error).__name__}: {error}", SITE_REASON)
    record = Refusal(study=ctx.study.study, server_round=server_round, site=ctx.site, step=step, reason=reason)
    try:
        _create_if_new(ctx, layout.refusal(ctx.study.study, server_round, ctx.site), record)
    except PharmafedError as second:
        print(f"the hub could not be told: {second}")


def _create_if_new(ctx: SiteContext, key: str, record: BaseModel) -> None:
    """Write a record that a run of this step may have written before; only its timings could differ."""
    if not ctx.store.exists(key):
        ctx.store.create_record(key, record)


def _deadline(plan: Plan, step: Step) -> datetime:
    """Masked rounds go in phases: who misses the end of one is lost to the next."""
    if step in ("validate_data", "train_local"):
        return plan.keys_deadline or plan.deadline
    return (plan.upload_deadline if step == "privatize_and_upload" else None) or plan.deadline


def _model(ctx: SiteContext) -> torch.nn.Module:
    spec = ctx.study.model
    return build_model(spec.path, len(ctx.study.inputs), spec.options, seed=ctx.study.training.seed)


def _kept_state(ctx: SiteContext, plan: Plan) -> Weights | None:
    """The optimizer's state after the site's previous round, where the study keeps it."""
    if plan.training.optimizer_state == "restart":
        return None
    return RoundFiles(ctx.round_dir(plan.base_model.server_round)).kept("optimizer")


def _since(started: float) -> float:
    return round(time.perf_counter() - started, 3)
