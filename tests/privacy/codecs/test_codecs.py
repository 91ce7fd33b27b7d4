"""Every codec: what comes back of what is sent, how far it is off, what is sent, and what error feedback does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from tasks.errors import PrivacyError
from tasks.privacy.codecs import codec_of
from tasks.privacy.codecs.int8 import LEVELS
from tasks.privacy.codecs.random import RandomCodec
from tasks.privacy.codecs.sparse import Components, SparseCodec, num_shared
from tasks.privacy.codecs.top import TopCodec, largest
from tasks.privacy.noise.source import SeededNoise, SystemNoise
from tasks.privacy.sanitizer import specs_of
from tasks.store.weights import to_bytes
from tasks.study.codec import CODEC_SECTIONS
from tasks.study.privacy import SparseVector
from tests.privacy.codecs.codec_samples import KINDS, SITE, codec, plan_of, section, shape_of
from tests.privacy.noise.noise_tests import ALARM

Vector = npt.NDArray[np.float32]
SEED = SeededNoise(bytes(range(32)))
MAX = float(np.finfo(np.float32).max)
DENORMAL = float(np.finfo(np.float32).smallest_subnormal)
#: Half a unit of float32 in the last place, relative: what is left of every bound when it is computed in float32.
ROUNDING = 2.0**-23


@st.composite
def vectors(draw: st.DrawFn, largest_value: float = MAX) -> Vector:
    """1 to 5,000 values: normal ones on some scale, all equal, all zero, or with extremes and denormals among them."""
    size = draw(st.one_of(st.integers(1, 40), st.integers(1, 5000)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["normal", "equal", "zero", "extreme", "denormal"]))
    made = {
        "normal": rng.standard_normal(size) * 10.0 ** draw(st.integers(-6, 3)),
        "equal": np.full(size, draw(st.sampled_from([1.0, -0.5, 1e-30, -largest_value]))),
        "zero": np.zeros(size),
        "extreme": rng.choice([largest_value, -largest_value, 1.0, 0.0, -0.0, DENORMAL], size),
        "denormal": rng.integers(-200, 200, size) * DENORMAL,
    }[kind]
    return np.clip(made, -largest_value, largest_value).astype(np.float32)


def sent(kind: str, flat: Vector, noise: Any = None, **changes: Any) -> tuple[Vector, npt.NDArray[np.float32] | None]:
    """What the hub reads of one upload, and what the site keeps."""
    own = codec(kind, flat.size, **changes)
    tensors, kept = own.encode(flat, None, noise or SystemNoise())
    assert own.admits(specs_of(tensors))
    return own.read(bytearray(to_bytes(tensors)), SITE).numpy(), kept


@settings(max_examples=60, deadline=None)
@given(flat=vectors(), kind=st.sampled_from(["dense", "sparse"]))
def test_dense_and_sparse_lose_nothing(flat: Vector, kind: str) -> None:
    found, kept = sent(kind, flat)
    np.testing.assert_array_equal(found, flat)
    assert kept is None


@settings(max_examples=60, deadline=None)
@given(flat=vectors(65504.0))
def test_float16_is_off_by_half_a_unit_in_the_last_place(flat: Vector) -> None:
    found, kept = sent("float16", flat)
    error = np.abs(found.astype(np.float64) - flat)
    assert (error <= np.maximum(np.abs(flat) * 2.0**-11, 2.0**-25)).all()
    assert kept is not None
    np.testing.assert_array_equal(kept, flat - found)


@settings(max_examples=100, deadline=None)
@given(
    flat=vectors(),
    block=st.one_of(st.integers(16, 6000), st.just("tensor")),
    rounding=st.sampled_from(["nearest", "stochastic"]),
)
def test_int8_is_off_by_half_a_scale_or_stochastic_by_one(flat: Vector, block: Any, rounding: str) -> None:
    found, _ = sent("int8", flat, block=block, rounding=rounding)
    starts = (
        [0, flat.size // 3]
        if block == "tensor" and flat.size // 3
        else range(0, flat.size, block if block != "tensor" else flat.size)
    )
    ends = [*list(starts)[1:], flat.size]
    assert np.isfinite(found).all()
    for start, end in zip(starts, ends, strict=True):
        own, read = flat[start:end].astype(np.float64), found[start:end].astype(np.float64)
        scale = np.abs(own).max() / LEVELS
        off = scale * (0.5 if rounding == "nearest" else 1.0)
        # The scale itself is rounded, by a unit of float32 or of its denormals, and counts up to 127 times.
        assert (np.abs(read - own) <= off * (1 + 1e-4) + LEVELS * (DENORMAL + scale * ROUNDING)).all()
        if not own.any():
            assert not read.any()


@settings(max_examples=60, deadline=None)
@given(flat=vectors(), fraction=st.floats(1e-6, 1.0), kind=st.sampled_from(["top", "random"]))
def test_top_and_random_send_raw_components_and_keep_the_rest(flat: Vector, fraction: float, kind: str) -> None:
    own = codec(kind, flat.size, fraction=fraction, error_feedback=True)
    tensors, kept = own.encode(flat, None, SEED)
    found = own.read(to_bytes(tensors), SITE).numpy()
    assert tensors["values"].numel() == num_shared(fraction, flat.size)
    assert np.isin(found, [*flat, 0.0]).all()
    assert kept is not None
    assert kept.dtype == np.float32
    np.testing.assert_array_equal(found + kept, flat)
    assert not (kept != 0)[found != 0].any()


@settings(max_examples=60, deadline=None)
@given(flat=vectors(), fraction=st.floats(1e-6, 1.0))
def test_top_sends_the_largest_and_of_equal_ones_the_first(flat: Vector, fraction: float) -> None:
    assume(flat.size <= 200)
    count = num_shared(fraction, flat.size)
    order = sorted(range(flat.size), key=lambda i: (-abs(float(flat[i])), i))
    assert largest(flat, count).tolist() == sorted(order[:count])


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 5000), kind=st.sampled_from(sorted(KINDS)), seed=st.integers(0, 99))
def test_every_codec_says_what_it_sends_before_it_is_sent(size: int, kind: str, seed: int) -> None:
    own = codec(kind, size)
    flat = np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    tensors, _ = own.encode(flat, None, SEED)
    said, told = own.specs, specs_of(tensors)
    assert [(s.name, s.dtype) for s in said] == [(t.name, t.dtype) for t in told]
    assert own.admits(told)
    assert own.admits(said)
    for s, t in zip(said, told, strict=True):
        assert s.shape == t.shape or (s.name in own.varies and t.shape[0] < s.shape[0])


def test_there_is_a_kind_of_every_codec() -> None:
    assert {given["name"] for given in KINDS.values()} == set(CODEC_SECTIONS)


# bytes


def num_bytes(kind: str, flat: Vector, **changes: Any) -> int:
    tensors, _ = codec(kind, flat.size, **changes).encode(flat, None, SEED)
    return len(to_bytes(tensors))


def test_what_each_codec_takes_of_dense_float32() -> None:
    flat = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
    dense = num_bytes("dense", flat)
    share = {kind: num_bytes(kind, flat) / dense for kind in KINDS}
    share |= {f"{kind} 40%": num_bytes(kind, flat, fraction=0.4) / dense for kind in ("top", "random")}
    expected = {
        "dense": 1,
        "sparse": 1 + 1 / 32,
        "float16": 1 / 2,
        "int8": 1 / 4 + 1 / 1024,
        "int8 in small blocks": 1 / 4 + 1 / 16,
        "int8 by tensor": 1 / 4,
        "int8, stochastic": 1 / 4 + 1 / 1024,
        "top": 1 / 4 + 0.82 / 32,
        "random": 1 / 4 + 0.82 / 32,
        "top 40%": 0.4 + 1 / 32,
        "random 40%": 0.4 + 1 / 32,
    }
    assert share == pytest.approx(expected, abs=0.001)


def test_what_svt_sends_takes_less_than_an_index_of_four_bytes_a_value() -> None:
    """A tenth of the components: 35.8 bits of each instead of 64."""
    flat = np.zeros(100_000, dtype=np.float32)
    flat[np.sort(np.random.default_rng(0).choice(flat.size, 10_000, replace=False))] = 1.0
    privacy = SparseVector(mechanism="svt", epsilon=3, delta=1e-5, fraction=0.1, gamma=1, tau=0.1)
    own = codec_of(plan_of(privacy=privacy), shape_of(flat.size))
    assert isinstance(own, SparseCodec)
    assert own.most == 10_000
    tensors, kept = own.encode(flat, None, SEED)
    assert kept is None
    assert len(to_bytes(tensors)) < 0.6 * 8 * 10_000


@pytest.mark.parametrize("kind", ["top", "float16", "int8", "random"])
def test_a_plan_of_svt_may_ask_for_another_codec(kind: str) -> None:
    privacy = SparseVector(mechanism="svt", epsilon=3, delta=1e-5, fraction=0.1, gamma=1, tau=0.1)
    own = codec_of(plan_of(privacy=privacy, codec=section(kind)), shape_of(100))
    assert type(own) is type(codec(kind, 100))


# error feedback


def mean_of_rounds(kind: str, flat: Vector, rounds: int, **changes: Any) -> Vector:
    """The mean of what the hub reads when a site has the same update in every round."""
    own, kept, total = codec(kind, flat.size, **changes), None, np.zeros(flat.size)
    for number in range(rounds):
        tensors, left = own.encode(flat, kept, SEED.derive(kind, str(number)))
        kept = None if left is None else torch.from_numpy(left)
        total += own.read(to_bytes(tensors), SITE).numpy()
    return np.asarray(total / rounds)


#: Small components beside a large one, which float16 and int8 send as zero and top never sends.
LOSSY = {"float16": 2e-8, "int8": 1e-3, "int8 by tensor": 1e-3, "top": 1e-3, "random": 1e-3}


@pytest.mark.parametrize("kind", LOSSY)
def test_error_feedback_makes_the_mean_of_many_rounds_right_and_nothing_else_does(kind: str) -> None:
    """400 rounds: what is left of the last one is little of the mean. Without it most small components never arrive."""
    flat = np.full(64, LOSSY[kind], dtype=np.float32)
    flat[[5, 40]] = 1.0
    small = flat != 1
    with_it = mean_of_rounds(kind, flat, 400, error_feedback=True)
    without = mean_of_rounds(kind, flat, 400, error_feedback=False)
    np.testing.assert_allclose(with_it[small], flat[small], rtol=0.12)
    assert with_it[5] == pytest.approx(1.0, rel=0.03)
    assert (np.abs(without[small] - flat[small]) > 0.5 * flat[small]).mean() > 0.7


def test_stochastic_rounding_is_right_in_the_mean_and_nearest_is_not() -> None:
    """An offset of .3 scales, over 64 components and 400 rounds: the mean is normal, with an sd of .46 / 160 scales.

    Five of them: a false-alarm rate of 1e-6. SEED makes the outcome one and the same.
    """
    flat = np.full(64, 0.3 / LEVELS, dtype=np.float32)
    flat[5] = 1.0
    small = np.arange(64) != 5
    for rounding, right in (("stochastic", True), ("nearest", False)):
        mean = mean_of_rounds("int8", flat, 400, rounding=rounding, error_feedback=False)[small].mean() * LEVELS
        assert (abs(mean - 0.3) < 5 * 0.46 / math.sqrt(63 * 400)) == right


def test_uniform_coins_are_uniform() -> None:
    """256 cells of 2^16 draws: false-alarm rate 1e-6; squares of them are rejected. The mean goes by the same coins."""
    coins = SEED.derive("coins").uniform(1 << 16)
    assert coins.dtype == np.float32
    assert (coins >= 0).all()
    assert (coins < 1).all()
    for found, fits in ((coins, True), (coins**2, False)):
        counts = np.bincount((found * 256).astype(int), minlength=256)
        assert (chi2.sf((np.square(counts - 256) / 256).sum(), 255) > ALARM) == fits


@pytest.mark.parametrize("kind", ["dense", "sparse", "int8", "top"])
def test_what_was_kept_is_left_where_the_codec_has_no_error_feedback(kind: str) -> None:
    changes = {} if kind in ("dense", "sparse") else {"error_feedback": False}
    own, flat = codec(kind, 8, **changes), np.arange(8, dtype=np.float32)
    tensors, kept = own.encode(flat, torch.full((8,), 99.0), SEED)
    assert kept is None
    assert own.read(bytearray(to_bytes(tensors)), SITE).max() == 7


@pytest.mark.parametrize("kind", ["float16", "int8", "top", "random"])
def test_what_was_kept_of_another_model_is_refused(kind: str) -> None:
    own = codec(kind, 8, error_feedback=True)
    with pytest.raises(PrivacyError, match="of another model"):
        own.encode(np.ones(8, dtype=np.float32), torch.zeros(7), SEED)


@pytest.mark.parametrize("kind", ["int8", "top", "random"])
@pytest.mark.filterwarnings("error")
def test_a_sum_that_does_not_fit_float32_is_refused(kind: str) -> None:
    flat = np.full(8, MAX, dtype=np.float32)
    own = codec(kind, 8, error_feedback=True)
    with pytest.raises(PrivacyError, match="does not fit float32"):
        own.encode(flat, torch.from_numpy(flat), SEED)


@pytest.mark.parametrize("value", [65520.0, -65520.0, 1e30])
@pytest.mark.filterwarnings("error")
def test_what_does_not_fit_float16_is_refused(value: float) -> None:
    with pytest.raises(PrivacyError, match=r"does not fit float16.*stays at the site") as refused:
        sent("float16", np.array([1.0, value], dtype=np.float32))
    assert str(int(abs(value))) not in str(refused.value)


# which components


def subset_p_value(first_ones: bool) -> float:
    """2000 subsets of 10 out of 40: how often each index is in. Counts of a subset vary less, by (n - q) / (n - 1)."""
    update, counts = np.ones(40, dtype=np.float32), np.zeros(40)
    for i in range(2000):
        noise = SEED.derive("uniform", str(i))
        counts += sent("top" if first_ones else "random", update, noise)[0] != 0
    return float(chi2.sf(((counts - 500) ** 2 / 500).sum() * 39 / 30, 39))


def test_random_is_uniform_and_a_choice_by_index_is_rejected() -> None:
    """False-alarm rate 1e-6."""
    assert subset_p_value(first_ones=False) > ALARM
    assert subset_p_value(first_ones=True) < ALARM


@pytest.mark.parametrize(
    ("fraction", "size", "count"), [(1e-9, 7, 1), (0.4, 10, 4), (0.4, 11, 4), (0.5, 1, 1), (1.0, 7, 7), (0.999, 7, 7)]
)
def test_how_many_are_sent(fraction: float, size: int, count: int) -> None:
    assert num_shared(fraction, size) == count
    for kind, type_ in (("top", TopCodec), ("random", RandomCodec)):
        own = codec(kind, size, fraction=fraction)
        assert isinstance(own, type_)
        assert own.most == count


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.0001, math.nan])
def test_a_fraction_outside_its_range_is_refused(fraction: float) -> None:
    with pytest.raises(PrivacyError, match="above 0 and at most 1"):
        num_shared(fraction, 4)


# what a mechanism gives that sends some components


def components(indices: list[int], values: list[float], size: int = 5) -> Components:
    return Components(np.array(indices, dtype=np.int32), np.array(values, dtype=np.float32), size)


def test_components_are_zero_where_nothing_was_sent() -> None:
    assert components([1, 4], [2.0, -3.0]).dense().tolist() == [0, 2, 0, 0, -3]
    assert components([], []).dense().tolist() == [0] * 5


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: components([4, 1], [1.0, 2.0]), "ascend"),
        (lambda: components([1, 1], [1.0, 2.0]), "ascend"),
        (lambda: components([-1, 1], [1.0, 2.0]), "ascend"),
        (lambda: components([1, 5], [1.0, 2.0]), "ascend within 0 to 4"),
        (lambda: components([0, 2**31 - 1, -5, 3], [1.0] * 4), "ascend"),
        (lambda: components([1, 2], [1.0]), "one length"),
        (lambda: components([1], [math.nan]), "not finite"),
        (lambda: components([1], [math.inf]), "not finite"),
        (lambda: Components(np.array([1]), np.array([1.0], dtype=np.float32), 5), "int32"),
        (lambda: Components(np.array([1], dtype=np.int32), np.array([1.0]), 5), "float32"),
    ],
)
def test_what_are_no_components_is_refused(make: Any, names: str) -> None:
    with pytest.raises(PrivacyError, match=names):
        make()
