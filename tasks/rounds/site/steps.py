"""The steps of a site in a round. Each is one Airflow task; each can be run again without harm."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TypeVar

import torch
from pydantic import BaseModel

from tasks import __version__
from tasks.data.checks.runner import ValidationResult
from tasks.data.reading.patients import Patients
from tasks.errors import ObjectMissing, PharmafedError, RoundRefused, StoreError, StoreUnavailable, Withheld
from tasks.foreign.bounds import SITE_REASON, shorten
from tasks.learning.building import build_model, checked_model
from tasks.learning.evaluation import suppress, validate_model
from tasks.privacy.ledger.ledger import SiteLedger
from tasks.privacy.noise.source import SystemNoise
from tasks.privacy.sanitizer import plan_spend, sanitize, specs_of
from tasks.privacy.secure_sum.records import Roster
from tasks.privacy.secure_sum.records import sha256 as roster_sha256
from tasks.rounds.site.accounted import WITHHELD, paid_for, require_honest_counts
from tasks.rounds.site.context import PlannedRound, SiteContext
from tasks.rounds.site.encryption import Encryption
from tasks.rounds.site.guard import before, no_values_in_errors
from tasks.rounds.site.local_update import local_update
from tasks.rounds.site.masking import Masking
from tasks.rounds.site.round_files import RoundFiles, forget_rounds_before
from tasks.rounds.site.validation import checked_patients, data_version, shown, valid_patients
from tasks.store import layout
from tasks.store.files import alone, write_private
from tasks.store.identity import sign
from tasks.store.objects import to_json
from tasks.store.records.ledger import Spend
from tasks.store.records.report import SiteMetrics
from tasks.store.records.round import Manifest, Plan, Refusal
from tasks.store.weights import Weights, from_bytes, set_parameters, sha256
from tasks.study.channels import Step

Result = TypeVar("Result")


def validate_data(ctx: SiteContext, server_round: int) -> None:
    """Check the site's data against its pin and its suites; what fails is named in the round's record.

    Raises:
        ValidationFailed, DataError: the site is out of this round. StoreUnavailable: worth a retry.
    """

    def work(planned: PlannedRound) -> None:
        _require_asked(ctx, planned.plan)
        result, _ = checked_patients(ctx)
        _tell_validation(ctx, planned.plan, shown(result, promises=planned.plan.privacy.promises))
        result.require()

    _run_step(ctx, server_round, "validate_data", work)


def _tell_validation(ctx: SiteContext, plan: Plan, result: ValidationResult) -> None:
    """Write what came of a site's validation; of data that were mended within the round, what came of them last."""
    key = layout.data_validation(plan.study, plan.server_round, ctx.site)
    try:
        told = ctx.store.get_record(key, ValidationResult)
    except StoreUnavailable:
        raise
    except StoreError:
        told = None
    if told is None or told.checks != result.checks:
        ctx.store.put(key, to_json(result), content_type="application/json")


def train(ctx: SiteContext, server_round: int) -> None:
    """Train from the round's base model and leave the raw update in the site's own folder.

    Where the round is masked, the site then publishes its keys, which puts it up for the roster.

    Raises:
        ConfigError: no round can be made of the model's class. PrivacyError: a model or the ledger is not as it must
            be. No patient was looked at.
        Withheld: training failed; the round is paid for.
    """

    def work(planned: PlannedRound) -> None:
        plan = planned.plan
        _require_asked(ctx, plan)
        files, model, ledger = RoundFiles(ctx.round_dir(server_round)), checked_model(ctx.study), _ledger(ctx)
        models = ctx.cards.models_of(plan, model)
        standing = ledger.read()
        ledger.require_pinned(standing, models.card.ledgers.get(ctx.site))
        plan_spend(plan, standing.next_release(server_round))
        forget_rounds_before(ctx.round_dir(server_round), keep=f"{plan.base_model.server_round:04d}")
        if files.load_release() is None:
            started = time.perf_counter()
            patients, state = valid_patients(ctx), _kept_state(ctx, plan)
            require_honest_counts(plan.privacy, len(patients.train_labels), ctx.site)
            with paid_for(ctx, planned, ledger):
                raw = local_update(model, patients, plan, models.base, models.evaluated, state)
                files.save_raw(raw, _since(started))
        if plan.aggregation == "masks":
            Masking(ctx, planned).publish_keys(standing.num_entries)

    _run_step(ctx, server_round, "train_local", work)


