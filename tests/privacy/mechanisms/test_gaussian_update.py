"""Site-level DP of an update: exact sensitivity, the noise of the budget, and what is refused."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tasks.errors import BudgetExhausted, PrivacyError
from tasks.privacy.mechanisms import gaussian_update
from tasks.privacy.mechanisms.gaussian import check_sampler
from tasks.privacy.mechanisms.gaussian_update import GaussianUpdateMechanism
from tasks.privacy.noise import grid
from tasks.privacy.noise.grid import STEPS_PER_CLIP, clipped_steps
from tasks.privacy.noise.source import SeededNoise, SystemNoise, gaps
from tasks.study.channels import MASKS
from tasks.study.privacy import GaussianUpdate
from tests.privacy.noise.noise_tests import ALARM, scale_p_value, shape_p_value

SEED = SeededNoise(bytes(range(32)))
SETTINGS = GaussianUpdate(
    mechanism="gaussian_update", epsilon=3, delta=1e-5, clip_norm=0.5, tolerated_dropouts=1, colluding_sites=2
)
MECHANISM = GaussianUpdateMechanism(SETTINGS, total_rounds=20)
SIZE, SITES = 250_000, 13
SHORT = np.linspace(-4e-4, 4e-4, SIZE)  # its norm is 0.12, so that it is not clipped

Vector = npt.NDArray[np.floating]
any_float = st.floats(allow_nan=False, allow_infinity=False, width=64)


def steps_of(update: Vector, clip_norm: float) -> npt.NDArray[np.float64]:
    return np.concatenate([steps for _, steps in clipped_steps(update, clip_norm)])


def squared_norm(steps: Vector) -> int:
    """In Python's integers: exact."""
    return sum(int(step) ** 2 for step in steps)


# sensitivity


@settings(max_examples=300)
@given(
    update=arrays(np.float64, st.integers(1, 12), elements=st.one_of(st.floats(-3, 3), any_float)),
    clip_norm=st.floats(1e-6, 1e6),
)
def test_no_update_is_longer_than_the_clip_norm_on_the_grid(update: Vector, clip_norm: float) -> None:
    steps = steps_of(update, clip_norm)
    assert squared_norm(steps) <= STEPS_PER_CLIP**2
    np.testing.assert_array_equal(steps, np.trunc(steps))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 2, 369, 1_200_000])
@pytest.mark.parametrize("scale", [1.0, 1 + 1e-7, 7.0, 1e30])
def test_a_long_update_uses_the_whole_clip_norm_and_no_more(size: int, scale: float, dtype: type) -> None:
    direction = np.random.default_rng(size).normal(size=size)
    update = (scale * direction / np.linalg.norm(direction)).astype(dtype)
    length = math.sqrt(squared_norm(steps_of(update, 0.999))) / STEPS_PER_CLIP
    assert 1 - math.sqrt(size) / STEPS_PER_CLIP - 1e-9 <= length <= 1


def test_clipping_keeps_short_updates_and_shortens_long_ones() -> None:
    units = 2.0 / STEPS_PER_CLIP
    np.testing.assert_allclose(steps_of(np.array([0.3, 0.4]), 2.0) * units, [0.3, 0.4], atol=1e-6)
    np.testing.assert_allclose(steps_of(np.array([-30.0, 40.0]), 2.0) * units, [-1.2, 1.6], atol=1e-6)


@pytest.mark.parametrize("value", [1.7e308, -1e300, 1e160, 3.4e38, 1e-38, 1e-300, 5e-324, -5e-324, 0.0])
def test_adversarial_sizes_stay_within_the_sensitivity(value: float) -> None:
    assert squared_norm(steps_of(np.full(5, value), 1.0)) <= STEPS_PER_CLIP**2
    assert squared_norm(steps_of(np.array([value, 1.0, -1.0, 0.0, 1e-310]), 1e-3)) <= STEPS_PER_CLIP**2


def test_the_check_behind_the_clipping_stops_the_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "_clip_factor", lambda update, clip_norm: 1.0)
    for privatize in (
        lambda update: MECHANISM.privatize(update, SEED.derive("check")),
        lambda update: MECHANISM.privatize_share(update, SITES, SEED.derive("check")),
    ):
        privatize(np.array([0.3, 0.39]))
        with pytest.raises(PrivacyError, match="longer than the clip norm"):
            privatize(np.array([0.3, 0.41]))


