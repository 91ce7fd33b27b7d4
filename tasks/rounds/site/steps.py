"""The steps of a site in a round. Each is one Airflow task; each can be run again without harm."""

from __future__ import annotations

import time
from functools import partial
from typing import NamedTuple

import torch
from pydantic import BaseModel

from tasks import __version__
from tasks.data.checks.runner import ValidationResult
from tasks.data.reading.patients import Patients
from tasks.errors import StoreError, StoreUnavailable
from tasks.learning.building import checked_model, study_model
from tasks.learning.evaluation import suppress, validate_model
from tasks.learning.strategies import strategy_of
from tasks.learning.tasks import task_of
from tasks.privacy.ledger.ledger import SiteLedger
from tasks.privacy.noise.source import SystemNoise
from tasks.privacy.sanitizer import plan_spend, sanitize, specs_of
from tasks.rounds.channels.channel import SiteChannel, site_channel
from tasks.rounds.site.accounted import paid_for, require_honest_counts
from tasks.rounds.site.context import PlannedRound, SiteContext
from tasks.rounds.site.kept import kept_state, last_counted, own_layers
from tasks.rounds.site.local_update import local_update
from tasks.rounds.site.personal import PersonalFiles, personal_model
from tasks.rounds.site.round_files import RoundFiles, forget_rounds_before
from tasks.rounds.site.running import require_asked, require_open, run_step
from tasks.rounds.site.validation import checked_patients, data_version, shown, valid_patients
from tasks.store import layout
from tasks.store.files import write_private
from tasks.store.identity import sign
from tasks.store.objects import to_json
from tasks.store.records.ledger import LedgerEntry, Spend
from tasks.store.records.model import ModelCard, ModelRef
from tasks.store.records.report import SiteMetrics
from tasks.store.records.round import Manifest, Plan
from tasks.store.weights import Weights, from_bytes, set_parameters, sha256, to_bytes


class Upload(NamedTuple):
    """Bytes that may leave: of which data, among whom, and the entry that pays for them, with its sha256."""

    body: bytes
    data_version: str
    roster_sha256: str | None
    paid: tuple[LedgerEntry, str]


