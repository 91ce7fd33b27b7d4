"""Selective sharing: which components are sent, and that nothing is lost between what is sent and what is kept."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import chi2
from tasks.privacy.mechanisms.compression import residual, top

from tasks.errors import PrivacyError
from tasks.privacy.codecs.sparse import Sparse, num_shared
from tasks.privacy.mechanisms import compression
from tasks.privacy.noise.source import SeededNoise
from tests.privacy.noise.noise_tests import ALARM

SEED = SeededNoise(bytes(range(32)))
Vector = npt.NDArray[np.floating]

few_values = st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 2.5])
updates = arrays(np.float32, st.integers(1, 60), elements=st.one_of(few_values, st.floats(-1e6, 1e6, width=32)))
fractions = st.floats(1e-6, 1.0)


@settings(max_examples=60)
@given(update=updates, fraction=fractions)
def test_top_sends_the_largest_and_of_equal_ones_the_first(update: Vector, fraction: float) -> None:
    sent = top(update, fraction)
    order = sorted(range(update.size), key=lambda i: (-abs(float(update[i])), i))
    assert sent.indices.tolist() == sorted(order[: num_shared(fraction, update.size)])
    np.testing.assert_array_equal(sent.values, update[sent.indices])
    assert (sent.size, sent.shortfall) == (update.size, 0)


@settings(max_examples=30)
@given(update=updates, fraction=fractions, name=st.text(max_size=5))
def test_random_sends_raw_components_and_exactly_the_fraction(update: Vector, fraction: float, name: str) -> None:
    sent = compression.random(update, fraction, SEED.derive(name))
    assert sent.indices.size == num_shared(fraction, update.size)
    np.testing.assert_array_equal(sent.values, update[sent.indices])


@settings(max_examples=30)
@given(update=updates, fraction=fractions)
def test_what_is_sent_and_what_is_kept_make_the_update(update: Vector, fraction: float) -> None:
    for sent in (top(update, fraction), compression.random(update, fraction, SEED.derive("residual"))):
        kept = residual(update, sent)
        assert kept.dtype == np.float32
        np.testing.assert_array_equal(sent.dense() + kept, update)
        assert not kept[sent.indices].any()


def subset_p_value(first_ones: bool) -> float:
    """2000 subsets of 10 out of 40: how often each index is in. Counts of a subset vary less, by (n - q) / (n - 1)."""
    update, counts = np.ones(40, dtype=np.float32), np.zeros(40)
    for i in range(2000):
        sent = top(update, 0.25) if first_ones else compression.random(update, 0.25, SEED.derive("uniform", str(i)))
        counts[sent.indices] += 1
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


def test_a_float64_update_is_sent_as_float32() -> None:
    update = np.array([1 / 3, -2 / 3, 1e-3])
    sent = top(update, 0.67)
    assert sent.indices.tolist() == [0, 1]
    np.testing.assert_array_equal(sent.values, update[:2].astype(np.float32))
    np.testing.assert_allclose(residual(update, sent), [0, 0, 1e-3], rtol=1e-6)


def test_a_zero_update_is_sent_as_zeros() -> None:
    sent = top(np.zeros(5, dtype=np.float32), 0.4)
    assert sent.indices.tolist() == [0, 1]
    assert not sent.dense().any()


@pytest.mark.parametrize(
    "update",
    [
        np.zeros(3, dtype=np.int64),
        np.zeros(3, dtype=np.bool_),
        np.zeros((3, 1)),
        np.zeros(()),
        np.zeros(0),
        np.array([0.0, math.nan]),
        np.array([math.inf, 0.0], dtype=np.float32),
    ],
    ids=lambda u: f"{u.dtype}-{u.shape}",
)
def test_what_is_no_finite_vector_is_refused(update: Vector) -> None:
    sent = top(np.ones(2), 0.5)
    for compress in (
        lambda: top(update, 0.5),
        lambda: compression.random(update, 0.5, SEED),
        lambda: residual(update, sent),
    ):
        with pytest.raises(PrivacyError, match="stays at the site"):
            compress()


@pytest.mark.filterwarnings("error")
def test_what_does_not_fit_float32_is_refused() -> None:
    with pytest.raises(PrivacyError, match="does not fit float32"):
        top(np.array([1e300, 1.0]), 0.5)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.0001, math.nan])
def test_a_fraction_outside_its_range_is_refused(fraction: float) -> None:
    with pytest.raises(PrivacyError, match="above 0 and at most 1"):
        top(np.ones(4), fraction)


def test_a_residual_needs_an_update_of_the_same_size() -> None:
    with pytest.raises(PrivacyError, match="3 components has no residual to one of 2"):
        residual(np.ones(3), top(np.ones(2), 0.5))


# sparse updates


def sparse(indices: list[int], values: list[float], size: int = 5) -> Sparse:
    return Sparse(np.array(indices, dtype=np.int32), np.array(values, dtype=np.float32), size)


def test_a_sparse_update_is_zero_where_nothing_was_sent() -> None:
    assert sparse([1, 4], [2.0, -3.0]).dense().tolist() == [0, 2, 0, 0, -3]
    assert sparse([], []).dense().tolist() == [0] * 5


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: sparse([4, 1], [1.0, 2.0]), "ascend"),
        (lambda: sparse([1, 1], [1.0, 2.0]), "ascend"),
        (lambda: sparse([-1, 1], [1.0, 2.0]), "ascend"),
        (lambda: sparse([1, 5], [1.0, 2.0]), "ascend within 0 to 4"),
        (lambda: sparse([0, 2**31 - 1, -5, 3], [1.0] * 4), "ascend"),
        (lambda: sparse([1, 2], [1.0]), "one length"),
        (lambda: sparse([1], [math.nan]), "not finite"),
        (lambda: sparse([1], [math.inf]), "not finite"),
        (lambda: Sparse(np.array([1]), np.array([1.0], dtype=np.float32), 5), "int32"),
        (lambda: Sparse(np.array([1], dtype=np.int32), np.array([1.0]), 5), "float32"),
    ],
)
def test_what_is_no_sparse_update_is_refused(make, names: str) -> None:
    with pytest.raises(PrivacyError, match=names):
        make()