# noise


class Scaled(GaussianUpdateMechanism):
    """A broken copy: noise of the wrong size."""

    factor = 1.0

    @property
    def noise_multiplier(self) -> float:
        return self.factor * super().noise_multiplier


class TooLittle(Scaled):
    factor = 0.98


class TooMuch(Scaled):
    factor = 1.02


SD = MECHANISM.noise_multiplier * SETTINGS.clip_norm


def noise_of(mechanism: GaussianUpdateMechanism) -> Vector:
    """Release minus truth."""
    return mechanism.privatize(SHORT, SEED.derive("noise", type(mechanism).__name__)) - SHORT


def test_noise_of_a_release_has_the_sd_of_the_budget() -> None:
    """250 000 values; false-alarm rate 1e-6 each."""
    noise = noise_of(MECHANISM)
    assert pytest.approx(3.11, abs=0.005) == SD
    assert scale_p_value(noise, SD) > ALARM
    assert shape_p_value(noise, SD) > ALARM
    assert scale_p_value(noise.reshape(500, 500).sum(axis=1), math.sqrt(500) * SD) > ALARM, "components are independent"


@pytest.mark.parametrize("broken", [TooLittle, TooMuch])
def test_noise_that_is_two_percent_off_is_rejected(broken: type[Scaled]) -> None:
    assert scale_p_value(noise_of(broken(SETTINGS, 20)), SD) < ALARM
    share = broken(SETTINGS, 20).privatize_share(SHORT, SITES, SEED.derive("share", broken.__name__))
    assert scale_p_value(share.values * share.step - SHORT, SD / math.sqrt(10)) < ALARM


def test_a_share_has_its_part_of_the_noise() -> None:
    """13 sites, 1 lost and 2 colluding: ten shares are the whole noise. False-alarm rate 1e-6 each."""
    source = SEED.derive("shares")
    shares = [MECHANISM.privatize_share(SHORT, SITES, source) for _ in range(10)]
    assert {(share.step, share.sites) for share in shares} == {(0.5 / STEPS_PER_CLIP, SITES)}
    noises = np.stack([share.values * share.step - SHORT for share in shares])
    assert scale_p_value(noises[0], SD / math.sqrt(10)) > ALARM
    assert scale_p_value(noises.sum(axis=0), SD) > ALARM
    assert scale_p_value(noises[:9].sum(axis=0), SD) < ALARM, "nine are not enough"
    assert shape_p_value(noises.sum(axis=0), SD) > ALARM


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_release_is_the_clipped_update_plus_noise_on_the_grid(dtype: type) -> None:
    update = np.linspace(-3, 3, 2_300_000).astype(dtype)  # over more than one chunk
    before = update.copy()
    with_update, without = (MECHANISM.privatize_share(u, SITES, SEED.derive("a")) for u in (update, 0 * update))
    np.testing.assert_array_equal(with_update.values - without.values, steps_of(update, SETTINGS.clip_norm))
    released = MECHANISM.privatize(update, SEED.derive("a"))
    assert released.dtype == np.float32
    assert released.shape == update.shape
    np.testing.assert_array_equal(update, before)


def test_updates_in_one_grid_cell_cannot_be_told_apart() -> None:
    """The low bits of a float leak nothing: only whole grid steps get to the noise."""
    update = np.array([0.1, -0.2, 0.0])
    nearby = update * (1 + 1e-9)
    assert (update != nearby).any()
    one, other = (MECHANISM.privatize(u, SEED.derive("low bits")) for u in (update, nearby))
    np.testing.assert_array_equal(one, other)


def test_no_two_releases_in_production_have_the_same_noise() -> None:
    one, other = (MECHANISM.privatize(SHORT, SystemNoise()) for _ in range(2))
    assert (one == other).mean() < 1e-3


# budget and refusals


def test_the_last_release_spends_the_budget_and_the_next_is_refused() -> None:
    spends = [MECHANISM.spend(releases) for releases in range(1, 21)]
    assert all(a.epsilon < b.epsilon for a, b in pairwise(spends))
    assert spends[-1].epsilon == pytest.approx(3, rel=1e-6)
    assert spends[-1].epsilon <= 3
    assert (spends[0].unit, spends[0].mechanism, spends[0].trust) == (
        "site",
        "gaussian_update",
        "nobody: holds against the hub too",
    )
    assert "up to 2 colluding sites and 1 lost ones" in MECHANISM.spend(1, MASKS).trust
    with pytest.raises(BudgetExhausted, match="release 21 is refused"):
        MECHANISM.spend(21)


