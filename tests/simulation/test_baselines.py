"""What a federation is compared with."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.data.reading.patients import Patients
from tasks.errors import DataError
from tasks.rounds.scores import score_held_out
from tasks.simulation.baselines import full_score, local_only, local_score, pooled
from tasks.simulation.reference import YARDSTICK, compute_baselines
from tasks.simulation.rounds import pool, simulate, without_privacy
from tasks.study.privacy import NoPrivacy
from tasks.study.sections import Study, Training
from tests.simulation.simulation_samples import EPOCHS, FEW, flat, noise, study_with

TRAINING = Training.model_validate(EPOCHS)


@pytest.fixture
def few(cohorts: list[dict[str, Patients]]) -> dict[str, Patients]:
    return {site: cohorts[0][site] for site in FEW}


def test_pooled_is_one_site_that_holds_everybody(study: Study, few: dict[str, Patients]) -> None:
    """The study's own mechanism, masks among 13 sites, is left out: in one place nobody shares anything."""
    own = study.model_copy(update={"training": TRAINING})
    made = list(pooled(own, few, 3))
    expected = list(simulate(without_privacy(study, TRAINING), {"x": pool(few)}, 3, noise=noise(0)))
    assert [r.server_round for r in made] == [1, 2, 3]
    assert [flat(r.weights).tolist() for r in made] == [flat(r.weights).tolist() for r in expected]
    assert not isinstance(study.privacy, NoPrivacy)


def test_local_only_trains_each_site_on_its_own_patients(study: Study, few: dict[str, Patients]) -> None:
    own = study.model_copy(update={"training": TRAINING})
    rounds = list(local_only(own, few, 2))
    assert [set(r) for r in rounds] == [set(few), set(few)]
    for site, patients in few.items():
        *_, alone = simulate(without_privacy(study, TRAINING), {site: patients}, 2, noise=noise(0))
        np.testing.assert_array_equal(flat(rounds[1][site].weights), flat(alone.weights))
    assert len({flat(r.weights).tobytes() for r in rounds[1].values()}) == len(few)


def test_local_scores_are_weighted_by_held_out_patients(study: Study, few: dict[str, Patients]) -> None:
    own = study.model_copy(update={"training": TRAINING})
    *_, last = local_only(own, few, 2)
    models = {site: made.weights for site, made in last.items()}
    counts = [len(few[site].held_out_labels) for site in models]
    each = [score_held_out(study, weights, few) for weights in models.values()]
    assert len(set(counts)) > 1
    scores = local_score(study, models, few)
    assert {"auc", "log_loss", "brier"} <= set(scores)
    for name, found in scores.items():
        values = [own[name] for own in each]
        assert found == pytest.approx(np.average(values, weights=counts))
        assert found != pytest.approx(np.mean(values), abs=1e-9)


def test_without_both_labels_there_is_no_score(study: Study, few: dict[str, Patients]) -> None:
    """No 0.5 that nobody measured."""
    own = few["701"]
    healthy = own.held_out_labels == 0
    one_label = Patients(own.train_inputs, own.train_labels, own.held_out_inputs[healthy], own.held_out_labels[healthy])
    (made,) = pooled(study, {"701": own}, 1)
    assert full_score(study, made.weights, {"701": own})["auc"] >= 0
    with pytest.raises(DataError, match=r"evaluation\.holdout_fraction"):
        full_score(study, made.weights, {"701": one_label})


def test_the_reports_reference_lines_are_these(study: Study, few: dict[str, Patients]) -> None:
    found = compute_baselines(study, few)
    own = study_with(study, privacy=NoPrivacy(mechanism="none", i_accept_no_privacy=True), channel="plain")
    *_, together = pooled(own.model_copy(update={"training": YARDSTICK}), few, 4)
    *_, alone = local_only(own.model_copy(update={"training": YARDSTICK}), few, 4)
    together_ = full_score(study, together.weights, few)
    assert found.pooled == {name: round(part, 4) for name, part in together_.items()}
    local = local_score(study, {site: made.weights for site, made in alone.items()}, few)
    assert found.local_only == {name: round(part, 4) for name, part in local.items()}
    assert {"auc", "log_loss"} <= set(found.pooled) & set(found.local_only)
