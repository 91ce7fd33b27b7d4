"""Patient-level DP: the sensitivity of the clipped sum is exact, and the noise is what the budget asks for."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tasks.errors import BudgetExhausted, PrivacyError
from tasks.privacy.mechanisms.local_dp import LocalDPMechanism
from tasks.privacy.noise.grid import STEPS_PER_CLIP, clip_to_grid
from tasks.privacy.noise.source import SeededNoise, SystemNoise
from tasks.study.privacy import LocalDP
from tests.privacy.noise.noise_tests import ALARM, scale_p_value, shape_p_value

SEED = SeededNoise(bytes(range(32)))
SETTINGS = LocalDP(mechanism="local_dp", epsilon=3, delta=1e-5, clip_norm=0.5, public_num_examples=211)
MECHANISM = LocalDPMechanism(SETTINGS, total_rounds=20)

Rows = npt.NDArray[np.float64]
any_float = st.floats(allow_nan=False, allow_infinity=False, width=64)
plain = st.floats(-3, 3)


@st.composite
def patients(draw: st.DrawFn) -> Rows:
    shape = (draw(st.integers(1, 8)), draw(st.integers(1, 12)))
    return draw(arrays(np.float64, shape, elements=st.one_of(plain, any_float)))


def squared_norm(steps: npt.NDArray[np.int64]) -> int:
    """In Python's integers: exact."""
    return sum(int(step) ** 2 for step in steps)


# sensitivity


@pytest.mark.filterwarnings("ignore:overflow")
@settings(max_examples=300)
@given(rows=patients(), who=st.integers(0, 7), clip_norm=st.floats(1e-6, 1e6))
def test_one_patient_moves_the_sum_by_at_most_one_clip_norm(rows: Rows, who: int, clip_norm: float) -> None:
    without = np.delete(rows, who % len(rows), axis=0)
    difference = clip_to_grid(rows, clip_norm) - clip_to_grid(without, clip_norm)
    assert squared_norm(difference) <= STEPS_PER_CLIP**2


@pytest.mark.parametrize("size", [1, 2, 23, 369, 10_000])
@pytest.mark.parametrize("scale", [1.0, 1 + 1e-15, 7.0, 1e30])
def test_a_long_gradient_uses_the_whole_clip_norm_and_no_more(size: int, scale: float) -> None:
    direction = np.random.default_rng(size).normal(size=(1, size))
    rows = scale * direction / np.linalg.norm(direction)
    length = math.sqrt(squared_norm(clip_to_grid(rows, 1.0))) / STEPS_PER_CLIP
    assert 1 - math.sqrt(size) / STEPS_PER_CLIP - 1e-9 <= length <= 1


def test_clipping_keeps_short_gradients_and_shortens_long_ones() -> None:
    rows = np.array([[0.3, 0.4], [30.0, 40.0]])
    grid = STEPS_PER_CLIP / 2.0
    np.testing.assert_allclose(clip_to_grid(rows[:1], 2.0) / grid, [0.3, 0.4], atol=1e-6)
    np.testing.assert_allclose(clip_to_grid(rows[1:], 2.0) / grid, [1.2, 1.6], atol=1e-6)
    np.testing.assert_array_equal(clip_to_grid(rows, 2.0), clip_to_grid(rows[:1], 2.0) + clip_to_grid(rows[1:], 2.0))


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("value", [1e300, -1e300, 1e160, 3.4e38, 1e-38, 1e-300, 5e-324, -5e-324, 0.0])
def test_adversarial_sizes_stay_within_the_sensitivity(value: float) -> None:
    rows = np.full((1, 5), value)
    assert squared_norm(clip_to_grid(rows, 1.0)) <= STEPS_PER_CLIP**2
    mixed = np.array([[value, 1.0, -1.0, 0.0, 1e-310]])
    assert squared_norm(clip_to_grid(mixed, 1e-3)) <= STEPS_PER_CLIP**2


