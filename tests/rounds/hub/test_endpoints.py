"""Rounds of every kind of endpoint on the trial's tables: real steps, masks, a report; nothing but YAML differs."""

from __future__ import annotations

from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest
import torch

from tasks.deploy.finish import publish
from tasks.errors import ConfigError
from tasks.learning.metrics import METRICS, metrics_of
from tasks.privacy.noise.source import SeededNoise
from tasks.rounds.page.store import reports_dir
from tasks.rounds.site import steps
from tasks.simulation.data import read_sites, split_sites
from tasks.simulation.rounds import simulate
from tasks.store import layout
from tasks.store.records.model import ModelCard
from tasks.store.records.report import SiteMetrics
from tasks.store.weights import to_bytes
from tests.rounds.hub.federation import Federation
from tests.rounds.hub.masked_rounds import FIVE, MASKED

TIME = {"name": "skin", "table": "adtte", "where": {"PARAMCD": "TTDE"}, "time": "AVAL"}
TIME |= {"event_when": [{"column": "CNSR", "is": 0}]}
LABELS: dict[str, dict[str, Any]] = {
    "multiclass": {
        "name": "left",
        "task": "multiclass",
        "table": "adsl",
        "column": "COMP24FL",
        "classes": {"completed": ["Y"], "left": ["N"]},
    },
    "regression": {
        "name": "adas",
        "task": "regression",
        "table": "adadas",
        "column": "AVAL",
        "where": {"PARAMCD": "ACTOT", "AVISIT": "Week 24"},
        "minus": {"PARAMCD": "ACTOT", "AVISIT": "Baseline"},
        "reduce": "last",
        "low": -40,
        "high": 40,
    },
    "count": {
        "name": "drugs",
        "task": "count",
        "table": "cm",
        "counted_when": [{"column": "CMDY", "at_least": 2}],
        "most": 20,
        "time_table": "adtte",
        "time_column": "AVAL",
        "time_where": {"PARAMCD": "TTDE"},
        "time_unit": 28,
        "time_most": 200,
    },
    "survival": TIME | {"task": "survival", "until": [28, 56, 112, 168]},
}
#: Figures that the noised sums of each tell.
TOLD = {
    "multiclass": ["accuracy", "balanced_accuracy"],
    "regression": ["mae"],
    "count": ["deviance", "mae"],
    "survival": ["concordance"],
}
MODEL = {"survival": "ProportionalHazards"}


@pytest.fixture(autouse=True)
def _one_noise(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    noise, threads = SeededNoise(bytes(32)), torch.get_num_threads()
    monkeypatch.setattr(steps, "SystemNoise", lambda: noise)
    yield
    torch.set_num_threads(threads)


def run(fed: Federation, study: str) -> ModelCard:
    """One round to its report."""
    plan = fed.open(study)
    assert (fed.masked_round if plan.channel.name == "masks" else fed.run_sites)(study, 1) == {}
    assert len(fed.aggregate(study, 1).chosen) == len(plan.sites)
    fed.validate_global(study, 1, plan.sites)
    closed = fed.close(study, 1)
    assert closed.status == "complete"
    publish(fed.hub(study), closed)
    folder = reports_dir() / study / "0001"
    page = unescape((folder / "report.html").read_text())
    for metric in metrics_of(closed.task)[:2]:
        assert f"{metric.label}, reporting sites" in page
        assert (folder / f"{metric.name}.png").is_file()
    return fed.store().get_record(layout.card(study, 1), ModelCard)


@pytest.mark.parametrize("task", LABELS)
def test_a_masked_round_under_patient_level_privacy(fed: Federation, task: str) -> None:
    """It makes the simulation's model, no site tells a figure, and the noised sums tell how good the first model is."""
    parts = {**MASKED, "privacy": MASKED["privacy"] | {"epsilon": 100}, "rounds": {"total": 1, "min_sites": 4}}
    model = {"path": f"tasks.models:{MODEL.get(task, 'Linear')}", "options": {}}
    study = fed.new_study(sites=FIVE, label=LABELS[task], model=model, **parts)
    card = run(fed, study)
    torch.set_num_threads(1)
    own = fed.hub(study).study
    patients = split_sites(read_sites(own, fed.project), own.evaluation)
    (made,) = simulate(own, patients, 1, noise=SeededNoise(bytes(32)))
    assert to_bytes(made.weights) == fed.store().get(layout.model(study, 1))
    assert made.noised == card.noised
    assert card.noised is not None
    assert [name for name in TOLD[task] if name in card.noised.figures] == TOLD[task]
    assert all(METRICS[name].allows(value) for name, value in card.noised.figures.items())
    for site in FIVE:
        assert fed.store().get_record(layout.site_metrics(study, 1, site), SiteMetrics).figures == {}


def test_cox_in_the_open_and_not_under_patient_level_privacy(fed: Federation) -> None:
    open_ = {"mechanism": "none", "i_accept_no_privacy": True}
    cox = {"label": TIME | {"task": "cox", "cut_off": 182}, "model": {"path": "tasks.models:Linear", "options": {}}}
    study = fed.new_study(sites=FIVE[:3], **cox, privacy=open_, training={"lr": 0.1})
    run(fed, study)
    figures = [fed.store().get_record(layout.site_metrics(study, 1, site), SiteMetrics) for site in FIVE[:3]]
    assert {name for own in figures for name in own.figures} <= {"concordance", "partial_loss"}
    with pytest.raises(ConfigError, match=r"label\.task must be binary or .* with privacy\.mechanism local_dp"):
        fed.open(fed.new_study(sites=FIVE[:3], **cox))


def test_a_table_that_can_hold_no_endpoint_keeps_its_site_out_and_tells_no_value(fed: Federation) -> None:
    label = LABELS["regression"] | {"low": -1, "high": 1}
    study = fed.new_study(sites=FIVE[:3], label=label, model={"path": "tasks.models:Linear", "options": {}})
    fed.open(study)
    failed = fed.run_sites(study, 1)
    assert set(failed) == set(FIVE[:3])
    for error in failed.values():
        assert "column AVAL of table adadas is outside of label.low to label.high" in str(error)
