"""Whole trainings on the real data: what federation costs, and what privacy costs.

Held-out sets are small (43 patients; sd of one AUC over seeds about .075), so figures are means over at least 20 seeds,
each with a split of its own, and comparisons are paired.
"""

from __future__ import annotations

import numpy as np
import pytest

from tasks.data.reading.patients import Patients
from tasks.simulation.reference import YARDSTICK, YARDSTICK_ROUNDS
from tasks.simulation.rounds import pool, without_privacy
from tasks.study.sections import Study
from tests.simulation.simulation_samples import LOCAL, PAIRED_SEEDS, auc_of, seeded, study_with, told

SEEDS = range(20)


@pytest.mark.slow
def test_federation_costs_nothing_without_privacy(study: Study, cohorts: list[dict[str, Patients]]) -> None:
    """At the number of epochs of the project's own yardstick; after it, pooled training overfits first.

    The standard error is .004: were there no difference, |mean| > .01 would come about for 2% of choices of the seeds;
    a loss of .02 would be found for 99%.
    """
    federated, pooled = [], []
    for seed, patients in enumerate(cohorts):
        open_study = without_privacy(study, YARDSTICK.model_copy(update={"seed": seed}))
        federated.append(auc_of(open_study, patients, patients, YARDSTICK_ROUNDS, seed))
        pooled.append(auc_of(open_study, {"pool": pool(patients)}, patients, YARDSTICK_ROUNDS, seed))
    told("AUC, FedAvg", federated)
    told("AUC, pooled", pooled)
    mean, se = told("AUC, FedAvg minus pooled", list(np.subtract(federated, pooled)))
    assert len(federated) == PAIRED_SEEDS
    assert abs(mean) <= 0.01
    assert se < 0.005, "so the comparison could have found a difference"
    assert np.mean(pooled) > 0.68


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mechanism", "epsilon", "least"),
    [
        ("distributed_dp", 1, 0.66),
        ("local_dp", 3, 0.65),
    ],
)
def test_patient_level_privacy_still_learns(
    study: Study, cohorts: list[dict[str, Patients]], mechanism: str, epsilon: float, least: float
) -> None:
    """What ships, and its fallback without masks."""
    privacy = (study.privacy if mechanism == "distributed_dp" else LOCAL).model_copy(update={"epsilon": epsilon})
    study = study_with(study, privacy=privacy, channel="plain" if mechanism == "local_dp" else "masks")
    assert (study.privacy.mechanism, study.rounds.total) == (mechanism, 20)
    private = [
        auc_of(seeded(study, seed), patients, patients, 20, seed)
        for seed, patients in zip(SEEDS, cohorts, strict=False)
    ]
    mean, _ = told(f"AUC, {mechanism} at a total epsilon of {epsilon:g}", private)
    assert len(private) == 20
    assert mean >= least
