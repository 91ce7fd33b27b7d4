"""Accounting against published values, numerical integration, convolution of privacy losses and its own inverse."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from tasks.errors import PrivacyError
from tasks.privacy.accounting import (
    compose,
    gdp_delta,
    gdp_epsilon,
    guess_accuracy,
    membership_auc_bound,
    noise_multiplier_for,
    noise_share,
    pure_delta,
    pure_epsilon_for,
    pure_epsilon_total,
)
from tests.privacy.accounting_references import (
    advanced_composition,
    closed_optimal_bound,
    composed_delta,
    convolved_pure_delta,
    integrated_delta,
    theorem_3_3,
)

ROUNDS, DELTA = 20, 1e-5
MUS = (0.05, 0.3, 0.72, 1.0, 2.5, 6.0)
EPSILONS = (0.0, 0.1, 1.0, 3.0, 8.0)

epsilons = st.floats(0.01, 50)
deltas = st.floats(-12, -1).map(lambda exponent: 10**exponent)
rounds = st.integers(1, 5000)


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
    assert membership_auc_bound(mu) == pytest.approx(bound, abs=5e-4)


@pytest.mark.parametrize("mu", [0.0, *MUS])
def test_the_bound_is_the_area_under_the_gaussian_trade_off_curve(mu: float) -> None:
    """P(X > Y) for X from N(mu, 1) and Y from N(0, 1)."""
    area, _ = quad(lambda x: norm.pdf(x, mu) * norm.cdf(x), mu - 12, mu + 12, epsabs=1e-12)
    assert membership_auc_bound(mu) == pytest.approx(area, abs=1e-9)


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


@settings(max_examples=80)
@given(epsilon=epsilons, delta=deltas, releases=rounds)
def test_a_round_trip_never_exceeds_the_target_and_wastes_nothing(epsilon: float, delta: float, releases: int) -> None:
    multiplier = noise_multiplier_for(epsilon, delta, releases)
    spent = gdp_epsilon(compose(multiplier, releases), delta)
    assert spent <= epsilon
    assert spent >= epsilon * (1 - 1e-6)
    assert gdp_delta(compose(multiplier * (1 - 1e-6), releases), epsilon) > delta, "less noise would not do"


@settings(max_examples=80)
@given(mu=st.floats(0.01, 8), epsilon=st.floats(0, 20), more=st.floats(1.001, 2))
def test_delta_grows_with_mu_and_falls_with_epsilon(mu: float, epsilon: float, more: float) -> None:
    delta = gdp_delta(mu, epsilon)
    assert 0 <= delta <= 1
    assert gdp_delta(mu * more, epsilon) >= delta
    assert gdp_delta(mu, epsilon * more) <= delta
    if delta > 1e-12:
        assert gdp_delta(mu * more, epsilon) > delta


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 1, 3, 8, 20, 100])
@pytest.mark.parametrize("delta", [1e-12, 1e-5, 0.05])
@pytest.mark.parametrize("releases", [1, 2, 20, 365, 10_000])
def test_calibration_never_exceeds_the_target(epsilon: float, delta: float, releases: int) -> None:
    assert gdp_epsilon(compose(noise_multiplier_for(epsilon, delta, releases), releases), delta) <= epsilon
    total = pure_epsilon_total(pure_epsilon_for(epsilon, delta, releases), releases, delta)
    assert epsilon * (1 - 1e-6) <= total <= epsilon


# pure releases


@pytest.mark.parametrize("releases", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("epsilon_each", [0.01, 0.1, 0.5, 1.0, 2.0])
def test_pure_composition_is_the_convolution_of_randomised_responses(epsilon_each: float, releases: int) -> None:
    for part in (0.0, 0.13, 0.5, 0.77, 0.95):
        epsilon = part * releases * epsilon_each
        expected = convolved_pure_delta(epsilon_each, releases, epsilon)
        assert pure_delta(epsilon_each, releases, epsilon) == pytest.approx(expected, rel=1e-9, abs=1e-15)
        assert pure_delta(epsilon_each * 1.001, releases, epsilon) > expected, "a wrong epsilon must show"
        assert pure_delta(epsilon_each, releases + 2, epsilon) > expected, "and so a wrong T"
        if 1e-12 < expected < 0.9:
            total = pure_epsilon_total(epsilon_each, releases, expected)
            assert convolved_pure_delta(epsilon_each, releases, total) <= expected
            assert total == pytest.approx(epsilon, rel=1e-5, abs=2e-6)


@pytest.mark.parametrize(("epsilon_each", "releases"), [(0.1, 20), (0.5, 10), (1.0, 5), (0.02, 200)])
def test_pure_composition_is_the_published_theorem(epsilon_each: float, releases: int) -> None:
    for i in range(releases // 2 + 1):
        expected = theorem_3_3(epsilon_each, releases, i)
        found = pure_delta(epsilon_each, releases, (releases - 2 * i) * epsilon_each)
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-14)


def test_the_published_example_of_advanced_composition() -> None:
    """Dwork & Roth 2014, section 3.5.2: for 10 000 databases, epsilon 1 and delta e^-32, 1/801 each is enough.

    The optimal composition grants more, but not as much as a hundredth of basic composition's T would deny.
    """
    each = pure_epsilon_for(1.0, math.exp(-32), 10_000)
    assert 1 / 801 < each < 1 / 700
    assert pure_epsilon_total(1 / 801, 10_000, math.exp(-32)) < 1


@settings(max_examples=80)
@given(each=st.floats(0.001, 3), delta=deltas, releases=st.integers(1, 3000))
def test_the_pure_total_is_below_every_published_bound(each: float, delta: float, releases: int) -> None:
    total = pure_epsilon_total(each, releases, delta)
    assert 0 <= total <= releases * each
    assert total <= advanced_composition(each, releases, delta) * (1 + 1e-8)
    assert total <= closed_optimal_bound(each, releases, delta) * (1 + 1e-8)


@settings(max_examples=80)
@given(epsilon=epsilons, delta=deltas, releases=st.integers(1, 3000))
def test_a_pure_round_trip_never_exceeds_the_target_and_wastes_nothing(
    epsilon: float, delta: float, releases: int
) -> None:
    each = pure_epsilon_for(epsilon, delta, releases)
    total = pure_epsilon_total(each, releases, delta)
    assert epsilon * (1 - 1e-6) <= total <= epsilon
    assert each >= epsilon / releases * (1 - 1e-6), "never worse than basic composition"
    assert pure_delta(each * (1 + 1e-6), releases, epsilon) > delta * (1 - 1e-7), "more would not do"


@settings(max_examples=80)
@given(each=st.floats(0.001, 3), delta=deltas, releases=st.integers(1, 500), more=st.floats(1.01, 2))
def test_the_pure_total_is_monotone(each: float, delta: float, releases: int, more: float) -> None:
    total = pure_epsilon_total(each, releases, delta)
    margin = 1 + 1e-8
    assert pure_epsilon_total(each * more, releases, delta) * margin >= total
    assert pure_epsilon_total(each, releases + 1, delta) * margin >= total
    assert pure_epsilon_total(each, releases, delta / more) * margin >= total
    assert pure_epsilon_for(each, delta, releases + 1) <= pure_epsilon_for(each, delta, releases) * margin


# shares of noise


@pytest.mark.parametrize(("sites", "dropouts", "colluding"), [(1, 0, 0), (3, 1, 1), (13, 1, 1), (13, 4, 0), (9, 0, 8)])
def test_the_honest_shares_add_up_to_the_whole_noise(sites: int, dropouts: int, colluding: int) -> None:
    share = noise_share(6.22, sites, dropouts, colluding)
    assert (sites - dropouts - colluding) * share**2 == pytest.approx(6.22**2)


@pytest.mark.parametrize(("sites", "dropouts", "colluding"), [(2, 1, 1), (0, 0, 0), (1, 2, 0), (5, -1, 0), (5, 0, -1)])
def test_noise_that_nobody_would_be_left_to_add_is_refused(sites: int, dropouts: int, colluding: int) -> None:
    with pytest.raises(PrivacyError, match=f"{sites} sites cannot share noise"):
        noise_share(6.22, sites, dropouts, colluding)


def test_nothing_released_costs_nothing() -> None:
    assert pure_epsilon_total(1.0, 0, DELTA) == 0
    assert pure_epsilon_total(0.0, 20, DELTA) == 0
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
        (lambda: pure_epsilon_total(-0.1, 20, DELTA), "epsilon_each"),
        (lambda: pure_epsilon_total(math.nan, 20, DELTA), "epsilon_each"),
        (lambda: pure_epsilon_total(math.inf, 20, DELTA), "epsilon_each"),
        (lambda: pure_epsilon_total(0.1, -1, DELTA), "releases"),
        (lambda: pure_epsilon_total(0.1, 20, 0.0), "delta"),
        (lambda: pure_epsilon_for(0.0, DELTA, 20), "epsilon"),
        (lambda: pure_epsilon_for(math.inf, DELTA, 20), "epsilon"),
        (lambda: pure_epsilon_for(3.0, DELTA, 0), "releases"),
        (lambda: pure_epsilon_for(3.0, math.nan, 20), "delta"),
    ],
)
def test_what_cannot_be_accounted_for_is_refused(call, names: str) -> None:
    with pytest.raises(ValueError, match=names):
        call()


# guessing at even odds


@pytest.mark.parametrize("mu", [0.1, 0.717, 3.0])
def test_guess_accuracy_is_the_best_test_against_the_mechanism(mu: float) -> None:
    """The threshold test between N(0, 1) and N(mu, 1) is right with probability Phi(mu / 2)."""
    best = 0.5 * math.erfc(-mu / (2 * math.sqrt(2)))
    assert guess_accuracy(gdp_epsilon(mu, 1e-5), 1e-5) == pytest.approx(best, abs=1e-6)


def test_nothing_spent_is_a_coin_toss() -> None:
    assert guess_accuracy(0.0, 1e-5) == 0.5
