"""Records from raw gradients: exact, and not with noise."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.learning.arrays import Floats
from tasks.privacy.audit.adversary import Adversary
from tasks.privacy.audit.inversion import by_parameter, by_patterns, by_ratio, first_layer, relu_layer
from tasks.privacy.audit.matching import by_matching
from tasks.privacy.audit.setting import layered_study
from tasks.store.weights import Weights, parameters
from tasks.study.sections import Study
from tests.privacy.audit.audit_samples import SIGMA, sample_patients, sample_study, stand_in

LINEAR = sample_study()
LAYERED = layered_study(LINEAR)
LIMITS = np.array([spec.clip * spec.gain for spec in LINEAR.inputs])


def _seen(study: Study, first: int, batch: int) -> tuple[Floats, Floats, Weights]:
    """What is seen of a batch, its records, and the model."""
    patients = sample_patients(study)
    rows = slice(first, first + batch)
    weights = parameters(Adversary(study).model)
    vector = stand_in(study, 0).raw(weights, {"701": (patients.inputs[rows], patients.labels[rows])}, 1)
    return vector, patients.inputs[rows].double().numpy(), weights


@pytest.mark.parametrize("study", [LINEAR, LAYERED])
def test_one_record_is_exact_although_its_gradient_is_clipped(study: Study) -> None:
    vector, truth, weights = _seen(study, 0, 1)
    assert np.linalg.norm(vector) == pytest.approx(1)
    layer = first_layer(weights, len(LIMITS))
    assert layer is not None
    np.testing.assert_allclose(by_ratio(vector, weights, layer), truth[0], atol=1e-9)


@pytest.mark.parametrize("batch", [2, 4, 8])
def test_a_batch_behind_a_relu_layer_is_exact(batch: int) -> None:
    """At 8, one of the first batches: some have too many sets of patterns to try."""
    exact = 0
    for first in range(0, 3 * batch, batch):
        vector, truth, weights = _seen(LAYERED, first, batch)
        layer = first_layer(weights, len(LIMITS))
        following = relu_layer(weights, layer or "")
        assert following is not None
        found = by_patterns(vector, weights, layer or "", following, LIMITS, seed=0)
        if len(found) == batch:
            nearest = np.linalg.norm(found[:, None] - truth[None], axis=2).min(axis=0)
            exact += bool((nearest < 1e-6).all())
    assert exact >= (1 if batch == 8 else 3)


def test_noise_leaves_nothing_to_solve() -> None:
    vector, _, weights = _seen(LAYERED, 0, 4)
    noisy = vector + np.random.default_rng(0).standard_normal(vector.size) * SIGMA
    layer = first_layer(weights, len(LIMITS)) or ""
    following = relu_layer(weights, layer)
    assert following is not None
    assert len(by_patterns(noisy, weights, layer, following, LIMITS, seed=0)) == 0


def test_a_linear_model_has_no_relu_layer() -> None:
    weights = parameters(Adversary(LINEAR).model)
    layer = first_layer(weights, len(LIMITS))
    assert layer == "linear"
    assert relu_layer(weights, layer) is None
    assert first_layer(weights, 5) is None


def test_a_flat_vector_goes_by_sorted_name() -> None:
    weights = parameters(Adversary(LAYERED).model)
    flat = np.concatenate([tensor.double().numpy().ravel() for tensor in weights.values()])
    for name, piece in by_parameter(flat, weights).items():
        np.testing.assert_array_equal(piece, weights[name].double().numpy())


def test_matching_finds_two_records_on_the_hidden_layer() -> None:
    vector, truth, weights = _seen(LAYERED, 2, 2)
    found = by_matching(Adversary(LAYERED), weights, vector[None], 1e-8, 2, starts=12, iterations=400, seed=0)[0]
    error = np.linalg.norm(found[:, None] - truth[None], axis=2).min(axis=0) / np.linalg.norm(truth, axis=1)
    assert error.max() < 0.2