def privatize_and_upload(ctx: SiteContext, server_round: int) -> None:
    """Sanitise the raw update, record the spend, then upload tensors and manifest, in that order.

    The bytes to upload are drawn once and kept: whatever is interrupted, a retry releases these bytes or nothing.

    Raises:
        PrivacyError: the update cannot be made private, masked or paid for; it stays at the site.
        Withheld: the same, and why depends on its patients; the round is paid for.
    """

    def work(planned: PlannedRound) -> None:
        plan, started = planned.plan, time.perf_counter()
        _require_asked(ctx, plan)
        files, version, ledger = RoundFiles(ctx.round_dir(server_round)), data_version(ctx), _ledger(ctx)
        masking = Masking(ctx, planned) if plan.aggregation == "masks" else None
        roster = _joined(masking, plan, ledger)
        spend = plan_spend(plan, ledger.read().next_release(server_round))
        body = files.load_release() or _draw(ctx, planned, files, ledger, spend, masking, roster)
        if masking is not None:
            masking.use_up(sha256(body))
        if not _require_open(ctx, plan, "privatize_and_upload"):
            return
        entry, entry_sha256 = ledger.record(server_round, spend, sha256(body), planned.sha256)
        ctx.store.create(layout.update_tensors(plan.study, server_round, ctx.site), body)
        num_examples, iterations, train_seconds = files.facts()
        manifest = Manifest(
            study=plan.study,
            server_round=plan.server_round,
            site=ctx.site,
            site_token=ctx.token(),
            base_model_sha256=plan.base_model.sha256,
            plan_sha256=planned.sha256,
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

    _run_step(ctx, server_round, "privatize_and_upload", work)


def unmask(ctx: SiteContext, server_round: int) -> None:
    """Help to open the round's sum: tell this site's shares of its masks, or decrypt it, and nothing but the sum.

    Raises:
        PrivacyError: the hub's story is not one that this site may answer; nothing leaves.
    """

    def work(planned: PlannedRound) -> None:
        if planned.plan.aggregation == "masks":
            Masking(ctx, planned).answer()
        else:
            Encryption(ctx, planned.plan).answer()

    _run_step(ctx, server_round, "unmask", work)


def _require_asked(ctx: SiteContext, plan: Plan) -> None:
    """Raises RoundRefused: the hub has left this site out, and its plan says why."""
    if ctx.site not in plan.sites:
        raise RoundRefused(f"site {ctx.site} is left out of round {plan.server_round}: {plan.left_out[ctx.site]}")


def _require_open(ctx: SiteContext, plan: Plan, step: Step) -> bool:
    """Whether there is work left: none for a site whose part is in the record of the closed round.

    Raises:
        RoundRefused: the round is closed without this work, or goes on without this site. Nothing is paid for it.
    """
    settled = ctx.settled(plan.server_round)
    if settled is None:
        return True
    closed, name = settled.status != "selected", f"round {plan.server_round} of {plan.study}"
    is_in = ctx.site in settled.sites
    if not closed and (is_in or step == "validate_global"):
        return True
    if step == "validate_global":
        is_in = ctx.store.exists(layout.site_metrics(plan.study, plan.server_round, ctx.site))
    if is_in:
        print(f"{name} is closed, and this is in its record: nothing is left to do")
        return False
    state = f"is closed ({settled.status})" if closed else "takes no more updates"
    raise RoundRefused(f"{name} {state}, without {step} of site {ctx.site}: the next round is its next chance")


def _ledger(ctx: SiteContext) -> SiteLedger:
    study = ctx.study
    return SiteLedger(ctx.store, study.study, ctx.site, ctx.work_dir, ctx.secrets_dir, study.rounds.total)


def _joined(masking: Masking | None, plan: Plan, ledger: SiteLedger) -> Roster | None:
    """The roster that this site has bound its keys to; None where the round has no masks."""
    if masking is None:
        return None
    roster = masking.roster()
    masking.join(roster, ledger, partial(plan_spend, plan))
    return roster


def _draw(
    ctx: SiteContext,
    planned: PlannedRound,
    files: RoundFiles,
    ledger: SiteLedger,
    spend: Spend,
    masking: Masking | None,
    roster: Roster | None,
) -> bytes:
    """Draw noise and masks over the raw update, and keep the bytes; nothing of it has left yet."""
    plan, noise = planned.plan, SystemNoise()
    base = ctx.cards.models_of(plan, _model(ctx)).base
    raw = files.load_raw()
    kept = RoundFiles(ctx.round_dir(plan.base_model.server_round)).kept("residual")
    mask = masking.prepare(roster) if masking and roster else None
    encrypt = Encryption(ctx, plan).prepare() if plan.aggregation == "ckks" else None
    with paid_for(ctx, planned, ledger):
        release = sanitize(
            raw,
            base,
            plan,
            releases=spend.releases,
            noise=noise,
            mask=mask,
            num_masked=len(roster.members) if roster else 0,
            encrypt=encrypt,
            carried=kept["residual"] if kept and roster is None else None,
        )
        return files.save_release(release)


def validate_global(ctx: SiteContext, server_round: int) -> SiteMetrics | None:
    """Validate the round's model on the site's held-out patients; only what passes the small-cell rule leaves.

    The full figures stay in the site's own folder.
    """

    def work(planned: PlannedRound) -> SiteMetrics:
        plan, started = planned.plan, time.perf_counter()
        card, model = ctx.cards.card_of_round(plan), _model(ctx)
        set_parameters(model, ctx.cards.fetch(card.evaluated_model, model))
        patients = valid_patients(ctx)
        full = _figures(ctx, plan, model, patients, card.evaluated_model.sha256)
        write_private(ctx.round_dir(server_round) / "metrics.json", to_json(full))
        shown = suppress(full, patients.held_out_labels, promises=plan.privacy.promises)
        metrics = shown.model_copy(update={"seconds": _since(started)})
        _create_if_new(ctx, layout.site_metrics(plan.study, server_round, ctx.site), metrics)
        return metrics

    return _run_step(ctx, server_round, "validate_global", work, with_deadline=False)


def _figures(ctx: SiteContext, plan: Plan, model: torch.nn.Module, patients: Patients, sha256_: str) -> SiteMetrics:
    """A model's figures on the held-out patients. Under a privacy mechanism none leaves, and no failure does either."""
    try:
        return validate_model(model, patients.held_out_inputs, patients.held_out_labels, plan, ctx.site, sha256_)
    except Exception:
        if not plan.privacy.promises:
            raise
    return SiteMetrics(
        study=plan.study,
        server_round=plan.server_round,
        site=ctx.site,
        model_sha256=sha256_,
        min_cell=plan.evaluation.min_cell,
        num_examples=len(patients.held_out_labels),
    )


def _run_step(
    ctx: SiteContext,
    server_round: int,
    step: Step,
    work: Callable[[PlannedRound], Result],
    *,
    with_deadline: bool = True,
) -> Result | None:
    """Run a step under both guards; when it fails for good, tell the hub why, so that it need not wait.

    None where the round is closed and has this work in its record.
    """
    torch.set_num_threads(1)
    what = f"{step} of round {server_round} at site {ctx.site}"
    try:
        with no_values_in_errors(step, ctx.site):
            planned = ctx.plan(server_round)
            if not _require_open(ctx, planned.plan, step):
                return None
            if not with_deadline:
                return work(planned)
            _withdraw(ctx, server_round, step)
            with before(_deadline(planned.plan, step), what), alone(ctx.round_dir(server_round)):
                return work(planned)
    except StoreUnavailable:
        raise
    except PharmafedError as error:
        if step != "validate_global" and not isinstance(error, RoundRefused):  # that one is the hub's own word
            refuse(ctx, server_round, step, _told(error))
        raise
    raise AssertionError("unreachable: the guard raises")


def _told(error: PharmafedError) -> str:
    return WITHHELD if isinstance(error, Withheld) else f"{type(error).__name__}: {error}"


def refuse(ctx: SiteContext, server_round: int, step: Step, reason: str) -> None:
    """Tell the hub that this site's part in the round has failed for good.

    Best effort: without it the hub learns the same at the deadline. `reason` holds nothing of a patient's record.
    """
    record = Refusal(
        study=ctx.study.study,
        server_round=server_round,
        site=ctx.site,
        step=step,
        reason=shorten(reason, SITE_REASON),
        run_id=ctx.run_id,
    )
    try:
        _put_refusal(ctx, record)
    except PharmafedError as second:
        print(f"the hub could not be told: {second}")


def _withdraw(ctx: SiteContext, server_round: int, step: Step) -> None:
    """A step that is tried again takes back what an earlier try has refused: the hub waits for the site again."""
    try:
        refusal = ctx.store.get_record(layout.refusal(ctx.study.study, server_round, ctx.site), Refusal)
    except ObjectMissing:
        return
    except StoreUnavailable:
        raise
    except StoreError:  # the hub could not read it either, and would take it for a refusal
        reason = "an earlier try, of which nothing can be read"
        refusal = Refusal(study=ctx.study.study, server_round=server_round, site=ctx.site, step=step, reason=reason)
    if not refusal.withdrawn:
        _put_refusal(ctx, refusal.model_copy(update={"withdrawn": True}))


def _put_refusal(ctx: SiteContext, refusal: Refusal) -> None:
    key = layout.refusal(refusal.study, refusal.server_round, refusal.site)
    ctx.store.put(key, to_json(refusal), content_type="application/json")


def _create_if_new(ctx: SiteContext, key: str, record: BaseModel) -> None:
    """Write a record that a run of this step may have written before; only its timings could differ."""
    if not ctx.store.exists(key):
        ctx.store.create_record(key, record)


def _deadline(plan: Plan, step: Step) -> datetime:
    """Rounds go in phases: who misses the end of one is lost to the next."""
    return plan.end_of(plan.channel.phase_of(step))


def _model(ctx: SiteContext) -> torch.nn.Module:
    """The study's model where `train` has looked at its class already."""
    spec = ctx.study.model
    return build_model(spec.path, len(ctx.study.inputs), spec.options, seed=ctx.study.training.seed)


def _kept_state(ctx: SiteContext, plan: Plan) -> Weights | None:
    """The optimizer's state after the site's previous round, where the study keeps it."""
    if plan.training.optimizer_state == "restart":
        return None
    return RoundFiles(ctx.round_dir(plan.base_model.server_round)).kept("optimizer")


def _since(started: float) -> float:
    """Seconds, to a tenth: what a hub is told of a duration says little about the data."""
    return round(time.perf_counter() - started, 1)
