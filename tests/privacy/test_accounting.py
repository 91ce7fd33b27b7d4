"""Gaussian-DP accounting against published values, numerical integration and its own inverse."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from tasks.privacy.accounting import compose, gdp_delta, gdp_epsilon, noise_multiplier_for

ROUNDS, DELTA = 20, 1e-5
MUS = (0.05, 0.3, 0.72, 1.0, 2.5, 6.0)
EPSILONS = (0.0, 0.1, 1.0, 3.0, 8.0)

epsilons = st.floats(0.01, 50)
deltas = st.floats(-12, -1).map(lambda exponent: 10**exponent)
rounds = st.integers(1, 5000)


def integrated_delta(mu: float, epsilon: float) -> float:
    """The definition: the integral of max(0, p - e^epsilon q) for p = N(mu, 1), q = N(0, 1)."""
    start = epsilon / mu + mu / 2  # left of it, p < e^epsilon q
    excess, _ = quad(
        lambda x: norm.pdf(x, mu) - math.exp(epsilon) * norm.pdf(x), start, start + 12, epsabs=0, epsrel=1e-10
    )
    return float(excess)


def composed_delta(noise_multiplier: float, releases: int, epsilon: float) -> float:
    """delta of T releases from the T-fold convolution of one release's privacy-loss distribution, on a fine grid."""
    mu = 1 / noise_multiplier
    step = mu / 2000
    loss = np.arange(-12 * mu, 12 * mu, step)
    mass = norm.pdf(loss, mu**2 / 2, mu) * step
    size = 1 << math.ceil(math.log2(len(mass) * releases))
    total = np.fft.irfft(np.fft.rfft(mass, size) ** releases, size)
    losses = releases * loss[0] + step * np.arange(size)
    return float((total * np.maximum(0.0, -np.expm1(np.minimum(0.0, epsilon - losses)))).sum())


@pytest.mark.parametrize(("epsilon", "sigma"), [(1, 16.68), (3, 6.22), (8, 2.68)])
def test_the_studys_noise_multipliers(epsilon: float, sigma: float) -> None:
    assert noise_multiplier_for(epsilon, DELTA, ROUNDS) == pytest.approx(sigma, abs=0.005)


@pytest.mark.parametrize(
    ("mu", "epsilon", "delta"),
    [(1, 1, 0.12693674), (1, 0, 2 * 0.6914624613 - 1), (1, 2, 0.02092), (1, 3, 0.00154), (2, 0, 2 * 0.8413447461 - 1)],
)
def test_published_values(mu: float, epsilon: float, delta: float) -> None:
    """Dong et al. 2022, corollary 2.13; at epsilon 0 it is the total variation distance 2 Phi(mu/2) - 1."""
    assert gdp_delta(mu, epsilon) == pytest.approx(delta, rel=3e-3 if delta < 0.1 else 1e-7)


@pytest.mark.parametrize(("epsilon", "bound"), [(1, 0.575), (3, 0.694), (8, 0.881)])
def test_the_bound_on_membership_inference(epsilon: float, bound: float) -> None:
    mu = compose(noise_multiplier_for(epsilon, DELTA, ROUNDS), ROUNDS)
    assert norm.cdf(mu / math.sqrt(2)) == pytest.approx(bound, abs=5e-4)


@pytest.mark.parametrize("mu", MUS)
@pytest.mark.parametrize("epsilon", EPSILONS)
def test_delta_is_the_integral_of_the_definition(mu: float, epsilon: float) -> None:
    expected = integrated_delta(mu, epsilon)
    if expected > 1e-290:
        assert gdp_delta(mu, epsilon) == pytest.approx(expected, rel=1e-6, abs=0)
        assert gdp_delta(mu * 1.001, epsilon) != pytest.approx(expected, rel=1e-6, abs=0), "a wrong mu must show"
    else:
        assert gdp_delta(mu, epsilon) < 1e-280


