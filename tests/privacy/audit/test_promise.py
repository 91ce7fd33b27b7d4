"""The bounds: each closed form against the area or distance that it stands for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from tasks.privacy.audit.promise import Promise, for_a_patient, promise_of
from tests.privacy.audit.audit_samples import DELTA, EPSILON, MU, ROUNDS, sample_spend

PROMISES = [Promise(mu=0.16), Promise(mu=0.72), Promise(pure_epsilon=0.1), Promise(pure_epsilon=3.0)]


@pytest.mark.parametrize("promise", PROMISES)
def test_the_auc_is_the_area_under_the_bounding_curve(promise: Promise) -> None:
    levels = np.linspace(0, 1, 200_001)
    assert promise.auc() == pytest.approx(np.trapezoid(promise.true_positive_rate(levels), levels), abs=1e-5)


@pytest.mark.parametrize("promise", PROMISES)
def test_the_curve_lies_between_guessing_and_certainty(promise: Promise) -> None:
    levels = np.linspace(0, 1, 101)
    power = promise.true_positive_rate(levels)
    assert (power >= levels - 1e-12).all()
    assert (power <= 1).all()
    assert (np.diff(power) >= 0).all()


def test_rounds_add_up() -> None:
    assert Promise(mu=MU).over(ROUNDS).mu == pytest.approx(MU * ROUNDS**0.5)
    assert Promise(mu=MU).over(ROUNDS).epsilon(DELTA) == pytest.approx(EPSILON)
    assert Promise(pure_epsilon=0.15).over(20).epsilon(DELTA) == pytest.approx(3.0)


def test_a_replacement_is_a_removal_and_an_addition() -> None:
    far = norm.cdf(2 * 0.72 / 2) - norm.cdf(-2 * 0.72 / 2)  # TV of N(0, 1) and N(2 mu, 1)
    assert Promise(mu=0.72).replacement_distance() == pytest.approx(far)
    likely = np.exp(2.0) / (1 + np.exp(2.0))  # randomized response is the worst pure-epsilon mechanism
    assert Promise(pure_epsilon=2.0).replacement_distance() == pytest.approx(2 * likely - 1)


def test_a_patient_of_a_protected_site() -> None:
    site = sample_spend(unit="site")
    promise = promise_of(site)
    assert promise is not None
    assert for_a_patient(promise, site) == Promise(mu=2 * MU)
    assert for_a_patient(promise, sample_spend()) == Promise(mu=MU)
    assert for_a_patient(Promise(pure_epsilon=1.0), site) == Promise(pure_epsilon=1.0)


def test_nothing_is_promised_without_a_unit() -> None:
    assert promise_of(sample_spend(unit="nothing")) is None
    assert promise_of(sample_spend(mu=None)) is None
