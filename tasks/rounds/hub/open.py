"""Opening a round: who takes part, from which model, until when. Refuses with a reason that reads well in the UI."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from tasks.errors import (
    BudgetExhausted,
    ObjectExists,
    ObjectMissing,
    PharmafedError,
    RoundRefused,
    StoreUnavailable,
)
from tasks.foreign.bounds import shorten
from tasks.privacy.ledger.spent import spent
from tasks.privacy.sum_statistics import asked_sums
from tasks.rounds.channels.channel import hub_side
from tasks.rounds.hub.card_chain import require_first, require_newest
from tasks.rounds.hub.cards import write_first_card
from tasks.rounds.hub.close import close_round
from tasks.rounds.hub.context import HubContext
from tasks.store import clock, layout
from tasks.store.disk import require_room_for_round
from tasks.store.hub_signature import sign_as_hub
from tasks.store.objects import to_json
from tasks.store.records.model import ModelRef, Pointer
from tasks.store.records.round import Plan, RunRecord
from tasks.store.weights import fixed_sha256, parameters, sha256, to_bytes
from tasks.study.round_terms import deadlines, fewest_sites
from tasks.study.sections import Study


def open_round(hub: HubContext, run_id: str, *, min_sites: int | None = None) -> Plan:
    """Write the plan of the next round, or find the one that this run, or a run that died, has written.

    A plan that was left open is taken up again while its deadline lasts, so that nothing spent on it is lost;
    after that its number is given up and the next one is opened.

    Args:
        hub: the study and the store.
        run_id: the Airflow run that opens the round.
        min_sites: a quorum for this round instead of the study's.

    Raises:
        ConfigError: no round can be made of the study's model.
        RoundRefused: the study is closed, too few sites are enrolled, or this run has had its round.
        BudgetExhausted: fewer sites than the quorum have budget for another round.
    """
    number = hub.last_opened()
    had = _round_of(hub, run_id)
    if had is not None and (had != number or hub.closed_round(number) is not None):
        raise RoundRefused(
            f"run {run_id} has had round {had} of {hub.name}, which is over. A run is one round: trigger a new run"
        )
    left_open = _left_open(hub, number, is_own=had is not None, run_id=run_id)
    plan = left_open or _next_plan(hub, run_id, number + 1, min_sites)
    record = RunRecord(study=hub.name, run_id=run_id, server_round=plan.server_round)
    hub.store.create_record(layout.run(hub.name, run_id), record)
    return plan


def _round_of(hub: HubContext, run_id: str) -> int | None:
    """The round that a run has had: cleared, it has that one again while it is open, and no other under its name."""
    try:
        return hub.store.get_record(layout.run(hub.name, run_id), RunRecord).server_round
    except ObjectMissing:
        return None


def _left_open(hub: HubContext, number: int, *, is_own: bool, run_id: str) -> Plan | None:
    """The newest plan, where it is this run's, opened or taken up by it, or still has time."""
    if number and not hub.store.exists(layout.round_metrics(hub.name, number)):
        plan = hub.plan(number)
        if hub.store.exists(layout.closed(hub.name, number)):  # who closed it died before the record stood
            _close_at_last(hub, plan)
            return None
        if is_own or plan.run_id == run_id or clock.now() < plan.deadline:
            return plan
    return None


def _close_at_last(hub: HubContext, plan: Plan) -> None:
    """Write the record of a round that was being closed; what keeps it from being written stops no other round."""
    try:
        close_round(replace(hub, run_id=plan.run_id), plan.server_round)
    except StoreUnavailable:
        raise
    except Exception as error:  # whatever it is, it would come back at each next round
        told = error if isinstance(error, PharmafedError) else type(error).__name__
        print(f"round {plan.server_round} of {hub.name} has no record, and is given up: {told}")


def _next_plan(hub: HubContext, run_id: str, number: int, min_sites: int | None) -> Plan:
    _refuse_closed(hub)
    model = hub.initial_model()
    require_room_for_round(hub.study, model)
    pointer = _pointer(hub, model)
    plan = _new_plan(hub, number, run_id, pointer, fixed_sha256(model), min_sites)
    try:
        hub.store.create_record(layout.plan(hub.name, number), plan)
    except ObjectExists:  # another run has opened it at the same moment
        return hub.plan(number)
    return plan


def _refuse_closed(hub: HubContext) -> None:
    if hub.study.closed:
        raise RoundRefused(f"study {hub.name} is closed: set `closed: false` in studies/{hub.name}.yaml to go on")


