"""Which updates make a round's model: frozen once, so that a rerun makes the same model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from tasks.errors import ObjectExists, ObjectMissing, QuorumMissed, UpdateRejected
from tasks.foreign.bounds import shorten
from tasks.learning.averaging import weight_of
from tasks.rounds.hub.answers import Answers, read_answers, why_silent
from tasks.rounds.hub.context import HubContext
from tasks.store import layout
from tasks.store.hub_signature import sign_as_hub
from tasks.store.objects import to_json
from tasks.store.records.ledger import Spend
from tasks.store.records.round import Chosen, Manifest, Plan, Selection, Settled


def select(
    hub: HubContext,
    plan: Plan,
    sites: Iterable[str],
    left_out: Mapping[str, str],
    answers: Answers,
    admit: Callable[[str], Manifest],
) -> Selection:
    """Ask `admit` of each site that answered, by name; whom it refuses is missing, with its reason.

    Args:
        sites: who could contribute.
        left_out: who could not, and why.
        admit: checks one site's update and gives its manifest, or raises UpdateRejected.
    """
    missing = dict(left_out)
    chosen: list[Chosen] = []
    for site in sorted(sites):
        if site not in answers.given:
            missing[site] = why_silent(hub, plan, site, answers)
            continue
        try:
            chosen.append(chosen_update(admit(site), plan))
        except UpdateRejected as error:
            missing[site] = shorten(f"rejected: {error.reason}")
    return Selection(
        study=plan.study,
        server_round=plan.server_round,
        run_id=plan.run_id,
        chosen=tuple(chosen),
        missing=missing,
    )


def require_selected(manifest: Manifest, chosen: Chosen) -> None:
    """Raises UpdateRejected: the upload is not the one that was selected."""
    if manifest.sha256 != chosen.sha256:
        raise UpdateRejected(chosen.site, "it is not the update that was selected: it was exchanged since")


def frozen_selection(hub: HubContext, plan: Plan) -> Selection | None:
    """The round's selection, if an earlier run has frozen one."""
    try:
        return hub.store.get_record(layout.selection(plan.study, plan.server_round), Selection)
    except ObjectMissing:
        return None


def freeze_selection(hub: HubContext, plan: Plan, selection: Selection) -> Selection:
    """Write the selection, or give back the one that another run has written at the same moment."""
    try:
        hub.store.create_record(layout.selection(plan.study, plan.server_round), selection)
    except ObjectExists:
        return frozen_selection(hub, plan) or selection
    return selection


def end_uploads(hub: HubContext, plan: Plan, answers: Answers) -> Answers:
    """Tell the sites, before any update is checked, whose the round has: from now on nobody else pays for it.

    Gives the answers of that moment: a site may have uploaded between the last look and the word.
    """
    _tell_uploaded(hub, plan, answers)
    now = read_answers(hub, plan, "updates", answers.asked, answers.given)
    if now.given != answers.given:
        _tell_uploaded(hub, plan, now)
    return now


def _tell_uploaded(hub: HubContext, plan: Plan, answers: Answers) -> None:
    sites = tuple(sorted(answers.given))
    settled = Settled(study=plan.study, server_round=plan.server_round, status="selected", sites=sites)
    key = layout.selected(plan.study, plan.server_round)
    hub.store.put(key, to_json(sign_as_hub(settled, hub.secrets_dir)), content_type="application/json")


def chosen_update(manifest: Manifest, plan: Plan) -> Chosen:
    """One checked update, as the selection records it."""
    return Chosen(
        site=manifest.site,
        sha256=manifest.sha256,
        weight=weight_of(plan.training.weighting, manifest.num_examples, manifest.local_iterations),
        num_examples=manifest.num_examples,
        local_iterations=manifest.local_iterations,
        num_bytes=manifest.num_bytes,
        spend=manifest.spend,
        ledger_sequence=manifest.ledger_sequence,
        ledger_sha256=manifest.ledger_sha256,
        seconds=manifest.seconds,
    )


def require_quorum(plan: Plan, selection: Selection) -> None:
    """Raises QuorumMissed: fewer than `min_sites` are chosen, or one is missing and the study is strict."""
    have, asked = len(selection.chosen), len(selection.chosen) + len(selection.missing)
    reasons = "; ".join(f"{site}: {reason}" for site, reason in sorted(selection.missing.items()))
    if have < plan.min_sites:
        raise QuorumMissed(f"{have} of {asked} contributed, {plan.min_sites} are needed. Missing: {reasons}")
    if plan.strict and selection.missing:
        raise QuorumMissed(f"{have} of {asked} contributed and the study is strict. Missing: {reasons}")


def require_all_in(hub: HubContext, server_round: int) -> None:
    """Raises QuorumMissed: the round has a model, and some site is not in it; says which and why."""
    selection = frozen_selection(hub, hub.plan(server_round))
    missing = selection.missing if selection else {}
    if missing:
        reasons = "; ".join(f"{site}: {reason}" for site, reason in sorted(missing.items()))
        raise QuorumMissed(f"round {server_round} of {hub.name} is without {len(missing)} sites: {reasons}")


def largest_spend(selection: Selection) -> Spend | None:
    """The spend of the contributor that has released most: the study's total so far."""
    return max((chosen.spend for chosen in selection.chosen), key=lambda spend: spend.releases, default=None)
