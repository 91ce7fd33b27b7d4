"""Every channel has its two sides, and what a channel does not need it does not do."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tasks.errors import PrivacyError, RoundRefused
from tasks.learning.training import RawUpdate
from tasks.privacy.noise.source import SystemNoise
from tasks.privacy.sanitizer import sanitize
from tasks.rounds.channels.channel import HubChannel, Seal, SiteChannel, SumChannel, hub_channel, hub_side, site_channel
from tasks.rounds.hub.context import HubContext
from tasks.rounds.site.context import PlannedRound, SiteContext
from tasks.store.plans import plan_round
from tasks.store.records.round import Plan
from tasks.store.settings import PROJECT
from tasks.study.channels import CHANNELS
from tasks.study.file import load_study
from tasks.study.sections import Study

NAMES = tuple(CHANNELS)
BASE = {"weight": torch.zeros(3)}


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study(PROJECT / "studies" / "xanomeline_nocomp24.yaml")


def plan(study: Study, name: str) -> Plan:
    return plan_round(study, tuple(study.sites), BASE, BASE, 1).model_copy(update={"channel": CHANNELS[name]})


def at_site(study: Study, name: str, folder: Path) -> SiteChannel:
    """At a site that is connected to nothing: whoever asks the store fails."""
    ctx = SiteContext(next(iter(study.sites)), study, None, PROJECT, folder, folder)
    return site_channel(ctx, PlannedRound(plan(study, name), "0" * 64))


def at_hub(study: Study, name: str) -> HubChannel:
    return hub_channel(HubContext(study, SimpleNamespace()), plan(study, name))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_a_channel_is_a_module_of_its_name_with_two_sides(name: str, study: Study, tmp_path: Path) -> None:
    module = import_module(f"tasks.rounds.channels.{name}")
    assert issubclass(module.Site, SiteChannel)
    assert issubclass(module.Hub, HubChannel)
    assert not inspect.isabstract(module.Hub)
    assert type(at_site(study, name, tmp_path)) is module.Site
    assert type(at_hub(study, name)) is module.Hub is hub_side(CHANNELS[name])


@pytest.mark.parametrize("name", NAMES)
def test_a_channel_does_what_its_phases_say(name: str) -> None:
    """A phase that the DAG has is one that the hub can end; who only adds opens a sum, and sites help to."""
    channel, side = CHANNELS[name], hub_side(CHANNELS[name])
    ends = {"freeze_roster": HubChannel.freeze, "select_updates": HubChannel.select}
    own = {"freeze_roster": side.freeze, "select_updates": side.select}
    in_dag = {phase.hub for phase in channel.phases}
    assert {step for step in ends if own[step] is not ends[step]} == in_dag - {"aggregate"}
    assert issubclass(side, SumChannel) == channel.adds_only
    site = import_module(f"tasks.rounds.channels.{name}").Site
    assert (site.answer is not SiteChannel.answer) == channel.adds_only == ("unmask" in channel.site_steps)
    assert (site.join is not SiteChannel.join) == channel.joins
    assert (site.seal is not SiteChannel.seal) == channel.adds_only


def test_in_the_open_a_site_asks_nobody_and_puts_nothing_over_its_update(study: Study, tmp_path: Path) -> None:
    channel = at_site(study, "plain", tmp_path)
    channel.join(3)
    assert channel.enter(SimpleNamespace(), lambda _: pytest.fail("nothing is paid here")) is None  # type: ignore[arg-type]
    assert channel.seal() == Seal(mask=None, num_masked=0, encrypt=None)
    channel.use_up("0" * 64)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "ask", "words"),
    [
        ("plain", lambda hub: hub.freeze(), "has no roster"),
        ("plain", lambda hub: hub.select(), "has no hidden updates to select"),
        ("ckks", lambda hub: hub.freeze(), "has no roster"),
    ],
)
def test_what_a_round_does_not_have_is_refused_in_words(name: str, ask: Any, words: str, study: Study) -> None:
    with pytest.raises(RoundRefused, match=f"round 1 of {study.study} {words}"):
        ask(at_hub(study, name))


def test_a_site_has_no_sum_to_open_where_there_is_none(study: Study, tmp_path: Path) -> None:
    with pytest.raises(RoundRefused, match="has no sum that a site could open"):
        at_site(study, "plain", tmp_path).answer()


def test_nothing_is_masked_before_the_site_has_joined_a_roster(study: Study, tmp_path: Path) -> None:
    with pytest.raises(PrivacyError, match="masks nothing before it has joined a roster"):
        at_site(study, "masks", tmp_path).seal()


@pytest.mark.parametrize("name", NAMES)
def test_where_the_hub_learns_a_sum_only_nothing_leaves_without_its_seal(name: str, study: Study) -> None:
    raw = RawUpdate({"weight": torch.ones(3)}, 10, 1)

    def leaves() -> set[str]:
        return set(sanitize(raw, BASE, plan(study, name), releases=1, noise=SystemNoise()).tensors)

    if CHANNELS[name].adds_only:
        with pytest.raises(PrivacyError, match="it stays at the site"):
            leaves()
    else:
        assert leaves() == {"weight"}


def test_who_has_published_nothing_is_left_out_of_no_round_that_needs_nothing(study: Study) -> None:
    hub = HubContext(study, SimpleNamespace())  # type: ignore[arg-type]
    for name in ("plain", "ckks"):
        assert hub_side(CHANNELS[name]).why_out(hub, "701") == ""
    assert hub_side(CHANNELS["masks"]).why_out is not HubChannel.why_out


@pytest.mark.parametrize("name", NAMES)
def test_a_phase_that_is_over_takes_no_more(name: str, study: Study) -> None:
    """By the plan's own times, whatever the channel: what a plan has no time for ends with the round."""
    end, keys, upload = (datetime(2026, 11, 24, 2, minute, tzinfo=UTC) for minute in (4, 1, 2))
    planned = plan(study, name).model_copy(update={"deadline": end, "keys_deadline": keys, "upload_deadline": upload})
    assert [planned.end_of(phase) for phase in ("keys", "updates", "unmask", None)] == [keys, upload, end, end]
    bare = planned.model_copy(update={"keys_deadline": None, "upload_deadline": None})
    assert {bare.end_of(phase) for phase in ("keys", "updates", "unmask", None)} == {end}