def _new_plan(
    hub: HubContext, number: int, run_id: str, pointer: Pointer, fixed: str | None, min_sites: int | None
) -> Plan:
    study = hub.study
    quorum = min_sites or study.rounds.min_sites
    if quorum < fewest_sites(study, quorum):
        raise RoundRefused(
            f"study {hub.name} {_why(study)}, so a quorum of {quorum} is refused: change that in the study file at "
            "every site, or leave the quorum empty"
        )
    left_out = _left_out(hub)
    sites = tuple(site for site in study.sites if site not in left_out)
    if len(sites) < quorum:
        _refuse_few(hub, quorum, sites, left_out)
    now = clock.now()
    deadline, keys_deadline, upload_deadline = deadlines(study, now)
    plan = Plan(
        study=hub.name,
        study_digest=study.digest,
        server_round=number,
        run_id=run_id,
        opened_at=now,
        deadline=deadline,
        keys_deadline=keys_deadline,
        upload_deadline=upload_deadline,
        sites=sites,
        left_out=left_out,
        min_sites=quorum,
        strict=study.rounds.strict,
        base_model=pointer.model,
        evaluated_model=pointer.evaluated_model,
        fixed_sha256=fixed,
        training=study.training,
        privacy=study.privacy,
        channel=study.channel,
        strategy=study.strategy,
        codec=study.codec,
        evaluation=study.evaluation,
        num_sums=asked_sums(study),
        total_rounds=study.rounds.total,
    )
    return sign_as_hub(plan, hub.secrets_dir)


def _why(study: Study) -> str:
    """Why a quorum of the study has a least value."""
    if study.channel.adds_only:
        return f"hides each update among at least {study.rounds.min_sites} sites (rounds.min_sites)"
    return f"needs {study.strategy.fewest_sites} updates for its strategy {study.strategy.name}"


def _left_out(hub: HubContext) -> dict[str, str]:
    """Sites that cannot take part: not enrolled, or their share of the privacy budget is spent."""
    found = {site: hub.enrolment(site) for site in hub.study.sites}
    reasons = {site: shorten(why) for site, why in found.items() if isinstance(why, str)}
    why_out = hub_side(hub.study.channel).why_out
    others = {site: why_out(hub, site) for site in hub.study.sites if site not in reasons}
    reasons |= {site: shorten(why) for site, why in others.items() if why}
    if not hub.study.privacy.promises:
        return reasons
    for site, entry in spent(hub.store, hub.name).items():
        if entry is None:
            reasons.setdefault(site, f"its ledger is not whole: see `pharmafed privacy spend {hub.name}`")
        elif entry.spend.releases >= hub.study.rounds.total:
            reasons.setdefault(site, f"privacy budget spent: {entry.spend.releases} of {hub.study.rounds.total} rounds")
    return reasons


def _refuse_few(hub: HubContext, quorum: int, sites: tuple[str, ...], left_out: dict[str, str]) -> None:
    reasons = "; ".join(f"{site}: {reason}" for site, reason in left_out.items())
    message = (
        f"study {hub.name}: {len(sites)} of {len(hub.study.sites)} sites can take part, {quorum} are needed ({reasons})"
    )
    if any("budget" in reason for reason in left_out.values()):
        budget = getattr(hub.study.privacy, "epsilon", None)
        raise BudgetExhausted(f"{message}. The total epsilon of {budget} is spent: no more rounds of this study")
    raise RoundRefused(f"{message}. Enrol the missing sites (`pharmafed up` does it locally) or lower the quorum")


def _pointer(hub: HubContext, initial: nn.Module) -> Pointer:
    """The newest model; before the first round, the seeded initial model is written as model 0, with its card."""
    pointer = _where_it_stands(hub)
    if pointer is not None:
        return pointer
    body = to_bytes(parameters(initial))
    ref = ModelRef(server_round=0, key=layout.model(hub.name, 0), sha256=sha256(body))
    hub.store.create(ref.key, body)
    write_first_card(hub, ref)
    pointer = Pointer(study=hub.name, server_round=0, model=ref, evaluated_model=ref)
    try:
        hub.store.replace(layout.latest(hub.name), to_json(pointer), etag=None)
    except ObjectExists:  # another run has written the same, or has gone on since
        return hub.pointer()[0] or pointer
    return pointer


def _where_it_stands(hub: HubContext) -> Pointer | None:
    """The pointer; None before the first round. Raises RoundRefused: it is lost, or behind."""
    pointer, _ = hub.pointer()
    try:
        if pointer is None:
            require_first(hub)
        else:
            require_newest(hub, pointer)
    except RoundRefused:
        moved, _ = hub.pointer()
        if moved == pointer:
            raise
        return moved  # by another run, between our looks
    return pointer
