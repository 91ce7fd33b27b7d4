"""The noise: normal, of the right scale, independent, and a function of its key alone."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from noise_tests import (
    ALARM,
    Sample,
    correlation_p_value,
    low_bits_p_value,
    scale_p_value,
    shape_p_value,
    tail_p_value,
)

from tasks.errors import PrivacyError
from tasks.privacy import noise
from tasks.privacy.noise import derive_key, gaussian_integers

SECRET = bytes(range(32))
CONTEXT = ("derm56", "3", "701", "a" * 64, "terms", "b" * 64)
SD = 6.22 * 2**24
N = 250_000


def key(*context: str) -> bytes:
    return derive_key(SECRET, *context)


@pytest.fixture(scope="module")
def sample() -> Sample:
    return gaussian_integers(key("sample"), N, SD)


def broken(name: str) -> Sample:
    """What a wrong sampler would give: the tests below must reject it."""
    rng = np.random.default_rng(7)
    makers: dict[str, Callable[[], Sample]] = {
        "sd 2% too small": lambda: rng.normal(0, 0.98 * SD, N),
        "sd 2% too large": lambda: rng.normal(0, 1.02 * SD, N),
        "uniform of the same variance": lambda: rng.uniform(-1, 1, N) * SD * np.sqrt(3),
        "laplace of the same variance": lambda: rng.laplace(0, SD / np.sqrt(2), N),
        "cut at 2.9 sd": lambda: np.clip(rng.normal(0, SD, N), -2.9 * SD, 2.9 * SD),
        "shifted by 2% of sd": lambda: rng.normal(0.02 * SD, SD, N),
    }
    return np.rint(makers[name]()).astype(np.int64)


# shape and scale


def test_the_sample_is_normal_with_the_right_scale(sample: Sample) -> None:
    assert scale_p_value(sample, SD) > ALARM
    assert shape_p_value(sample, SD) > ALARM
    assert tail_p_value(sample, SD) > ALARM


@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_the_scale_test_rejects_a_wrong_scale(sample: Sample, factor: float) -> None:
    assert scale_p_value(sample, factor * SD) < ALARM


@pytest.mark.parametrize(
    ("name", "test"),
    [
        ("sd 2% too small", scale_p_value),
        ("sd 2% too large", scale_p_value),
        ("uniform of the same variance", shape_p_value),
        ("laplace of the same variance", shape_p_value),
        ("shifted by 2% of sd", shape_p_value),
        ("cut at 2.9 sd", tail_p_value),
    ],
)
def test_the_tests_reject_broken_noise(name: str, test: Callable[[Sample, float], float]) -> None:
    assert test(broken(name), SD) < ALARM


@pytest.mark.parametrize("sd", [1.0, 3.7, 2.0**40])
def test_any_scale_in_bounds_is_met(sd: float) -> None:
    rounded = np.sqrt(sd**2 + 1 / 12)  # rounding to whole steps adds the variance of a uniform
    assert scale_p_value(gaussian_integers(key("scale", str(sd)), N, sd), rounded) > ALARM


# the grid


def test_noise_is_whole_steps_and_reaches_every_one(sample: Sample) -> None:
    assert sample.dtype == np.int64
    assert low_bits_p_value(sample) > ALARM
    assert low_bits_p_value(gaussian_integers(key("largest"), N, noise.MAX_SD * 0.999)) > ALARM


def test_the_low_bits_test_rejects_a_float_that_skips_steps() -> None:
    z = np.random.default_rng(3).normal(size=N)
    assert low_bits_p_value(np.rint(z * 2.0**57).astype(np.int64)) < ALARM


@pytest.mark.parametrize("radius", [0.5, 2.0, 4.0, 6.0, 7.0, 8.0])
def test_neighbouring_radii_are_less_than_a_grid_step_apart(radius: float) -> None:
    """Else some sums could not have led to what was released, and an observer could tell."""
    first = round(2.0**64 * np.exp(-(radius**2) / 2))
    low_bit_changed = np.array([[first, first], [0, 1]], dtype="<u8")
    one, other = noise._normal_block(low_bit_changed.tobytes())[:2]
    assert one == pytest.approx(radius, rel=1e-6)
    assert abs(one - other) * 16.68 * 2**24 < 1


@pytest.mark.parametrize("word", [0, 1, 2**63, 2**64 - 1])
def test_extreme_words_give_finite_noise(word: int) -> None:
    z = noise._normal_block(np.array([[word], [word]], dtype="<u8").tobytes())
    assert np.isfinite(z).all()
    assert (np.abs(z) < 10.3).all()


# independence


def test_blocks_are_independent(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 1 << 16
    monkeypatch.setattr(noise, "_BLOCK", size)
    blocks = gaussian_integers(key("blocks"), 4 * size, SD).reshape(4, size)
    pairs = list(itertools.combinations(blocks, 2))
    assert len(pairs) == 6
    assert min(correlation_p_value(a, b) for a, b in pairs) > ALARM / 6
    assert min(correlation_p_value(a**2, b**2) for a, b in pairs) > ALARM / 6
    assert correlation_p_value(blocks[0], blocks[0] + blocks[1]) < ALARM, "the test can fail"


def test_the_two_halves_of_a_box_muller_pair_are_independent(sample: Sample) -> None:
    cosines, sines = np.split(sample, 2)
    assert correlation_p_value(cosines, sines) > ALARM
    assert correlation_p_value(cosines.astype(float) ** 2, sines.astype(float) ** 2) > ALARM
    assert correlation_p_value(sample[:-1], sample[1:]) > ALARM


def test_contexts_are_independent() -> None:
    draws = [gaussian_integers(key("context", str(i)), 20_000, SD) for i in range(20)]
    pairs = list(itertools.combinations(draws, 2))
    assert len(pairs) == 190
    assert min(correlation_p_value(a, b) for a, b in pairs) > ALARM / 190


@pytest.mark.parametrize("part", range(len(CONTEXT)))
def test_any_changed_part_of_the_context_changes_everything(part: int) -> None:
    changed = tuple(text + "x" if i == part else text for i, text in enumerate(CONTEXT))
    one, other = (gaussian_integers(key(*context), 20_000, SD) for context in (CONTEXT, changed))
    assert (one == other).sum() <= 1
    assert correlation_p_value(one, other) > ALARM


def test_another_secret_changes_everything() -> None:
    one, other = (gaussian_integers(derive_key(s, *CONTEXT), 20_000, SD) for s in (SECRET, bytes(32)))
    assert (one == other).sum() <= 1
    assert correlation_p_value(one, other) > ALARM


def test_parts_are_not_run_together() -> None:
    keys = {key("a", "bc"), key("ab", "c"), key("abc"), key("abc", ""), key("", "abc"), key("a|bc"), key()}
    assert len(keys) == 7


# a function of the key


def test_the_same_key_gives_the_same_bytes() -> None:
    draws = {gaussian_integers(key(*CONTEXT), 1001, SD).tobytes() for _ in range(3)}
    assert len(draws) == 1


@pytest.mark.parametrize("size", [0, 1, 2, 7, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (1 << 21) + 3])
def test_any_size(size: int) -> None:
    assert gaussian_integers(key("size"), size, SD).shape == (size,)


def test_a_large_draw_holds_a_few_copies_of_its_result() -> None:
    size = 3_000_000
    tracemalloc.start()
    try:
        result = gaussian_integers(key("large"), size, SD)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result.nbytes == 8 * size
    assert 2 * result.nbytes < peak < 6 * result.nbytes


# refusals


@pytest.mark.parametrize("sd", [0.0, 0.999, -5.0, float("nan"), float("inf"), float(noise.MAX_SD), 2.0**58])
def test_a_scale_out_of_bounds_is_refused(sd: float) -> None:
    with pytest.raises(PrivacyError, match="cannot be drawn"):
        gaussian_integers(key("refused"), 3, sd)


@pytest.mark.parametrize("length", [0, 16, 31])
def test_a_short_secret_is_refused(length: int) -> None:
    with pytest.raises(PrivacyError, match=f"has {length} bytes"):
        derive_key(bytes(length), *CONTEXT)
