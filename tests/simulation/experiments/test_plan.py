"""The plan: every setting is one that the study can have, and what is compared is what is run."""

from __future__ import annotations

import pytest

from tasks.simulation.experiments import plan
from tasks.simulation.experiments.claims import CLAIMS
from tasks.simulation.experiments.plan import EXPERIMENTS
from tasks.simulation.reference import YARDSTICK
from tasks.simulation.runs import changed
from tasks.study.sections import Study


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_setting_is_a_study(study: Study, name: str) -> None:
    one = EXPERIMENTS[name]
    own = {setting.name: changed(study, setting.changes) for setting in one.settings}
    assert len(own) == len(one.settings) >= 2
    for setting in one.settings:
        made = own[setting.name]
        assert made.evaluation.score_bins is None
        if made.privacy.promises:
            assert setting.rounds is None, "the whole budget is spent"
            assert made.rounds.total == (1 if setting.name.endswith(" 1 round") else plan.ROUNDS)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_pairs_are_of_settings(name: str) -> None:
    one = EXPERIMENTS[name]
    assert {setting for pair in one.pairs for setting in pair} <= {setting.name for setting in one.settings}
    assert len(one.pairs) >= 1
    assert all(arm != against for arm, against in one.pairs)


def test_without_privacy_training_is_the_yardsticks(study: Study) -> None:
    """But for what an experiment is about."""
    seen = 0
    for name in ("federation", "rounds", "fraction"):
        for setting in EXPERIMENTS[name].settings:
            assert changed(study, setting.changes).training == YARDSTICK
            seen += 1
    assert seen == 4 + 6 + 17


def test_what_an_experiment_is_about_is_what_differs(study: Study) -> None:
    keys = {"restart": "optimizer_state", "weighting": "weighting"}
    for name, key in keys.items():
        made = [changed(study, setting.changes).training for setting in EXPERIMENTS[name].settings]
        assert len({getattr(training, key) for training in made}) == len(made)
        assert len({training.model_copy(update={key: None}).model_dump_json() for training in made}) == 1


def test_the_grid_of_mechanisms(study: Study) -> None:
    made = {s.name: changed(study, s.changes) for s in EXPERIMENTS["privacy"].settings}
    found = {(one.privacy.mechanism, one.privacy.epsilon) for one in made.values() if hasattr(one.privacy, "epsilon")}
    assert found == {(m, e) for m in ("distributed_dp", "local_dp", "gaussian_update", "svt") for e in (1, 3, 8, 50)}
    assert made["distributed_dp, ε 3"].privacy == study.privacy, "what ships"
    assert {one.training for one in made.values() if one.privacy.mechanism in ("distributed_dp", "local_dp")} == {
        study.training
    }


def test_fractions_at_equal_epsilon(study: Study) -> None:
    made = [changed(study, s.changes) for s in EXPERIMENTS["fraction_at_epsilon"].settings]
    found = {(one.rounds.total, one.privacy.epsilon, one.privacy.fraction) for one in made}
    assert found == {(n, e, f) for n in (1, 20) for e in (8, 50) for f in (0.1, 0.2, 0.4, 0.7, 1.0)}
    assert {one.privacy.mechanism for one in made} == {"svt"}


def test_claims_are_about_what_is_compared() -> None:
    for claim in CLAIMS:
        assert {*claim.pairs, *claim.beside} <= set(EXPERIMENTS[claim.experiment].pairs), claim.title
    assert {claim.experiment for claim in CLAIMS} == set(EXPERIMENTS)
