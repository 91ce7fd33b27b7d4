"""Models of one's own in a simulation: the same figures each time, every mechanism, or a refusal before any round."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tasks.data.reading.patients import Patients
from tasks.errors import ConfigError
from tasks.privacy.audit.adversary import Adversary
from tasks.privacy.audit.observe import observers
from tasks.privacy.noise.source import SeededNoise
from tasks.rounds.scores import score_held_out
from tasks.simulation.rounds import simulate
from tasks.simulation.runs import Setting, changed, run_many
from tasks.study.sections import Study
from tests.simulation.simulation_samples import FEW, NONE, SVT, flat, initial, noise, study_with
from tests.simulation.test_mechanisms import MECHANISMS


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHARMAFED_MODEL_PACKAGES", "tests")


def with_model(study: Study, name: str, **parts: object) -> Study:
    return study_with(study, **{"model": {"path": f"tests.own_models:{name}"}, **parts})


@pytest.mark.parametrize("case", MECHANISMS)
@pytest.mark.parametrize("name", ["Frozen", "Tied"])
def test_every_mechanism_takes_what_is_trained_and_no_more(
    study: Study, cohorts: list[dict[str, Patients]], case: str, name: str
) -> None:
    privacy, channel = MECHANISMS[case]
    if case == "svt" and name == "Frozen":  # of seven values, a tenth is none
        privacy = SVT.model_copy(update={"fraction": 0.5})
    few = {site: cohorts[0][site] for site in FEW}
    own = with_model(study, name, privacy=privacy, channel=channel)
    trained = {"first.bias", "first.weight", "decode.bias"} if name == "Tied" else set()
    before = initial(own)
    assert set(before) == trained | {"last.bias", "last.weight"}
    *_, last = simulate(own, few, 2, noise=noise(0))
    assert last.weights.keys() == before.keys()
    assert np.isfinite(flat(last.weights)).all()
    assert np.abs(flat(last.weights) - flat(before)).max() > 0


def test_dropout_gives_the_same_figures_each_time(study: Study, cohorts: list[dict[str, Patients]]) -> None:
    few = {site: cohorts[0][site] for site in FEW}
    own = with_model(study, "Drops", privacy=NONE, channel="plain", training={"lr": 0.5, "local_iterations": 5})
    torch.manual_seed(1)
    *_, one = simulate(own, few, 2, noise=noise(0))
    torch.manual_seed(2)
    *_, other = simulate(own, few, 2, noise=noise(0))
    assert flat(one.weights).tolist() == flat(other.weights).tolist()
    assert len({str(score_held_out(own, one.weights, few)) for _ in range(3)}) == 1


@pytest.mark.parametrize(("name", "reason"), [("Column", r"gives \(2, 1\)"), ("Drops", r"layer mid\.1 \(Dropout\)")])
def test_a_model_is_refused_before_any_patient_is_read(study: Study, name: str, reason: str) -> None:
    own = changed(with_model(study, name), {"data.root": "nowhere"})
    with pytest.raises(ConfigError, match=reason):
        run_many(own, [Setting(name="as it is")], [0], workers=1)


def test_a_baseline_clips_nobody_so_it_may_drop(study: Study) -> None:
    """It trains without the mechanism for which the same model is refused."""
    own = with_model(study, "Drops")
    (found,) = run_many(own, [Setting(name="pool", kind="pooled", rounds=1)], [0], workers=1)
    assert 0 < found.of("auc")[0] < 1


@pytest.mark.parametrize("name", ["Frozen", "Drops", "Everything"])
def test_the_audit_knows_what_is_trained(study: Study, cohorts: list[dict[str, Patients]], name: str) -> None:
    """Also of a model that drops: the adversary leaves nothing out."""
    own = with_model(study, name, privacy=MECHANISMS["gaussian_update"][0], channel="plain")
    adversary, patients = Adversary(own), cohorts[0]["701"]
    weights, size = initial(own), sum(tensor.numel() for tensor in initial(own).values())
    group = (patients.train_inputs[:6], patients.train_labels[:6])
    rows = adversary.contributions(weights, *group)
    assert rows.shape == (6, size)
    assert torch.equal(rows, adversary.contributions(weights, *group))
    seen = observers(own, lambda: SeededNoise(bytes(32)))
    assert seen.raw(weights, {"701": group}, 1).shape == (size,)
    if name == "Frozen":
        raw = seen.raw(weights, {"701": group}, 1)
        np.testing.assert_allclose(rows.sum(dim=0).numpy(), raw, rtol=0.1, atol=1e-3)


def test_a_model_that_no_audit_can_differentiate_is_named(study: Study) -> None:
    """A site-level mechanism clips no patient, so rounds can be made of it."""
    own = with_model(study, "Recurrent", privacy=MECHANISMS["gaussian_update"][0], channel="plain")
    with pytest.raises(ConfigError, match=r"'tests\.own_models:Recurrent' cannot be audited"):
        Adversary(own)
