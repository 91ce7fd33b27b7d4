"""What codecs do to learning: the same study on the same splits, paired with dense float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tasks.data.reading.patients import Patients
from tasks.simulation.reference import YARDSTICK, YARDSTICK_ROUNDS
from tasks.simulation.rounds import without_privacy
from tasks.study.sections import Study
from tests.simulation.simulation_samples import GAUSSIAN, auc_of, flat, initial, last_round, seeded, study_with, told

SEEDS = range(20)
#: What is learned with each, and how near its AUC must be to that of dense float32.
LOSSY: dict[str, dict[str, Any]] = {
    "int8": {"name": "int8"},
    "int8, stochastic, without error feedback": {"name": "int8", "rounding": "stochastic", "error_feedback": False},
    "float16": {"name": "float16"},
}


@pytest.fixture(scope="module")
def dense(study: Study, cohorts: list[dict[str, Patients]]) -> list[float]:
    open_study = without_privacy(study, YARDSTICK)
    return [auc_of(seeded(open_study, seed), cohorts[seed], cohorts[seed], YARDSTICK_ROUNDS, seed) for seed in SEEDS]


@pytest.mark.parametrize("case", LOSSY)
def test_auc_is_within_a_hundredth_of_that_of_dense_float32(
    study: Study, cohorts: list[dict[str, Patients]], dense: list[float], case: str
) -> None:
    """In the mean over twenty splits; and something is learned."""
    open_study = without_privacy(study, YARDSTICK)
    coded = Study.model_validate(open_study.model_dump(by_alias=True, exclude_unset=True) | {"codec": LOSSY[case]})
    found = [auc_of(seeded(coded, seed), cohorts[seed], cohorts[seed], YARDSTICK_ROUNDS, seed) for seed in SEEDS]
    difference, _ = told(f"{case} minus dense", list(np.subtract(found, dense)))
    assert abs(difference) < 0.01
    assert np.mean(found) > 0.6
    one, other = (flat(last_round(each, cohorts[0], YARDSTICK_ROUNDS).weights) for each in (open_study, coded))
    assert not np.array_equal(one, other), "the codec is used"


def test_after_a_mechanism_that_promises_a_codec_changes_the_model_by_its_rounding_alone(
    study: Study, cohorts: list[dict[str, Patients]]
) -> None:
    """The same noise is drawn, since the codec comes after it: three rounds end within a few steps of int8."""
    private = study_with(study, privacy=GAUSSIAN, channel="plain")
    coded = study_with(study, privacy=GAUSSIAN, channel="plain", codec={"name": "int8"})
    one, other = (flat(last_round(each, cohorts[0], 3).weights) for each in (private, coded))
    moved = np.abs(one - flat(initial(private))).max()
    assert 0 < np.abs(one - other).max() < 0.03 * moved