@pytest.mark.parametrize(("epsilon", "delta"), [(10, 1e-5), (50, 1e-5), (100, 1e-5), (100, 1e-12), (0.01, 1e-18)])
def test_delta_in_the_far_tails(epsilon: float, delta: float) -> None:
    mpmath = pytest.importorskip("mpmath")
    mu = compose(noise_multiplier_for(epsilon, delta, 1), 1)
    with mpmath.workdps(60):
        e, m = mpmath.mpf(epsilon), mpmath.mpf(mu)
        exact = mpmath.ncdf(-e / m + m / 2) - mpmath.exp(e) * mpmath.ncdf(-e / m - m / 2)
        assert abs(float(exact / delta) - 1) < 1e-6


@pytest.mark.parametrize(("sigma", "releases", "epsilon"), [(6.22, 20, 3.0), (2.0, 7, 1.0), (16.68, 20, 1.0)])
def test_composition_is_the_convolution_of_privacy_losses(sigma: float, releases: int, epsilon: float) -> None:
    expected = composed_delta(sigma, releases, epsilon)
    assert gdp_delta(compose(sigma, releases), epsilon) == pytest.approx(expected, rel=1e-4)
    assert gdp_delta(compose(sigma, releases + 1), epsilon) != pytest.approx(expected, rel=1e-2)


@settings(max_examples=80, deadline=None)
@given(epsilon=epsilons, delta=deltas, releases=rounds)
def test_a_round_trip_never_exceeds_the_target_and_wastes_nothing(epsilon: float, delta: float, releases: int) -> None:
    multiplier = noise_multiplier_for(epsilon, delta, releases)
    spent = gdp_epsilon(compose(multiplier, releases), delta)
    assert spent <= epsilon
    assert spent >= epsilon * (1 - 1e-6)
    assert gdp_delta(compose(multiplier * (1 - 1e-6), releases), epsilon) > delta, "less noise would not do"


@settings(max_examples=80, deadline=None)
@given(mu=st.floats(0.01, 8), epsilon=st.floats(0, 20), more=st.floats(1.001, 2))
def test_delta_grows_with_mu_and_falls_with_epsilon(mu: float, epsilon: float, more: float) -> None:
    delta = gdp_delta(mu, epsilon)
    assert 0 <= delta <= 1
    assert gdp_delta(mu * more, epsilon) >= delta
    assert gdp_delta(mu, epsilon * more) <= delta
    if delta > 1e-12:
        assert gdp_delta(mu * more, epsilon) > delta


def test_nothing_released_costs_nothing() -> None:
    assert compose(2.0, 0) == 0
    assert gdp_delta(0.0, 0.0) == 0
    assert gdp_epsilon(0.0, DELTA) == 0


def test_composition_adds_up_in_squares() -> None:
    assert compose(6.22, 20) ** 2 == pytest.approx(compose(6.22, 12) ** 2 + compose(6.22, 8) ** 2)
    assert compose(2.0, 1) == 0.5


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: gdp_epsilon(-1.0, DELTA), "mu"),
        (lambda: gdp_epsilon(math.nan, DELTA), "mu"),
        (lambda: gdp_epsilon(math.inf, DELTA), "mu"),
        (lambda: gdp_epsilon(1.0, 0.0), "delta"),
        (lambda: gdp_epsilon(1.0, 1.0), "delta"),
        (lambda: gdp_epsilon(1.0, math.nan), "delta"),
        (lambda: gdp_epsilon(1e6, DELTA), "no value up to"),
        (lambda: compose(0.0, 1), "noise_multiplier"),
        (lambda: compose(-1.0, 1), "noise_multiplier"),
        (lambda: compose(math.nan, 1), "noise_multiplier"),
        (lambda: compose(1.0, -1), "releases"),
        (lambda: noise_multiplier_for(0.0, DELTA, 20), "epsilon"),
        (lambda: noise_multiplier_for(math.inf, DELTA, 20), "epsilon"),
        (lambda: noise_multiplier_for(math.nan, DELTA, 20), "epsilon"),
        (lambda: noise_multiplier_for(3.0, DELTA, 0), "releases"),
        (lambda: noise_multiplier_for(3.0, 1.5, 20), "delta"),
    ],
)
def test_what_cannot_be_accounted_for_is_refused(call, names: str) -> None:
    with pytest.raises(ValueError, match=names):
        call()
