"""A round that is over: nothing is worked on, nothing is paid, and what is run again agrees with its record."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import pytest

from tasks.deploy.finish import finish_round
from tasks.errors import PharmafedError, PrivacyError, QuorumMissed, RoundRefused, SiteStepFailed
from tasks.privacy.ledger.spent import spent
from tasks.rounds.hub import collect
from tasks.rounds.hub.aggregate import aggregate
from tasks.rounds.hub.context import HubContext
from tasks.rounds.hub.open import open_round
from tasks.rounds.hub.phases import freeze_roster, select_updates
from tasks.rounds.hub.selection import require_all_in
from tasks.rounds.site import steps
from tasks.rounds.site.context import SiteContext
from tasks.store import layout
from tasks.store.objects import to_json
from tasks.store.records.round import Refusal, Settled
from tests.rounds.hub.federation import FEW, Federation
from tests.rounds.hub.masked_rounds import MASKED

SITE = "717"
OTHERS = tuple(site for site in FEW if site != SITE)


def objects(fed: Federation, study: str) -> dict[str, bytes]:
    return fed.objects(layout.study_prefix(study) + "/")


def releases(fed: Federation, study: str) -> dict[str, int]:
    """How many releases each site has paid for."""
    return {site: entry.spend.releases if entry else -1 for site, entry in spent(fed.store(), study).items()}


def fails_once(fed: Federation, study: str, sites: Iterable[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first steps of a round, in which these sites cannot read their data."""
    broken = set(sites)
    usual = steps.checked_patients

    def check(ctx: SiteContext) -> object:
        if ctx.site in broken:
            raise PharmafedError("the disk is away")
        return usual(ctx)

    with monkeypatch.context() as patch:
        patch.setattr(steps, "checked_patients", check)
        assert fed.run_sites(study, 1).keys() == broken


