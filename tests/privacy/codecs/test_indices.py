"""Ascending indices as bits: back to the last one, never larger than a bitmap, and near what any code needs."""

from __future__ import annotations

from math import lgamma, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.privacy.codecs.indices import MAX_LOW, max_bytes, pack_indices, unpack_indices


@st.composite
def index_sets(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """Of a vector of 1 to 5,000: none, all, one end, or each with some probability."""
    size = draw(st.integers(1, 5000))
    share = draw(st.sampled_from([0.0, 0.0005, 0.003, 0.01, 0.1, 0.3, 0.4, 0.5, 0.9, 1.0]))
    chosen = np.random.default_rng(draw(st.integers(0, 2**32))).random(size) < share
    chosen[-1] |= draw(st.booleans())
    return np.flatnonzero(chosen), size


@settings(max_examples=300)
@given(case=index_sets())
def test_every_set_comes_back_and_takes_no_more_than_its_bitmap_and_a_byte(case: tuple[np.ndarray, int]) -> None:
    indices, size = case
    packed = pack_indices(indices)
    np.testing.assert_array_equal(unpack_indices(packed, indices.size, size), indices)
    assert packed.size <= max_bytes(size) == 1 + -(-size // 8)


@pytest.mark.parametrize("indices", [[], [0], [4999], [0, 4999], list(range(5000)), list(range(0, 5000, 2))])
def test_the_ends_and_the_whole(indices: list[int]) -> None:
    packed = pack_indices(np.array(indices, dtype=np.int32))
    assert unpack_indices(packed, len(indices), 5000).tolist() == indices


def test_a_far_index_takes_a_few_bytes() -> None:
    """2^30 - 1, the last of the largest model: in a bitmap it would be 128 MB."""
    packed = pack_indices(np.array([2**30 - 1]))
    assert packed.size <= 8
    assert unpack_indices(packed, 1, 2**30).tolist() == [2**30 - 1]


@pytest.mark.parametrize("share", [0.0003, 0.001, 0.01, 0.05, 0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5])
def test_a_set_takes_at_most_4_percent_more_bits_than_any_code_needs(share: float) -> None:
    """Shannon: log2 of the number of subsets of this size. Eight bytes for the ends of the two streams and k."""
    size = 400_000
    indices = np.flatnonzero(np.random.default_rng(1).random(size) < share)
    chosen, left = indices.size, size - indices.size
    needed = (lgamma(size + 1) - lgamma(chosen + 1) - lgamma(left + 1)) / log(2)
    assert needed <= 8 * pack_indices(indices).size <= 1.04 * needed + 64


def test_what_is_nearly_even_takes_what_a_bitmap_would_and_what_is_thin_far_less() -> None:
    even, thin = np.arange(0, 8000, 2), np.arange(0, 8000, 400)
    assert (pack_indices(even)[0], pack_indices(even).size) == (0, 1001)
    assert pack_indices(thin)[0] in (7, 8)
    assert pack_indices(thin).size < 35


def coded(low: int, unary: str, lows: str = "") -> np.ndarray:
    """Bytes of two streams of bits, each filled with zeros."""
    streams = [np.packbits(np.array([int(bit) for bit in bits], dtype=np.uint8)) for bits in (unary, lows)]
    return np.concatenate([np.array([low], dtype=np.uint8), *streams])


@pytest.mark.parametrize(
    ("packed", "count", "says"),
    [
        (np.zeros(0, dtype=np.uint8), 0, "do not begin with how many low bits"),
        (coded(MAX_LOW + 1, "1", "0" * 31), 1, "do not begin with how many low bits"),
        (coded(255, "1"), 1, "do not begin with how many low bits"),
        (coded(0, ""), 1, "are not 1, as many as its values"),
        (coded(0, "0101"), 1, "are not 1, as many"),
        (coded(0, "0101"), 3, "are not 3, as many"),
        (coded(0, "1" * 8 + "0" * 8), 8, "are not 8, as many"),  # a byte more than the last index needs
        (coded(0, "1" * 9)[:-1], 9, "are not 9, as many"),  # a bitmap that is cut off
        (coded(0, "0" * 8), 0, "are not 0, as many"),  # bytes of no index
        (coded(0, "0000000000001"), 1, "must stay below 12"),
        (coded(0, "1" * 13), 13, "must stay below 12"),
        (coded(2, "01", "11"), 2, "too short for 2 values|are not 2"),
        (coded(3, "1", "10000001"), 1, "end in bits that mean nothing"),
        (coded(30, "1", "1" * 30), 1, "must stay below 12"),
        (coded(30, "01", "0" * 30), 1, "must stay below 12"),
        (coded(3, "0" * 7 + "1", "000"), 1, "must stay below 12"),
        (coded(30, "1")[:1], 1, "too short for 1 values"),
    ],
)
def test_what_is_no_set_below_12_is_refused(packed: np.ndarray, count: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        unpack_indices(packed, count, 12)


@settings(max_examples=500)
@given(packed=st.binary(max_size=40), count=st.integers(0, 40))
def test_any_bytes_are_a_set_or_a_refusal(packed: bytes, count: int) -> None:
    try:
        found = unpack_indices(np.frombuffer(packed, dtype=np.uint8), count, 200)
    except ValueError:
        return
    assert found.size == count
    assert (np.diff(found) > 0).all()
    assert count == 0 or (found[0] >= 0 and found[-1] < 200)
