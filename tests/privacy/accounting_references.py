"""What the accounting is held against: definitions, integrated or convolved, and published bounds."""

from __future__ import annotations

import math

import numpy as np
from scipy.integrate import quad
from scipy.stats import norm


def integrated_delta(mu: float, epsilon: float) -> float:
    """The definition: the integral of max(0, p - e^epsilon q) for p = N(mu, 1), q = N(0, 1)."""
    start = epsilon / mu + mu / 2  # left of it, p < e^epsilon q
    excess, _ = quad(
        lambda x: norm.pdf(x, mu) - math.exp(epsilon) * norm.pdf(x), start, start + 12, epsabs=0, epsrel=1e-10
    )
    return float(excess)


def convolved_pure_delta(epsilon_each: float, releases: int, epsilon: float) -> float:
    """delta of T randomised responses, loss by loss: +e with e^e / (1 + e^e), -e with 1 / (1 + e^e), convolved T times.

    Losses are counted in multiples of e, from -T to T.
    """
    truth = math.exp(epsilon_each) / (1 + math.exp(epsilon_each))
    mass = np.array([1.0])
    for _ in range(releases):
        mass = np.convolve(mass, [1 - truth, 0.0, truth])
    losses = epsilon_each * np.arange(-releases, releases + 1)
    return float((mass * np.maximum(0.0, 1 - np.exp(epsilon - losses))).sum())


def theorem_3_3(epsilon_each: float, releases: int, i: int) -> float:
    """delta at epsilon (T - 2i) e, as Kairouz, Oh & Viswanath 2015 write it."""
    terms = (
        math.comb(releases, l)
        * (math.exp((releases - l) * epsilon_each) - math.exp((releases - 2 * i + l) * epsilon_each))
        for l in range(i)  # noqa: E741
    )
    return sum(terms) / (1 + math.exp(epsilon_each)) ** releases


def advanced_composition(epsilon_each: float, releases: int, delta: float) -> float:
    """Dwork, Rothblum & Vadhan 2010; theorem 3.20 of Dwork & Roth 2014, for pure mechanisms."""
    return math.sqrt(2 * releases * math.log(1 / delta)) * epsilon_each + releases * epsilon_each * math.expm1(
        epsilon_each
    )


def closed_optimal_bound(epsilon_each: float, releases: int, delta: float) -> float:
    """Theorem 3.4 of Kairouz, Oh & Viswanath 2015, for pure mechanisms."""
    drift = math.tanh(epsilon_each / 2) * releases * epsilon_each
    spread = math.log(min(1 / delta, math.e + math.sqrt(releases * epsilon_each**2) / delta))
    return min(releases * epsilon_each, drift + epsilon_each * math.sqrt(2 * releases * spread))


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