def test_a_round_that_failed_is_not_worked_on_when_its_cause_is_mended(
    fed: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control is a0aaa6d: all sites paid and uploaded, a model was made, and the record stayed `failed, 0 of 4`."""
    study = fed.new_study()
    fed.open(study)
    fails_once(fed, study, FEW, monkeypatch)
    with pytest.raises(QuorumMissed):
        fed.aggregate(study, 1)
    assert fed.close(study, 1).status == "failed"
    before = objects(fed, study)
    failed = fed.run_sites(study, 1)
    assert failed.keys() == set(FEW)
    assert all(isinstance(error, RoundRefused) and "is closed (failed)" in str(error) for error in failed.values())
    with pytest.raises(RoundRefused, match=r"round 1 of .* is closed: 0 of 4 contributed"):
        fed.aggregate(study, 1)
    assert objects(fed, study) == before
    assert releases(fed, study) == {}
    assert fed.whole_round(study, "next").status == "complete"
    assert fed.hub(study).plan(2).base_model.server_round == 0


def test_a_masked_round_that_failed_is_not_worked_on_either(fed: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    study = fed.new_study(**MASKED)
    fed.open(study)
    fails_once(fed, study, FEW, monkeypatch)
    for step in (freeze_roster, select_updates, aggregate):
        with pytest.raises(PharmafedError):
            step(fed.hub(study), 1)
    fed.close(study, 1)
    before = objects(fed, study)
    assert fed.run_sites(study, 1).keys() == set(FEW)
    for step in (freeze_roster, select_updates, aggregate):
        with pytest.raises(RoundRefused):
            step(fed.hub(study), 1)
    assert objects(fed, study) == before


def test_a_site_that_was_missing_pays_nothing_afterwards(fed: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither when the updates are selected nor when the round is closed. It pays 1 of its budget at a0aaa6d."""
    study = fed.new_study()
    fed.open(study)
    fails_once(fed, study, [SITE], monkeypatch)
    fed.aggregate(study, 1)
    for state in ("takes no more updates", r"is closed \(partial\)"):
        for name in ("validate_data", "train", "privatize_and_upload"):
            with pytest.raises(RoundRefused, match=state):
                fed.run_site(study, 1, SITE, (name,))
        if "closed" not in state:
            fed.validate_global(study, 1, OTHERS)
            assert fed.close(study, 1).status == "partial"
    assert releases(fed, study) == dict.fromkeys(OTHERS, 1)
    assert not fed.store().exists(layout.update_manifest(study, 1, SITE))
    with pytest.raises(RoundRefused, match="without validate_global of site 717"):
        fed.validate_global(study, 1, [SITE])


def test_an_update_that_is_ready_when_the_hub_has_selected_is_not_paid_for(
    fed: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub selects while the site draws its noise: it asks again before the ledger is written."""
    study = fed.new_study()
    fed.open(study)
    assert fed.run_sites(study, 1, OTHERS) == {}
    fed.run_site(study, 1, SITE, ("validate_data", "train"))
    draw = steps._draw

    def slow(*arguments: object) -> bytes:
        body = draw(*arguments)  # type: ignore[arg-type]
        monkeypatch.setattr("tasks.rounds.hub.answers.clock.now", lambda: fed.hub(study).plan(1).deadline)
        fed.aggregate(study, 1)
        return body

    monkeypatch.setattr(steps, "_draw", slow)
    with pytest.raises(RoundRefused, match="takes no more updates"):
        fed.run_site(study, 1, SITE, ("privatize_and_upload",))
    assert releases(fed, study) == dict.fromkeys(OTHERS, 1)


def test_steps_of_a_closed_round_that_are_in_its_record_stay_green(fed: Federation) -> None:
    study = fed.new_study()
    metrics = fed.whole_round(study, "night")
    before = objects(fed, study)
    assert fed.run_sites(study, 1) == {}
    fed.validate_global(study, 1, FEW)
    assert len(fed.aggregate(study, 1).chosen) == len(FEW)
    assert fed.close(study, 1) == metrics
    assert objects(fed, study) == before


# a run is one round


def test_a_run_that_is_cleared_opens_no_second_round(fed: Federation) -> None:
    study = fed.new_study()
    fed.whole_round(study, "night")
    with pytest.raises(RoundRefused, match=r"run night has had round 1 of .* over.*trigger a new run"):
        fed.open(study, "night")
    assert fed.open(study, "next").server_round == 2
    with pytest.raises(RoundRefused, match="run night has had round 1"):
        fed.open(study, "night")
    assert fed.open(study, "next").server_round == 2


def test_a_run_whose_round_was_given_up_takes_up_no_other(fed: Federation) -> None:
    study = fed.new_study()
    fed.open(study, "night")
    fed.set_deadline(study, 1, -1)
    assert fed.open(study, "next").server_round == 2
    with pytest.raises(RoundRefused, match="run night has had round 1"):
        fed.open(study, "night")


def test_a_run_that_took_a_round_up_has_that_one_when_it_is_cleared_late(fed: Federation) -> None:
    """It closes it, and opens no other."""
    study = fed.new_study()
    assert fed.open(study, "night").server_round == 1
    assert fed.open(study, "next").server_round == 1
    fed.set_deadline(study, 1, -1)
    assert fed.open(study, "next").server_round == 1
    assert fed.hub(study).last_opened() == 1


# what a site has refused in an earlier try


def sites_in(study: str, run_id: str) -> list[SiteContext]:
    return [SiteContext.load(study, site, run_id=run_id) for site in FEW]


def all_refuse(study: str, run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run opens the round, and no site's first step works."""
    open_round(HubContext.load(study, run_id), run_id)
    with monkeypatch.context() as patch:
        patch.setattr(steps, "checked_patients", lambda ctx: [][0])
        for ctx in sites_in(study, run_id):
            with pytest.raises(SiteStepFailed):
                steps.validate_data(ctx, 1)


def run(names: Iterable[str], sites: Iterable[SiteContext]) -> None:
    for ctx in sites:
        for name in names:
            getattr(steps, name)(ctx, 1)


@pytest.mark.parametrize("masked", [False, True])
def test_a_refusal_of_an_earlier_run_drops_nobody(
    fed: Federation, monkeypatch: pytest.MonkeyPatch, masked: bool
) -> None:
    """The hub's step begins when one site has answered, while another's step is queued still."""
    study = fed.new_study(**MASKED) if masked else fed.new_study(rounds={"min_sites": len(FEW)})
    all_refuse(study, "night", monkeypatch)
    hub, (late, *others) = HubContext.load(study, "next"), sites_in(study, "next")
    assert open_round(hub, "next").server_round == 1
    names = ("validate_data", "train", *([] if masked else ["privatize_and_upload"]))
    run(names, others)
    queued = threading.Timer(1.0, run, (names, [late]))
    queued.start()
    if masked:
        assert set(freeze_roster(hub, 1).members) == set(FEW)
    else:
        assert {chosen.site for chosen in aggregate(hub, 1).chosen} == set(FEW)
    queued.join()


def test_a_step_that_is_tried_again_withdraws_its_refusal(fed: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    study = fed.new_study()
    fed.open(study)
    fails_once(fed, study, [SITE], monkeypatch)
    key = layout.refusal(study, 1, SITE)
    assert not fed.store().get_record(key, Refusal).withdrawn
    fed.run_site(study, 1, SITE, ("validate_data",))
    assert fed.store().get_record(key, Refusal).withdrawn
    assert "717" in fed.hub(study).plan(1).sites


def test_what_an_earlier_try_said_is_told_of_a_site_that_stays_silent(
    fed: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = fed.new_study()
    fed.open(study)
    fails_once(fed, study, [SITE], monkeypatch)
    fed.run_site(study, 1, SITE, ("validate_data",))
    fed.set_deadline(study, 1, -1)
    missing = fed.aggregate(study, 1).missing
    assert missing == {
        SITE: "no answer before the deadline; an earlier try: validate_data: PharmafedError: the disk is away"
    }


def test_the_grid_is_green_only_where_the_hub_has_taken_every_update(fed: Federation) -> None:
    """A site whose upload is refused has done its steps: all of its tasks are green."""
    study = fed.new_study()
    fed.open(study)
    assert fed.run_sites(study, 1) == {}
    fed.put_tensors(study, 1, SITE, b"something else")
    fed.aggregate(study, 1)
    with pytest.raises(QuorumMissed, match="without 1 sites: 717: rejected: "):
        require_all_in(fed.hub(study), 1)
    whole = fed.new_study()
    assert fed.whole_round(whole, "all").status == "complete"
    require_all_in(fed.hub(whole), 1)


def test_the_record_of_a_failed_round_has_the_reasons_of_its_own_run(
    fed: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = fed.new_study()
    all_refuse(study, "night", monkeypatch)
    with pytest.raises(QuorumMissed):
        finish_round(study, 1, "night")
    metrics = fed.hub(study).closed_round(1)
    assert metrics is not None
    assert {row.reason.split(" at ")[0] for row in metrics.sites} == {"validate_data: SiteStepFailed: validate_data"}


def test_a_round_is_closed_whatever_a_studys_own_model_does_when_it_is_scored(
    fed: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = fed.new_study()
    fed.open(study)
    assert fed.run_sites(study, 1) == {}
    fed.aggregate(study, 1)

    def breaks(*_: object) -> None:
        raise ValueError("no shape")

    monkeypatch.setattr("tasks.rounds.hub.close.pooled_figures", breaks)
    assert fed.close(study, 1).status == "complete"


def test_a_record_that_was_lost_on_its_way_can_be_written_after_the_next_round(fed: Federation) -> None:
    """The pointer has moved on, by a model that came from this one."""
    study = fed.new_study()
    fed.whole_round(study, "one")
    fed.delete(layout.round_metrics(study, 1))
    fed.delete(layout.closed(study, 1))
    fed.set_deadline(study, 1, -1)
    fed.whole_round(study, "two")
    assert fed.close(study, 1).status == "complete"
    assert [metrics.server_round for metrics in fed.hub(study).closed_rounds()] == [1, 2]


def test_a_round_that_was_being_closed_gets_its_record_before_the_next_opens(fed: Federation) -> None:
    study = fed.new_study()
    fed.whole_round(study, "one")
    record = fed.hub(study).closed_round(1)
    fed.delete(layout.round_metrics(study, 1))
    assert fed.open(study, "two").server_round == 2
    again = fed.hub(study).closed_round(1)
    assert record is not None
    assert again is not None
    assert (again.status, again.num_contributors) == (record.status, record.num_contributors)


def test_a_site_that_is_cleared_while_the_hub_checks_updates_pays_nothing(
    fed: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = fed.new_study()
    fed.open(study)
    fails_once(fed, study, [SITE], monkeypatch)
    usual = collect.checked_update
    refused: list[PharmafedError] = []

    def slow(*arguments: object) -> object:
        if not refused:
            try:
                fed.run_site(study, 1, SITE)
            except PharmafedError as error:
                refused.append(error)
        return usual(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("tasks.rounds.channels.plain.checked_update", slow)
    assert fed.aggregate(study, 1).missing.keys() == {SITE}
    assert isinstance(refused[0], RoundRefused)
    assert releases(fed, study) == dict.fromkeys(OTHERS, 1)


@pytest.mark.parametrize("lie", ["unsigned", "of another round"])
def test_whoever_writes_to_the_store_ends_no_round(fed: Federation, lie: str) -> None:
    study = fed.new_study()
    fed.whole_round(study, "one")
    body = fed.store().get(layout.closed(study, 1))
    fed.open(study, "two")
    if lie == "unsigned":
        body = to_json(Settled(study=study, server_round=2, status="complete", sites=FEW))
    fed.store().put(layout.closed(study, 2), body, content_type="application/json")
    with pytest.raises(PrivacyError, match=r"not certified as the hub's|about another round"):
        fed.run_site(study, 2, SITE, ("validate_data",))


def test_a_refusal_that_cannot_be_read_is_withdrawn_too(fed: Federation) -> None:
    study = fed.new_study()
    fed.open(study)
    fed.store().put(layout.refusal(study, 1, SITE), b"{", content_type="application/json")
    fed.run_site(study, 1, SITE, ("validate_data",))
    assert fed.store().get_record(layout.refusal(study, 1, SITE), Refusal).withdrawn
