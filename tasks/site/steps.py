"""The four steps of a site in a round. Each is one Airflow task; each can be run again without harm."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch
from pydantic import BaseModel

from tasks import __version__, layout
from tasks.enrolment import sign
from tasks.errors import DataError, PharmafedError, StoreUnavailable
from tasks.evaluation import suppress, validate_model
from tasks.files import write_private
from tasks.models import build_model
from tasks.privacy.ledger import SiteLedger
from tasks.privacy.sanitizer import Release, plan_spend, sanitize
from tasks.records import Manifest, ModelCard, Plan, Refusal, SiteMetrics, Step, TensorSpec
from tasks.site.context import SiteContext
from tasks.site.guard import before, no_values_in_errors
from tasks.site.validation import checked_patients, data_version, valid_patients
from tasks.storage import to_json
from tasks.tensors import Weights, fetch_model, from_bytes, set_parameters, sha256, to_bytes
from tasks.training import RawUpdate, train_local

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
    """Train from the round's base model and leave the raw update in the site's own folder."""

    def work(plan: Plan) -> None:
        started = time.perf_counter()
        patients = valid_patients(ctx)
        model = _model(ctx, fetch_model(ctx.store, plan.base_model))
        raw = train_local(
            model,
            patients.train_inputs,
            patients.train_labels,
            plan.training,
            plan.privacy,
            seed=plan.training.seed * 1_000_003 + server_round,
            optimizer_state=_kept_state(ctx, plan),
        )
        _save_raw(ctx, server_round, raw, time.perf_counter() - started)

    _run_step(ctx, server_round, "train_local", work)


def privatize_and_upload(ctx: SiteContext, server_round: int) -> None:
    """Sanitise the raw update, record the spend, then upload tensors and manifest, in that order.

    Raises:
        PrivacyError: the update cannot be made private or paid for; it stays at the site.
    """

    def work(plan: Plan) -> None:
        started = time.perf_counter()
        raw, train_seconds = _load_raw(ctx, server_round)
        base = fetch_model(ctx.store, plan.base_model)
        ledger = SiteLedger(ctx.store, plan.study, ctx.site, ctx.work_dir)
        releases = ledger.releases_before(server_round) + 1
        plan_spend(plan, releases)
        release = sanitize(raw, base, plan, site=ctx.site, releases=releases, secret=ctx.noise_secret())
        release = Release(
            release.tensors,
            ledger.record(server_round, release.spend, release.commitment).spend,
            release.commitment,
        )
        body = to_bytes(release.tensors)
        ctx.store.create(layout.update_tensors(plan.study, server_round, ctx.site), body)
        seconds = {"train_local": train_seconds, "privatize_and_upload": _since(started)}
        manifest = _manifest(ctx, plan, raw, release, body, seconds)
        _create_if_new(ctx, layout.update_manifest(plan.study, server_round, ctx.site), manifest)

    _run_step(ctx, server_round, "privatize_and_upload", work)


def validate_global(ctx: SiteContext, server_round: int) -> SiteMetrics:
    """Validate the round's model on the site's held-out patients; only what passes the small-cell rule leaves.

    The full figures stay in the site's own folder.
    """

    def work(plan: Plan) -> SiteMetrics:
        started = time.perf_counter()
        patients = valid_patients(ctx)
        card = ctx.store.get_record(layout.card(plan.study, server_round), ModelCard)
        model = _model(ctx, fetch_model(ctx.store, card.evaluated_model))
        full = validate_model(
            model, patients.held_out_inputs, patients.held_out_labels, plan, ctx.site, card.evaluated_model.sha256
        )
        (ctx.round_dir(server_round) / "metrics.json").write_bytes(to_json(full))
        metrics = suppress(full, patients.held_out_labels).model_copy(update={"seconds": _since(started)})
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
            with before(plan.deadline, what):
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
    reason = f"{type(error).__name__}: {error}"
    record = Refusal(study=ctx.study.study, server_round=server_round, site=ctx.site, step=step, reason=reason)
    try:
        _create_if_new(ctx, layout.refusal(ctx.study.study, server_round, ctx.site), record)
    except PharmafedError as second:
        print(f"the hub could not be told: {second}")


def _create_if_new(ctx: SiteContext, key: str, record: BaseModel) -> None:
    """Write a record that a run of this step may have written before; only its timings could differ."""
    if not ctx.store.exists(key):
        ctx.store.create_record(key, record)


def _model(ctx: SiteContext, weights: Weights) -> torch.nn.Module:
    spec = ctx.study.model
    model = build_model(spec.path, len(ctx.study.inputs), spec.options, seed=ctx.study.training.seed)
    set_parameters(model, weights)
    return model


def _save_raw(ctx: SiteContext, server_round: int, raw: RawUpdate, seconds: float) -> None:
    folder = ctx.round_dir(server_round)
    tensors = {f"raw.{name}": tensor for name, tensor in raw.tensors.items()}
    tensors["meta"] = torch.tensor([raw.num_examples, raw.local_iterations, round(seconds * 1e6)], dtype=torch.int64)
    write_private(folder / "raw.safetensors", to_bytes(tensors))
    if raw.optimizer_state is not None:
        write_private(folder / "optimizer.safetensors", to_bytes(raw.optimizer_state))


def _load_raw(ctx: SiteContext, server_round: int) -> tuple[RawUpdate, float]:
    path = ctx.round_dir(server_round) / "raw.safetensors"
    if not path.exists():
        raise DataError(f"site {ctx.site} has no trained update of round {server_round}: run train_local first")
    saved = from_bytes(path.read_bytes())
    num_examples, iterations, micros = (int(v) for v in saved.pop("meta"))
    tensors = {name.removeprefix("raw."): tensor for name, tensor in saved.items()}
    return RawUpdate(tensors, num_examples, iterations), micros / 1e6


def _kept_state(ctx: SiteContext, plan: Plan) -> Weights | None:
    """The optimizer's state after the site's previous round, where the study keeps it."""
    path = ctx.round_dir(plan.base_model.server_round) / "optimizer.safetensors"
    if plan.training.optimizer_state == "restart" or not path.exists():
        return None
    return from_bytes(path.read_bytes())


def _manifest(
    ctx: SiteContext, plan: Plan, raw: RawUpdate, release: Release, body: bytes, seconds: dict[str, float]
) -> Manifest:
    manifest = Manifest(
        study=plan.study,
        server_round=plan.server_round,
        site=ctx.site,
        site_token=ctx.token(),
        base_model_sha256=plan.base_model.sha256,
        num_examples=raw.num_examples,
        local_iterations=raw.local_iterations,
        data_version=data_version(ctx),
        code_version=__version__,
        spend=release.spend,
        tensors=tuple(
            TensorSpec(name=name, shape=tuple(tensor.shape), dtype="F32") for name, tensor in release.tensors.items()
        ),
        num_bytes=len(body),
        sha256=sha256(body),
        seconds=seconds,
    )
    return manifest.model_copy(update={"signature": sign(ctx.secrets_dir, to_json(manifest))})


def _since(started: float) -> float:
    return round(time.perf_counter() - started, 3)