def validate_data(ctx: SiteContext, server_round: int) -> None:
    """Check the site's data against its pin and its suites; what fails is named in the round's record.

    Raises:
        ValidationFailed, DataError: the site is out of this round. StoreUnavailable: worth a retry.
    """

    def work(planned: PlannedRound) -> None:
        require_asked(ctx, planned.plan)
        result, _ = checked_patients(ctx)
        _tell_validation(ctx, planned.plan, shown(result, promises=planned.plan.privacy.promises))
        result.require()

    run_step(ctx, server_round, "validate_data", work)


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

    Where the channel needs it, the site is then put up for the round: behind masks, by its keys for the roster.

    Raises:
        ConfigError: no round can be made of the model's class. PrivacyError: a model or the ledger is not as it must
            be. No patient was looked at.
        Withheld: training failed; the round is paid for.
    """

    def work(planned: PlannedRound) -> None:
        plan = planned.plan
        require_asked(ctx, plan)
        files, model, ledger = RoundFiles(ctx.round_dir(server_round)), checked_model(ctx.study), _ledger(ctx)
        models = ctx.cards.models_of(plan, model)
        standing = ledger.read()
        ledger.require_pinned(standing, models.card.ledgers.get(ctx.site))
        plan_spend(plan, standing.next_release(server_round))
        counted = last_counted(ctx, models.card, standing)
        forget_rounds_before(ctx.round_dir(server_round), f"{plan.base_model.server_round:04d}", f"{counted:04d}")
        if files.load_release() is None:
            started = time.perf_counter()
            state = kept_state(ctx, plan, models, counted)
            patients = valid_patients(ctx)
            require_honest_counts(plan.privacy, len(patients.train_labels), ctx.site)
            with paid_for(ctx, planned, ledger):
                raw = local_update(
                    task_of(ctx.study.label), model, patients, plan, models.base, models.evaluated, state
                )
                files.save_raw(raw, _since(started))
        site_channel(ctx, planned).join(standing.num_entries)

    run_step(ctx, server_round, "train_local", work)


def privatize_and_upload(ctx: SiteContext, server_round: int) -> None:
    """Sanitise the raw update, record the spend, then upload tensors and manifest, in that order.

    The bytes to upload are drawn once and kept: whatever is interrupted, a retry releases these bytes or nothing.

    Raises:
        PrivacyError: the update cannot be made private, masked or paid for; it stays at the site.
        Withheld: the same, and why depends on its patients; the round is paid for.
    """

    def work(planned: PlannedRound) -> None:
        plan, started = planned.plan, time.perf_counter()
        require_asked(ctx, plan)
        files, version, ledger = RoundFiles(ctx.round_dir(server_round)), data_version(ctx), _ledger(ctx)
        channel = site_channel(ctx, planned)
        roster = channel.enter(ledger, partial(plan_spend, plan))
        spend = plan_spend(plan, ledger.read().next_release(server_round))
        body = files.load_release() or _draw(ctx, planned, files, ledger, spend, channel)
        channel.use_up(sha256(body))
        if not require_open(ctx, plan, "privatize_and_upload"):
            return
        paid = ledger.record(server_round, spend, sha256(body), planned.sha256)
        ctx.store.create(layout.update_tensors(plan.study, server_round, ctx.site), body)
        manifest = _manifest(ctx, planned, files, Upload(body, version, roster, paid), started)
        _create_if_new(ctx, layout.update_manifest(plan.study, server_round, ctx.site), manifest)
        files.forget_raw()

    run_step(ctx, server_round, "privatize_and_upload", work)


def unmask(ctx: SiteContext, server_round: int) -> None:
    """Help to open the round's sum: tell this site's shares of its masks, or decrypt it, and nothing but the sum.

    Raises:
        PrivacyError: the hub's story is not one that this site may answer; nothing leaves.
    """

    def work(planned: PlannedRound) -> None:
        site_channel(ctx, planned).answer()

    run_step(ctx, server_round, "unmask", work)


def _ledger(ctx: SiteContext) -> SiteLedger:
    study = ctx.study
    return SiteLedger(ctx.store, study.study, ctx.site, ctx.work_dir, ctx.secrets_dir, study.rounds.total)


def _draw(
    ctx: SiteContext, planned: PlannedRound, files: RoundFiles, ledger: SiteLedger, spend: Spend, channel: SiteChannel
) -> bytes:
    """Draw noise, and what the channel puts over the raw update, and keep the bytes; nothing of it has left yet."""
    plan, noise = planned.plan, SystemNoise()
    base = strategy_of(plan.strategy).sent(ctx.cards.models_of(plan, study_model(ctx.study)).base)
    raw = files.load_raw()
    kept = RoundFiles(ctx.round_dir(plan.base_model.server_round)).kept("residual")
    seal = channel.seal()
    with paid_for(ctx, planned, ledger):
        release = sanitize(
            raw,
            base,
            plan,
            releases=spend.releases,
            noise=noise,
            mask=seal.mask,
            num_masked=seal.num_masked,
            encrypt=seal.encrypt,
            carried=kept,
        )
        return files.save_release(release)


def _manifest(ctx: SiteContext, planned: PlannedRound, files: RoundFiles, upload: Upload, started: float) -> Manifest:
    """What the site says of an upload, signed."""
    plan, body, (entry, entry_sha256) = planned.plan, upload.body, upload.paid
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
        data_version=upload.data_version,
        code_version=__version__,
        spend=entry.spend,
        ledger_sequence=entry.sequence,
        ledger_sha256=entry_sha256,
        roster_sha256=upload.roster_sha256,
        tensors=specs_of(from_bytes(body)),
        num_bytes=len(body),
        sha256=sha256(body),
        seconds={"train_local": train_seconds, "privatize_and_upload": _since(started)},
    )
    return manifest.model_copy(update={"signature": sign(ctx.secrets_dir, to_json(manifest))})


def validate_global(ctx: SiteContext, server_round: int) -> SiteMetrics | None:
    """Validate the round's model on the site's held-out patients; only what passes the small-cell rule leaves.

    The full figures stay in the site's own folder.
    """

    def work(planned: PlannedRound) -> SiteMetrics:
        plan, started = planned.plan, time.perf_counter()
        card, model = ctx.cards.card_of_round(plan), study_model(ctx.study)
        set_parameters(model, _validated(ctx, plan, card, model))
        patients = valid_patients(ctx)
        full = _figures(ctx, plan, model, patients, card.evaluated_model.sha256)
        write_private(ctx.round_dir(server_round) / "metrics.json", to_json(full))
        shown = suppress(full, task_of(ctx.study.label), patients.held_out_labels, promises=plan.privacy.promises)
        metrics = shown.model_copy(update={"seconds": _since(started)})
        _create_if_new(ctx, layout.site_metrics(plan.study, server_round, ctx.site), metrics)
        if plan.strategy.personal:
            _personalise(ctx, plan, model, patients, card.evaluated_model)
        return metrics

    return run_step(ctx, server_round, "validate_global", work, with_deadline=False)


def _validated(ctx: SiteContext, plan: Plan, card: ModelCard, model: torch.nn.Module) -> Weights:
    """The global model, with the layers that the site has for itself, where the strategy leaves it some."""
    weights = ctx.cards.fetch(card.evaluated_model, model)
    if not plan.strategy.keeps_layers:
        return weights
    return own_layers(ctx, plan, weights, last_counted(ctx, card, _ledger(ctx).read()))


def _figures(ctx: SiteContext, plan: Plan, model: torch.nn.Module, patients: Patients, sha256_: str) -> SiteMetrics:
    """A model's figures on the held-out patients. Under a privacy mechanism none leaves, and no failure does either."""
    try:
        return validate_model(
            task_of(ctx.study.label), model, patients.held_out_inputs, patients.held_out_labels, plan, ctx.site, sha256_
        )
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


def _personalise(ctx: SiteContext, plan: Plan, model: torch.nn.Module, patients: Patients, ref: ModelRef) -> None:
    """Train the site's own model, and write what it is worth, in the site's own folder; nothing of it leaves."""
    files, weights = PersonalFiles(ctx.work_dir, plan.study), ctx.cards.fetch(ref, model)
    own = files.before(plan.server_round, weights)
    try:
        made = personal_model(task_of(ctx.study.label), model, patients, plan, weights, own)
    except Exception:
        if not plan.privacy.promises:
            raise
        return  # that it fails would tell of the site's patients
    files.keep(plan.server_round, made)
    set_parameters(model, made)
    figures = _figures(ctx, plan, model, patients, sha256(to_bytes(made)))
    write_private(ctx.round_dir(plan.server_round) / "personal.json", to_json(figures))


def _create_if_new(ctx: SiteContext, key: str, record: BaseModel) -> None:
    """Write a record that a run of this step may have written before; only its timings could differ."""
    if not ctx.store.exists(key):
        ctx.store.create_record(key, record)


def _since(started: float) -> float:
    """Seconds, to a tenth: what a hub is told of a duration says little about the data."""
    return round(time.perf_counter() - started, 1)
