"""The sparse vector technique: its scales, its spend, its grid and what it refuses. Its laws: test_svt_statistics."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from tasks.errors import BudgetExhausted, PrivacyError
from tasks.privacy.accounting import pure_epsilon_for
from tasks.privacy.mechanisms import svt
from tasks.privacy.mechanisms.svt import Scales, SparseVectorMechanism
from tasks.privacy.noise.source import MAX_SCALE, SMALL, SeededNoise, SystemNoise, gaps
from tasks.study.privacy import BudgetShares, SparseVector

SEED = SeededNoise(bytes(range(32)))
SETTINGS = SparseVector(
    mechanism="svt",
    epsilon=3,
    delta=1e-5,
    fraction=0.4,
    gamma=1e-3,
    tau=1e-4,
    shares=BudgetShares(query=2, threshold=1, release=3),
)
MECHANISM = SparseVectorMechanism(SETTINGS, total_rounds=20)
UPDATE = np.random.default_rng(0).normal(0, 5e-3, 1000).astype(np.float32)

Vector = npt.NDArray[np.floating]


def test_the_noise_scales_are_those_of_the_paper() -> None:
    """Li et al. 2019, algorithm 2, with s = 2 gamma: Lap(s / eps2), Lap(2 q s / eps1), Lap(q s / eps3)."""
    each = pure_epsilon_for(3, 1e-5, 20)
    eps1, eps2, eps3 = (each * share / 6 for share in (2, 1, 3))
    q, s = 400, 2 * SETTINGS.gamma
    scales = Scales.of(SETTINGS, each, q)
    assert scales.steps_per_gamma == 1 << 24
    unit = SETTINGS.gamma / scales.steps_per_gamma
    assert scales.threshold * unit == pytest.approx(s / eps2)
    assert scales.query * unit == pytest.approx(2 * q * s / eps1)
    assert scales.release * unit == pytest.approx(q * s / eps3)
    assert scales.tau * unit == pytest.approx(SETTINGS.tau, rel=1e-6)


@pytest.mark.parametrize("wanted", [1, 400, 4_000_000, 400_000_000])
@pytest.mark.parametrize("each", [1e-3, 0.17, 100])
def test_the_grid_is_as_fine_as_the_noise_can_be_drawn(wanted: int, each: float) -> None:
    scales = Scales.of(SETTINGS, each, wanted)
    largest = max(scales.query, scales.threshold, scales.release)
    assert largest < MAX_SCALE
    assert min(scales.query, scales.threshold, scales.release) >= 1
    assert scales.steps_per_gamma == 1 << 24 or largest > MAX_SCALE / 4


def test_a_budget_too_small_for_any_grid_is_refused() -> None:
    with pytest.raises(PrivacyError, match=r"cannot pay for 400000000 components: lower privacy.fraction"):
        Scales.of(SETTINGS, 1e-6, 400_000_000)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fraction", [1e-9, 0.01, 0.4, 1.0])
def test_exactly_the_fraction_is_sent_bounded_and_in_order(fraction: float, dtype: type) -> None:
    mechanism = SparseVectorMechanism(SETTINGS.model_copy(update={"fraction": fraction}), 20)
    sent = mechanism.privatize(UPDATE.astype(dtype), 7, SEED.derive(str(fraction)))
    assert sent.indices.size == max(1, round(fraction * 1000))
    assert (sent.size, sent.shortfall) == (1000, 0)
    assert (sent.indices.dtype, sent.values.dtype) == (np.int32, np.float32)
    assert (np.diff(sent.indices) > 0).all()
    assert np.abs(sent.values).max() <= np.float32(7 * SETTINGS.gamma)
    assert sent.values.any()


def test_local_iterations_scale_the_update_and_its_release() -> None:
    noise = [SEED.derive("iterations") for _ in range(2)]
    one = MECHANISM.privatize(UPDATE.astype(np.float64), 1, noise[0])
    eight = MECHANISM.privatize(8 * UPDATE.astype(np.float64), 8, noise[1])
    np.testing.assert_array_equal(one.indices, eight.indices)
    np.testing.assert_array_equal(8 * one.values, eight.values)


def test_updates_in_one_grid_cell_cannot_be_told_apart() -> None:
    """The low bits of a float leak nothing, neither in what is chosen nor in what is sent."""
    generous = SparseVectorMechanism(SETTINGS.model_copy(update={"epsilon": 100.0, "fraction": 0.01}), 1)
    cells = np.random.default_rng(1).integers(-(1 << 24), 1 << 24, 1000)
    cells += np.sign(cells)
    low, high = ((cells + part * np.sign(cells)) * (SETTINGS.gamma / (1 << 24)) for part in (0.01, 0.99))
    one, other = (generous.privatize(u, 1, SEED.derive("low bits")) for u in (low, high))
    np.testing.assert_array_equal(one.indices, other.indices)
    np.testing.assert_array_equal(one.values, other.values)


def test_what_is_sent_lies_on_the_grid_and_uses_it() -> None:
    generous = SparseVectorMechanism(SETTINGS.model_copy(update={"epsilon": 100.0, "fraction": 0.002}), 1)
    sent = [generous.privatize(UPDATE, 1, SEED.derive("grid", str(i))).values for i in range(50)]
    steps = np.concatenate(sent).astype(np.float64) * ((1 << 24) / SETTINGS.gamma)
    inside = steps[np.abs(steps) < (1 << 24) * 0.999]
    assert inside.size > 20
    np.testing.assert_allclose(inside, np.rint(inside), atol=1.01)  # float32 has 24 bits


def test_a_zero_update_is_sent_as_noise() -> None:
    sent = MECHANISM.privatize(np.zeros(1000, dtype=np.float32), 1, SystemNoise())
    assert sent.indices.size == 400
    assert np.count_nonzero(sent.values) > 390


def test_an_update_over_several_chunks() -> None:
    """2.3 million components, some of them asked a second time."""
    mechanism = SparseVectorMechanism(SETTINGS.model_copy(update={"fraction": 0.6}), 20)
    sent = mechanism.privatize(np.zeros(2_300_000, dtype=np.float32), 1, SystemNoise())
    assert sent.indices.size == 1_380_000
    thirds = np.bincount(sent.indices // 766_667)
    np.testing.assert_allclose(thirds, 460_000, rtol=0.01)


def test_the_update_is_not_changed_in_place() -> None:
    before = UPDATE.copy()
    MECHANISM.privatize(UPDATE, 3, SEED.derive("in place"))
    np.testing.assert_array_equal(UPDATE, before)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [1.7e308, -1.7e308, 5e-324, 0.0])
def test_adversarial_sizes_are_clipped(value: float) -> None:
    assert np.abs(svt._cut(np.full(5, value), 1e10, 1 << 24)).max() <= 1 << 24
    assert MECHANISM.privatize(np.full(5, value), 1, SEED.derive("adversarial")).indices.size == 2


# budget and refusals


def test_the_last_release_spends_the_budget_and_the_next_is_refused() -> None:
    spends = [MECHANISM.spend(releases) for releases in range(1, 21)]
    assert all(a.epsilon < b.epsilon for a, b in pairwise(spends))
    assert spends[-1].epsilon == pytest.approx(3, rel=1e-6)
    assert spends[-1].epsilon <= 3
    assert spends[0].epsilon <= spends[0].pure_epsilon == pytest.approx(0.1724, abs=1e-4)
    assert (spends[0].unit, spends[0].mechanism, spends[0].trust) == (
        "site",
        "svt",
        "nobody: holds against the hub too",
    )
    with pytest.raises(BudgetExhausted, match=r"release 21 is refused: epsilon 3.0 pays for 20 rounds"):
        MECHANISM.spend(21)


class NoNoise:
    """A source that must not be asked."""

    def laplace(self, size: int, scale: float) -> npt.NDArray[np.int64]:
        raise AssertionError(f"{size} values of scale {scale} were drawn")

    gaussian = subset = laplace


@pytest.mark.parametrize(
    "update",
    [
        np.zeros(3, dtype=np.int64),
        np.zeros(3, dtype=np.bool_),
        np.zeros(3, dtype=np.float16),
        np.zeros((3, 1)),
        np.zeros(()),
        np.zeros(0, dtype=np.float32),
        np.array([0.0, math.nan]),
        np.array([math.inf, 0.0], dtype=np.float32),
        np.array([0.0, -math.inf]),
    ],
    ids=lambda u: f"{u.dtype}-{u.shape}",
)
def test_what_is_no_finite_vector_is_refused_before_noise_is_drawn(update: Vector) -> None:
    with pytest.raises(PrivacyError, match="stays at the site"):
        MECHANISM.privatize(update, 1, NoNoise())


class Counting:
    """Noise that no component passes, or that all do; counts what is drawn with each scale."""

    def __init__(self, value: int) -> None:
        self.value = value
        self.drawn = dict[float, int]()

    def laplace(self, size: int, scale: float) -> npt.NDArray[np.int64]:
        self.drawn[scale] = self.drawn.get(scale, 0) + size
        return np.full(size, self.value if size > 1 else 0, dtype=np.int64)

    def gaussian(self, size: int, sd: float) -> npt.NDArray[np.int64]:
        raise AssertionError("the sparse vector technique has no Gaussian noise")

    def subset(self, population: int, size: int) -> npt.NDArray[np.int64]:
        return np.arange(size)


@pytest.mark.parametrize("value", [-(2**43), 2**43])
def test_no_release_draws_more_than_is_counted(value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one in which nothing ever passes: a thousand passes over all components."""
    counted, size, source = list[float](), 5000, Counting(value)
    monkeypatch.setattr(svt, "check_sampler", lambda in_gaps, *_: counted.append(in_gaps))
    sent = MECHANISM.privatize(np.zeros(size, dtype=np.float32), 1, source)
    scales = Scales.of(SETTINGS, MECHANISM.pure_epsilon, 2000)
    assert sent.shortfall == (2000 if value < 0 else 0)
    assert source.drawn[scales.query] == (size * svt.MAX_PASSES if value < 0 else size)
    drawn = sum(number * scale * 2.0**-271 for scale, number in source.drawn.items() if number > 1)
    assert 0 < drawn <= counted[0]
    everything = (5000 * 1000 * scales.query + 2000 * scales.release) * 2.0**-271
    assert counted == [pytest.approx(everything, rel=1e-9, abs=0)]


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0, 8.0, 100.0])
@pytest.mark.parametrize("size", [100_000, 1_000_000, 4_700_000, 1_000_000_000])
def test_no_usual_study_is_refused_for_gaps(size: int, epsilon: float) -> None:
    """And would be with 79 bits, whose gaps are 2^192 times as many: 4e-5 and 5e-4 at epsilon 3, in one pass."""
    mechanism = SparseVectorMechanism(SETTINGS.model_copy(update={"epsilon": epsilon}), 20)
    wanted = round(0.4 * size)
    scales = Scales.of(mechanism.settings, mechanism.pure_epsilon, wanted)
    mechanism._check_sampler(size, wanted, scales)
    if epsilon == 3:
        before = 20 * 2.0**192 * (gaps("laplace", size, scales.query) + gaps("laplace", wanted, scales.release))
        assert before > 1e-5


def test_an_update_whose_noise_has_gaps_stays_before_noise_is_drawn() -> None:
    tiny = SparseVectorMechanism(SETTINGS.model_copy(update={"delta": 1e-63}), 20)
    with pytest.raises(PrivacyError, match=r"hundredth of 1e-63: raise privacy\.delta, or lower rounds\.total"):
        tiny.privatize(np.zeros(5000, dtype=np.float32), 1, NoNoise())
    assert tiny.privatize(np.zeros(SMALL, dtype=np.float32), 1, SEED.derive("exact")).indices.size == 410


@pytest.mark.parametrize("local_iterations", [0, -1])
def test_no_local_iterations_are_refused_before_noise_is_drawn(local_iterations: int) -> None:
    with pytest.raises(PrivacyError, match="local iterations cannot be divided"):
        MECHANISM.privatize(UPDATE, local_iterations, NoNoise())


def test_a_release_that_does_not_fit_float32_is_refused() -> None:
    wide = SparseVectorMechanism(SETTINGS.model_copy(update={"gamma": 3e38}), 20)
    with pytest.raises(PrivacyError, match="does not fit float32"):
        wide.privatize(UPDATE, 1000, SEED.derive("wide"))