class NoNoise:
    """A source that must not be asked."""

    def gaussian(self, size: int, sd: float) -> npt.NDArray[np.int64]:
        raise AssertionError(f"{size} values of sd {sd} were drawn")

    laplace = subset = gaussian


@pytest.mark.parametrize(
    "update",
    [
        np.zeros(3, dtype=np.int64),
        np.zeros(3, dtype=np.bool_),
        np.zeros(3, dtype=np.float16),
        np.zeros(3, dtype=np.complex128),
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
        MECHANISM.privatize(update, NoNoise())
    with pytest.raises(PrivacyError, match="stays at the site"):
        MECHANISM.privatize_share(update, SITES, NoNoise())


def test_too_few_sites_are_refused_before_noise_is_drawn() -> None:
    with pytest.raises(PrivacyError, match="it takes at least 4 sites"):
        MECHANISM.privatize_share(SHORT, 3, NoNoise())


def test_a_release_that_does_not_fit_float32_is_refused() -> None:
    wide = GaussianUpdateMechanism(SETTINGS.model_copy(update={"clip_norm": 3e38}), total_rounds=20)
    with pytest.raises(PrivacyError, match="does not fit float32"):
        wide.privatize(np.zeros(1000, dtype=np.float32), SEED.derive("wide"))


def recorded_gaps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The gaps of a release, as the mechanism counts them."""
    counted = list[float]()
    monkeypatch.setattr(gaussian_update, "check_sampler", lambda in_gaps, *_: counted.append(in_gaps))
    return counted


def test_all_values_of_all_sites_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the masks open is a sum with the noise of every site."""
    counted, update = recorded_gaps(monkeypatch), np.zeros(5000, dtype=np.float32)
    MECHANISM.privatize(update, SEED.derive("gaps"))
    MECHANISM.privatize_share(update, SITES, SEED.derive("gaps"))
    sds = [MECHANISM.noise_multiplier * 2**24, MECHANISM.share_sd(SITES)]
    assert counted == [2500 * sds[0] * 2.0**-271, SITES * 2500 * sds[1] * 2.0**-271]


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0, 100.0])
def test_no_usual_study_is_refused_for_gaps(epsilon: float) -> None:
    """Ten million values, an sd of 2^28 steps, 10 000 rounds, up to the largest epsilon of a study."""
    check_sampler(gaps("gaussian", 10_000_000, 2.0**28), 10_000, epsilon, 1e-12)


def test_noise_whose_gaps_would_count_is_refused_with_a_remedy() -> None:
    """delta grows by (1 + e^epsilon) times the gaps of all rounds: here (1 + e^3) * 20 * 1e-11 = 4.2e-9."""
    check_sampler(1e-11, 20, 3.0, 4.3e-7)
    with pytest.raises(
        PrivacyError,
        match=r"^gaps in the noise add 4\.2e-09 to delta over 20 rounds, more than a hundredth of 4\.1e-07: "
        r"raise privacy\.delta, or lower rounds\.total$",
    ):
        check_sampler(1e-11, 20, 3.0, 4.1e-7)
    with pytest.raises(PrivacyError, match=r"raise privacy\.delta or privacy\.epsilon, or lower rounds\.total$"):
        check_sampler(gaps("gaussian", 1_000_000, 2.0**38), 1, 0.01, 1e-5)
    with pytest.raises(PrivacyError, match="add nan to delta"):
        check_sampler(float("nan"), 1, 1.0, 1e-5)


def test_an_update_whose_noise_has_gaps_stays_before_noise_is_drawn() -> None:
    narrow = GaussianUpdateMechanism(SETTINGS.model_copy(update={"epsilon": 1e-4}), total_rounds=20)
    with pytest.raises(PrivacyError, match="gaps in the noise"):
        narrow.privatize(np.zeros(5000, dtype=np.float32), NoNoise())
    with pytest.raises(PrivacyError, match="gaps in the noise"):
        narrow.privatize_share(np.zeros(5000, dtype=np.float32), SITES, NoNoise())
