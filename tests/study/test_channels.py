"""A channel's phases: when each is over, in seconds, and whose task ends it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest

from tasks.store.plans import plan_round
from tasks.store.settings import PROJECT
from tasks.study.channels import CHANNELS, TO_UPLOAD, Channel, HubStep, PhaseName, Step
from tasks.study.file import load_study
from tasks.study.round_terms import deadlines, fewest_sites
from tasks.study.sections import Study

OPENED = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
NO_PRIVACY = {"mechanism": "none", "i_accept_no_privacy": True}
#: Seconds of a round of 1000 after which the hub takes no more keys, no more uploads; and of each of a site's tasks.
CUTS: dict[str, tuple[float | None, float | None]] = {"plain": (None, None), "masks": (600, 850), "ckks": (None, 850)}
ENDS: dict[str, dict[Step, float]] = {
    "plain": {"validate_data": 1000, "train_local": 1000, "privatize_and_upload": 1000},
    "masks": {"validate_data": 600, "train_local": 600, "privatize_and_upload": 850, "unmask": 1000},
    "ckks": {"validate_data": 1000, "train_local": 1000, "privatize_and_upload": 850, "unmask": 1000},
}


def study(channel: str) -> Study:
    content = load_study(PROJECT / "studies" / "xanomeline_nocomp24.yaml").model_dump(by_alias=True, exclude_unset=True)
    content["rounds"] |= {"deadline_seconds": 1000, "min_sites": 8}
    return Study.model_validate(content | {"privacy": NO_PRIVACY, "channel": channel})


def after(seconds: float | None) -> datetime | None:
    return None if seconds is None else OPENED + timedelta(seconds=seconds)


def test_every_channel_that_a_study_may_name_is_known_and_no_other() -> None:
    assert set(CHANNELS) == set(CUTS)


@pytest.mark.parametrize("name", CUTS)
def test_deadlines_are_cut_where_the_phases_end(name: str) -> None:
    assert deadlines(study(name), OPENED) == (after(1000), *map(after, CUTS[name]))


@pytest.mark.parametrize("name", CUTS)
def test_each_of_a_site_s_tasks_has_until_its_phase_ends(name: str) -> None:
    one = study(name)
    plan = plan_round(one, tuple(one.sites), {}, {}, 1)
    deadline, keys, upload = deadlines(one, OPENED)
    plan = plan.model_copy(update={"deadline": deadline, "keys_deadline": keys, "upload_deadline": upload})
    ends = {step: plan.end_of(one.channel.phase_of(step)) for step in one.channel.site_steps}
    assert ends == {step: after(seconds) for step, seconds in ENDS[name].items()}
    assert tuple(ends) == tuple(ENDS[name]), "in this order"


@pytest.mark.parametrize("name", CUTS)
def test_the_hub_waits_for_a_phase_as_long_as_it_lasts(name: str) -> None:
    one = study(name)
    deadline, keys, upload = deadlines(one, OPENED)
    plan = plan_round(one, tuple(one.sites), {}, {}, 1)
    plan = plan.model_copy(update={"deadline": deadline, "keys_deadline": keys, "upload_deadline": upload})
    ends = {phase: plan.end_of(phase) for phase in get_args(PhaseName)}
    assert ends == {"keys": keys or deadline, "updates": upload or deadline, "unmask": deadline}


@pytest.mark.parametrize("channel", CHANNELS.values(), ids=CHANNELS)
def test_phases_are_in_order_and_end_at_the_hub(channel: Channel) -> None:
    """What the DAG is wired from: no phase begins before an earlier one, and the last one makes the model."""
    shares = [phase.until for phase in channel.phases]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert channel.phases[-1].hub == "aggregate"
    hub = [phase.hub for phase in channel.phases]
    assert len(set(hub)) == len(hub)
    assert set(hub) <= set(get_args(HubStep))
    steps = [step for phase in channel.phases for step in phase.site]
    assert steps == sorted(steps, key=channel.site_steps.index)
    assert len(set(steps)) == len(steps)
    assert channel.site_steps[: len(TO_UPLOAD)] == TO_UPLOAD
    assert all(phase.site for phase in channel.phases)


def test_what_each_channel_tells_the_hub() -> None:
    facts = {name: (one.adds_only, one.exact, one.hides, one.joins, one.copies) for name, one in CHANNELS.items()}
    assert facts == {
        "plain": (False, False, False, False, 1),
        "masks": (True, True, True, True, 2),
        "ckks": (True, False, False, False, 14),
    }


@pytest.mark.parametrize(("name", "fewest"), [("plain", 2), ("masks", 8), ("ckks", 8)])
def test_a_run_may_ask_for_fewer_sites_only_where_no_update_is_hidden_among_them(name: str, fewest: int) -> None:
    assert fewest_sites(study(name), 2) == fewest
    assert fewest_sites(study(name)) == 8
    assert fewest_sites(study(name), 9) == 9


def test_a_channel_is_known_by_its_own_name() -> None:
    assert {name: channel.name for name, channel in CHANNELS.items()} == {name: name for name in CUTS}
