"""Records as they lie in the store: what an earlier version wrote is read, and is written again with the same bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from pydantic import BaseModel, ValidationError

from tasks.store.objects import to_json
from tasks.store.plans import plan_round
from tasks.store.records.model import ModelCard
from tasks.store.records.report import RoundMetrics, SiteMetrics
from tasks.store.records.round import Plan
from tasks.store.settings import PROJECT
from tasks.study.channels import CHANNELS, PLAIN
from tasks.study.file import load_study
from tests.rounds.page.report_samples import round_metrics

BASE = {"weight": torch.zeros(3)}


@pytest.fixture(scope="module")
def plan() -> dict[str, Any]:
    """A plan behind masks, as its JSON says it."""
    study = load_study(PROJECT / "studies" / "xanomeline_derm56.yaml")
    content: dict[str, Any] = json.loads(to_json(plan_round(study, tuple(study.sites), BASE, BASE, 1)))
    return content


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(to_json(round_metrics(1)))
    return content


def renamed(content: dict[str, Any], new: str) -> dict[str, Any]:
    """The same with another key in the old one's place."""
    return {new if key == "aggregation" else key: value for key, value in content.items()}


def as_stored(content: dict[str, Any]) -> str:
    return json.dumps(content)


def written(record: BaseModel) -> list[tuple[str, Any]]:
    """What is stored of a record, key by key in order."""
    return list(json.loads(to_json(record)).items())


def test_a_plan_is_written_as_it_always_was_so_that_signatures_over_old_ones_hold(plan: dict[str, Any]) -> None:
    keys = list(plan)
    assert plan["aggregation"] == "masks"
    assert keys[keys.index("aggregation") - 1 :][:3] == ["privacy", "aggregation", "evaluation"]
    read = Plan.model_validate_json(as_stored(plan))
    assert read.channel is CHANNELS["masks"]
    assert written(read) == list(plan.items())


@pytest.mark.parametrize("name", CHANNELS)
@pytest.mark.parametrize("key", ["aggregation", "channel"])
def test_records_are_read_under_either_key(key: str, name: str, plan: dict[str, Any], metrics: dict[str, Any]) -> None:
    for kind, content in ((Plan, plan), (RoundMetrics, metrics)):
        then = content | {"aggregation": name}
        read = kind.model_validate_json(as_stored(renamed(then, key)))
        assert read.channel is CHANNELS[name]
        assert written(read) == list(then.items())


@pytest.mark.parametrize("kind", ["plan", "metrics"])
def test_a_record_with_both_keys_is_no_record(kind: str, plan: dict[str, Any], metrics: dict[str, Any]) -> None:
    model, content = {"plan": (Plan, plan), "metrics": (RoundMetrics, metrics)}[kind]
    with pytest.raises(ValidationError, match=r"(?s)1 validation error.*channel.*not permitted"):
        model.model_validate_json(as_stored(content | {"channel": "plain"}))


def test_a_record_that_names_none_went_in_the_open(plan: dict[str, Any], metrics: dict[str, Any]) -> None:
    for kind, content in ((Plan, plan), (RoundMetrics, metrics)):
        less = {key: value for key, value in content.items() if key != "aggregation"}
        assert kind.model_validate_json(as_stored(less)).channel is PLAIN


@pytest.mark.parametrize("value", ["pigeons", "", "Masks", None, 3, ["masks"], {"name": "masks"}, {"masks": 1}])
def test_a_plan_of_a_channel_that_is_not_known_is_no_plan(value: Any, plan: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="must be plain, masks or ckks"):
        Plan.model_validate_json(as_stored(plan | {"aggregation": value}))


def test_a_closed_round_of_a_later_channel_is_read_keeps_its_name_and_promises_nothing(metrics: dict[str, Any]) -> None:
    later = metrics | {"aggregation": "later-0.2"}
    read = RoundMetrics.model_validate_json(as_stored(later))
    assert (read.channel.name, read.channel.hides, read.channel.adds_only) == ("later-0.2", False, False)
    assert written(read) == list(later.items())


@pytest.mark.parametrize("value", ["x" * 1_000_000, "a\nb", "<script>\u202e", None, 3, ["masks"], {"name": "masks"}])
def test_a_closed_round_of_no_channel_is_refused(value: Any, metrics: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RoundMetrics.model_validate_json(as_stored(metrics | {"aggregation": value}))


@pytest.mark.parametrize("figures", [5, None, [1], "auc"])
def test_a_site_s_record_with_earlier_keys_and_no_figures_is_none(figures: object) -> None:
    """A ValidationError, which the hub takes for a record that was not written, and nothing else."""
    content = {"study": "s", "server_round": 1, "site": "701", "model_sha256": "0" * 64, "min_cell": 5}
    with pytest.raises(ValidationError):
        SiteMetrics.model_validate_json(json.dumps(content | {"auc": 0.5, "figures": figures}))
    assert SiteMetrics.model_validate_json(json.dumps(content | {"auc": 0.5})).figures == {"auc": 0.5}


@pytest.mark.parametrize("kind", [Plan, ModelCard])
def test_what_came_later_is_not_written_where_it_says_nothing(kind: type[Plan] | type[ModelCard]) -> None:
    """Sites hash a plan as it is stored, the hub as it writes it again: also one that an earlier version has stored."""
    defaults = {name: kind.model_fields[name].default for name in kind.LATER}
    assert len(defaults) >= 2
    record = kind.model_construct(**defaults)
    assert not kind.LATER & json.loads(to_json(record)).keys()