@pytest.mark.filterwarnings("ignore:overflow")
@settings(max_examples=100)
@given(rows=patients(), value=st.sampled_from([math.nan, math.inf, -math.inf]), clip_norm=st.floats(1e-6, 1e6))
def test_a_gradient_that_is_not_finite_counts_as_zero_and_is_not_refused(
    rows: Rows, value: float, clip_norm: float
) -> None:
    """A refusal would tell, without noise, that there is such a patient; so would an effect on the other patients."""
    rows[-1, 0] = value
    total = clip_to_grid(rows, clip_norm)
    np.testing.assert_array_equal(total, clip_to_grid(rows[:-1], clip_norm))
    rows[-1] = 0.0
    np.testing.assert_array_equal(total, clip_to_grid(rows, clip_norm))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_release_with_a_gradient_that_is_not_finite_is_that_with_a_zero_gradient(value: float) -> None:
    """The same noise and the same bytes: nobody who sees the release learns that there is such a gradient."""
    rows = np.random.default_rng(7).normal(size=(3, 4))
    rows[1, 2] = value
    zeroed, without = rows.copy(), np.delete(rows, 1, axis=0)
    zeroed[1] = 0.0
    released, again, other = (
        MECHANISM.privatize(clip_to_grid(part, SETTINGS.clip_norm), SEED.derive("not finite"))
        for part in (rows, zeroed, without)
    )
    assert torch.equal(released, again)
    assert torch.equal(released, other)
    assert torch.isfinite(released).all()
    moved = clip_to_grid(np.ones((3, 4)), SETTINGS.clip_norm) - clip_to_grid(rows, SETTINGS.clip_norm)
    assert moved.any(), "the finite gradients beside it count"


