"""Rounds with a model of one's own: right from hub to site, or refused before the round has a plan."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load

from tasks.errors import ConfigError, PrivacyError
from tasks.learning.building import _look_at
from tasks.privacy.noise.source import SeededNoise
from tasks.simulation.data import read_sites, split_sites
from tasks.simulation.rounds import simulate
from tasks.store import layout
from tasks.store.weights import to_bytes
from tests import own_models
from tests.rounds.hub.federation import NOCOMP, Federation

OPEN = {"mechanism": "none", "i_accept_no_privacy": True}
TRAINED = {"last.bias", "last.weight", "mid.0.bias", "mid.0.weight"}


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHARMAFED_MODEL_PACKAGES", "tests")


def own_study(fed: Federation, model: str, **parts: Any) -> str:
    spec = {"path": f"tests.own_models:{model}", "options": {}}
    return fed.new_study(**{"base": NOCOMP, "model": spec, "privacy": OPEN, **parts})


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("BatchNorm", r"training changes mid\.1\.running_mean of layer mid\.1 \(BatchNorm1d\)"),
        ("EverythingWrong", r"gives \(2, 1\) for a batch of 2"),
        ("RemembersPatients", "a call in eval mode changes seen"),
    ],
)
def test_no_round_opens_with_a_model_that_none_can_be_made_of(fed: Federation, model: str, reason: str) -> None:
    study = own_study(fed, model)
    with pytest.raises(ConfigError, match=reason):
        fed.open(study)
    assert fed.objects(layout.study_prefix(study) + "/") == {}


def test_dropout_is_refused_where_patients_are_clipped(fed: Federation) -> None:
    study = fed.new_study(model={"path": "tests.own_models:Drops", "options": {}})
    with pytest.raises(ConfigError, match=r"layer mid\.1 \(Dropout\) has no gradient of one patient"):
        fed.open(study)


def test_a_model_with_dropout_norm_frozen_layer_and_buffer_makes_the_simulations_bytes(fed: Federation) -> None:
    study = own_study(fed, "Everything")
    for number in (1, 2):
        metrics = fed.whole_round(study, f"night-{number}")
        assert metrics.status == "complete"
    assert fed.hub(study).plan(1).fixed_sha256 is not None
    for site in fed.hub(study).study.sites:
        assert set(load(fed.store().get(layout.update_tensors(study, 1, site)))) == TRAINED
    own = fed.hub(study).study
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    patients = split_sites(read_sites(own, fed.project), own.evaluation)
    made = [to_bytes(r.weights) for r in simulate(own, patients, 2, noise=SeededNoise(bytes(32)))]
    torch.set_num_threads(threads)
    assert [fed.store().get(layout.model(study, number)) for number in (1, 2)] == made


def test_frozen_parameters_are_neither_clipped_nor_noised_nor_sent(fed: Federation) -> None:
    study = fed.new_study(model={"path": "tests.own_models:Frozen", "options": {}})
    assert fed.whole_round(study, "night").status == "complete"
    for site in fed.hub(study).study.sites:
        update = load(fed.store().get(layout.update_tensors(study, 1, site)))
        assert {name: tuple(tensor.shape) for name, tensor in update.items()} == {
            "last.bias": (1,),
            "last.weight": (1, 6),
        }


def test_a_site_whose_frozen_layer_is_another_is_out_of_the_round(
    fed: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = own_study(fed, "Frozen")
    plan = fed.open(study)
    fed.run_site(study, 1, plan.sites[0])
    with monkeypatch.context() as patch:
        patch.setattr(own_models.Frozen, "set_up", lambda self, _: self.first.requires_grad_(False))
        with pytest.raises(PrivacyError, match=r"frozen parameters and buffers .* are not the hub's here"):
            fed.run_site(study, 1, plan.sites[1])
    assert not fed.store().exists(layout.update_tensors(study, 1, plan.sites[1]))


def test_a_site_looks_at_its_own_code_before_it_looks_at_patients(
    fed: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = fed.new_study(model={"path": "tests.own_models:Norms", "options": {}})
    plan = fed.open(study)
    fed.run_site(study, 1, plan.sites[0])
    _look_at.cache_clear()  # a site is another process
    monkeypatch.setattr(own_models.Norms, "forward", own_models.RemembersInTraining.forward)
    with pytest.raises(ConfigError, match=r"training changes first\.weight of layer first"):
        fed.run_site(study, 1, plan.sites[1])
    assert not fed.store().exists(layout.ledger_entry(study, plan.sites[1], 1)), "nothing to pay for"
    _look_at.cache_clear()
