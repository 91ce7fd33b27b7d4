"""From the sites' updates to the round's model and its card."""

from __future__ import annotations

from datetime import UTC, datetime

from tasks import __version__, layout
from tasks.aggregation import Shape, StreamingMean, add_to, running_mean, weight_of
from tasks.errors import ObjectMissing, QuorumMissed, UpdateRejected
from tasks.hub.collect import Answers, checked_update, read_answers, reason_of, wait_for_answers
from tasks.hub.context import HubContext
from tasks.records import Chosen, Enrolment, Manifest, ModelCard, ModelRef, Plan, Selection, Spend
from tasks.tensors import Weights, fetch_model, sha256, to_bytes

LIMITS = (
    "A research model on one small trial. It must not guide the care of a patient. Its figures rest on few held-out "
    "patients, so they move by several hundredths from one split to the next."
)


def aggregate(hub: HubContext, server_round: int) -> Selection:
    """Wait for the sites, average what passes every check, write model and card.

    A rerun finds the selection of the first run and makes the very same model again.

    Raises:
        QuorumMissed: fewer than `min_sites` valid updates, or one is missing and the study is strict.
        StoreUnavailable: worth a retry.
    """
    plan = hub.plan(server_round)
    frozen = _frozen(hub, plan)
    answers = wait_for_answers(hub, plan) if frozen is None else read_answers(hub, plan)
    base = fetch_model(hub.store, plan.base_model)
    mean = StreamingMean(Shape.of(base))
    selection = _average(hub, plan, answers, frozen, mean)
    _require_quorum(plan, selection)
    hub.store.create_record(layout.selection(plan.study, server_round), selection)
    _write_model(hub, plan, selection, add_to(base, mean.mean()))
    return selection


def _frozen(hub: HubContext, plan: Plan) -> Selection | None:
    try:
        return hub.store.get_record(layout.selection(plan.study, plan.server_round), Selection)
    except ObjectMissing:
        return None


def _average(hub: HubContext, plan: Plan, answers: Answers, frozen: Selection | None, mean: StreamingMean) -> Selection:
    """One pass over the updates, by site name, holding one at a time."""
    enrolments = hub.enrolments()
    if frozen is not None:
        for chosen in frozen.chosen:
            _add(hub, plan, chosen.site, enrolments, mean, selected=chosen)
        return frozen
    missing = dict(plan.left_out)
    chosen_updates: list[Chosen] = []
    for site in sorted(plan.sites):
        if site not in answers.updates:
            missing[site] = reason_of(hub, plan, site, answers)
            continue
        try:
            chosen_updates.append(_add(hub, plan, site, enrolments, mean))
        except UpdateRejected as error:
            missing[site] = f"rejected: {error.reason}"
    return Selection(
        study=plan.study,
        server_round=plan.server_round,
        run_id=plan.run_id,
        chosen=tuple(chosen_updates),
        missing=missing,
    )


def _add(
    hub: HubContext,
    plan: Plan,
    site: str,
    enrolments: dict[str, Enrolment],
    mean: StreamingMean,
    *,
    selected: Chosen | None = None,
) -> Chosen:
    """Check one update and add it; it is freed on return, before the next is read. Raises UpdateRejected."""
    manifest, update = checked_update(hub, plan, site, enrolments.get(site), mean.shape)
    if selected is not None and manifest.sha256 != selected.sha256:
        raise UpdateRejected(site, "it is not the update that was selected: it was exchanged since")
    chosen = selected or _chosen(manifest, plan)
    mean.add(update, chosen.weight)
    return chosen


def _chosen(manifest: Manifest, plan: Plan) -> Chosen:
    return Chosen(
        site=manifest.site,
        sha256=manifest.sha256,
        weight=weight_of(plan.training.weighting, manifest.num_examples, manifest.local_iterations),
        num_examples=manifest.num_examples,
        local_iterations=manifest.local_iterations,
        num_bytes=manifest.num_bytes,
        spend=manifest.spend,
        seconds=manifest.seconds,
    )


def _require_quorum(plan: Plan, selection: Selection) -> None:
    have, asked = len(selection.chosen), len(selection.chosen) + len(selection.missing)
    reasons = "; ".join(f"{site}: {reason}" for site, reason in sorted(selection.missing.items()))
    if have < plan.min_sites:
        raise QuorumMissed(f"{have} of {asked} contributed, {plan.min_sites} are needed. Missing: {reasons}")
    if plan.strict and selection.missing:
        raise QuorumMissed(f"{have} of {asked} contributed and the study is strict. Missing: {reasons}")


def _write_model(hub: HubContext, plan: Plan, selection: Selection, weights: Weights) -> None:
    model = _put_model(hub, layout.model(plan.study, plan.server_round), plan.server_round, weights)
    evaluated, count = _averaged(hub, plan, weights, model)
    hub.store.create_record(
        layout.card(plan.study, plan.server_round), _card(hub, plan, selection, model, evaluated, count)
    )


def _put_model(hub: HubContext, key: str, server_round: int, weights: Weights) -> ModelRef:
    body = to_bytes(weights)
    hub.store.create(key, body)
    return ModelRef(server_round=server_round, key=key, sha256=sha256(body))


def _averaged(hub: HubContext, plan: Plan, weights: Weights, model: ModelRef) -> tuple[ModelRef, int]:
    """The model that sites validate: the iterate, or the mean of the iterates of the budget's second half."""
    in_second_half = 2 * plan.server_round > plan.total_rounds
    if plan.training.average_iterates == "none" or not in_second_half:
        return model, 0
    try:
        before = hub.store.get_record(layout.card(plan.study, plan.base_model.server_round), ModelCard)
    except ObjectMissing:
        return model, 1
    if before.averaged_rounds == 0:
        return model, 1
    mean = running_mean(fetch_model(hub.store, before.evaluated_model), before.averaged_rounds, weights)
    ref = _put_model(hub, layout.averaged_model(plan.study, plan.server_round), plan.server_round, mean)
    return ref, before.averaged_rounds + 1


def _card(
    hub: HubContext, plan: Plan, selection: Selection, model: ModelRef, evaluated: ModelRef, averaged_rounds: int
) -> ModelCard:
    return ModelCard(
        study=plan.study,
        title=hub.study.title,
        study_digest=plan.study_digest,
        server_round=plan.server_round,
        created_at=_created_at(hub, plan),
        model=model,
        evaluated_model=evaluated,
        averaged_rounds=averaged_rounds,
        base_model=plan.base_model,
        architecture=f"{hub.study.model.path}({hub.study.model.options or ''})",
        inputs=tuple(hub.study.input_names),
        contributors={chosen.site: chosen.weight for chosen in selection.chosen},
        missing=selection.missing,
        spend=largest_spend(selection),
        code_version=__version__,
        intended_use=hub.study.description.strip(),
        limits=LIMITS,
    )


def _created_at(hub: HubContext, plan: Plan) -> datetime:
    """Now; or, on a rerun, when the card was first written, so that the card stays the same bytes."""
    try:
        return hub.store.get_record(layout.card(plan.study, plan.server_round), ModelCard).created_at
    except ObjectMissing:
        return datetime.now(UTC)


def largest_spend(selection: Selection) -> Spend | None:
    """The spend of the contributor that has released most: the study's total so far."""
    return max((chosen.spend for chosen in selection.chosen), key=lambda spend: spend.releases, default=None)