def test_the_check_behind_the_clipping_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the norm were computed wrongly, the exact check on the grid would stop the sum."""
    monkeypatch.setattr(np.linalg, "norm", lambda rows, **_: np.full((len(rows), 1), 1e-9))
    with pytest.raises(PrivacyError, match="longer than the clip norm"):
        clip_to_grid(np.ones((1, 4)), 1.0)


def test_the_check_is_exact_to_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "trunc", lambda _: np.array([[STEPS_PER_CLIP, 1.0]]))
    with pytest.raises(PrivacyError, match="longer than the clip norm"):
        clip_to_grid(np.ones((1, 2)), 1.0)


def test_no_patients_sum_to_zero() -> None:
    np.testing.assert_array_equal(clip_to_grid(np.empty((0, 3)), 1.0), np.zeros(3, dtype=np.int64))


# noise


class Scaled(LocalDPMechanism):
    """A broken copy: noise of the wrong size."""

    factor = 1.0

    @property
    def noise_multiplier(self) -> float:
        return self.factor * super().noise_multiplier


class TooLittle(Scaled):
    factor = 0.98


class TooMuch(Scaled):
    factor = 1.02


def noise_of(mechanism: LocalDPMechanism, context: str) -> Rows:
    """Release minus truth, 2500 releases of 100 values."""
    truth = np.arange(-50, 50, dtype=np.int64) * (STEPS_PER_CLIP // 7)
    source = SEED.derive("local_dp", context)
    releases = np.stack([mechanism.privatize(torch.from_numpy(truth), source).numpy() for _ in range(2500)])
    return releases - truth * (SETTINGS.clip_norm / STEPS_PER_CLIP)


def test_noise_of_a_release_has_the_sd_of_the_budget() -> None:
    """False-alarm rate 1e-6 each."""
    noise, sd = noise_of(MECHANISM, "right"), MECHANISM.noise_multiplier * SETTINGS.clip_norm
    assert sd == pytest.approx(3.11, abs=0.005)
    assert scale_p_value(noise, sd) > ALARM
    assert shape_p_value(noise, sd) > ALARM
    assert scale_p_value(noise.sum(axis=1), 10 * sd) > ALARM, "coordinates of one release are independent"
    assert scale_p_value(noise.sum(axis=0), 50 * sd) > ALARM, "releases are independent"


@pytest.mark.parametrize("broken", [TooLittle, TooMuch])
def test_noise_that_is_two_percent_off_is_rejected(broken: type[Scaled]) -> None:
    noise = noise_of(broken(SETTINGS, 20), broken.__name__)
    assert scale_p_value(noise, MECHANISM.noise_multiplier * SETTINGS.clip_norm) < ALARM


def test_a_release_is_the_sum_plus_noise_on_the_grid() -> None:
    total = torch.tensor([3 * STEPS_PER_CLIP, -5, 0])
    zero = torch.zeros(3, dtype=torch.int64)
    grid = STEPS_PER_CLIP / SETTINGS.clip_norm
    with_sum, without = (MECHANISM.privatize(t, SEED.derive("a")) * grid for t in (total, zero))
    assert torch.equal((with_sum - without).round().long(), total)
    assert torch.equal(with_sum, with_sum.round())


def test_arrays_are_taken_as_tensors_are() -> None:
    array = np.arange(5)
    assert torch.equal(
        MECHANISM.privatize(array, SEED.derive("b")), MECHANISM.privatize(torch.from_numpy(array), SEED.derive("b"))
    )
    np.testing.assert_array_equal(array, np.arange(5))


def test_no_two_releases_in_production_have_the_same_noise() -> None:
    total = torch.arange(5)
    first, again = (MECHANISM.privatize(total, SystemNoise()) for _ in range(2))
    assert (first != again).all()


# budget


def test_the_last_release_spends_the_budget_and_the_next_is_refused() -> None:
    spends = [MECHANISM.spend(releases) for releases in range(1, 21)]
    assert all(a.epsilon < b.epsilon for a, b in pairwise(spends))
    assert spends[-1].epsilon <= 3
    assert spends[-1].epsilon == pytest.approx(3, rel=1e-6)
    assert (spends[0].unit, spends[0].mechanism, spends[0].epsilon_budget) == ("patient", "local_dp", 3)
    assert spends[0].trust == "nobody: holds against the hub too"
    for beyond in (21, 22, 10_000):
        with pytest.raises(BudgetExhausted, match=f"release {beyond} is refused: epsilon 3.0 pays for 20 rounds"):
            MECHANISM.spend(beyond)


def test_a_ledger_that_counts_from_nought_is_refused() -> None:
    with pytest.raises(PrivacyError, match="counted from 1, not from 0"):
        MECHANISM.spend(0)


# refusals


class NoNoise:
    """A source that must not be asked."""

    def gaussian(self, size: int, sd: float) -> npt.NDArray[np.int64]:
        raise AssertionError(f"{size} values of sd {sd} were drawn")

    laplace = subset = gaussian


@pytest.mark.parametrize(
    "total",
    [
        torch.zeros(3, dtype=torch.float32),
        torch.zeros(3, dtype=torch.float64),
        torch.zeros(3, dtype=torch.int32),
        torch.zeros(3, dtype=torch.bool),
        torch.zeros((3, 1), dtype=torch.int64),
        torch.zeros((), dtype=torch.int64),
        torch.zeros(0, dtype=torch.int64),
    ],
    ids=lambda t: f"{t.dtype}-{tuple(t.shape)}",
)
def test_what_is_no_vector_of_grid_steps_is_refused(total: torch.Tensor) -> None:
    for vector in (total, total.numpy()):
        with pytest.raises(PrivacyError, match="int64 grid steps"):
            MECHANISM.privatize(vector, NoNoise())


def test_noise_that_has_gaps_beside_delta_is_refused() -> None:
    total = np.zeros(5000, dtype=np.int64)
    for changes in ({"epsilon": 1e-4}, {"delta": 1e-70}):
        narrow = LocalDPMechanism(SETTINGS.model_copy(update=changes), total_rounds=20)
        with pytest.raises(PrivacyError, match="gaps in the noise add"):
            narrow.privatize(total, NoNoise())
