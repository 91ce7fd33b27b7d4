from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from tasks.errors import PrivacyError
from tasks.privacy.secure_sum import masks
from tasks.privacy.secure_sum.masks import (
    apply_masks,
    decode_fixed_point,
    encode_fixed_point,
    require_headroom,
    to_signed,
)

SEEDS = [bytes([number]) * 32 for number in range(1, 8)]
LARGEST = 2**63 - 1


def keystream(seed: bytes, size: int) -> npt.NDArray[np.uint64]:
    """In one piece, without the module."""
    cipher = Cipher(algorithms.ChaCha20(seed, bytes(16)), mode=None).encryptor()
    return np.frombuffer(cipher.update(bytes(8 * size)), dtype="<u8")


def test_layout_is_the_keystream_of_rfc_8439() -> None:
    """Appendix A.1, vectors 1 and 2: zero key and nonce, blocks 0 and 1, read as little-endian words."""
    masked = apply_masks(np.zeros(16, dtype=np.int64), [bytes(32)], [])
    assert [hex(value) for value in masked[[0, 1, 8, 9]]] == [
        "0x903df1a0ade0b876",
        "0x28bd8653e56a5d40",
        "0x7a385155bee7079f",
        "0xd082d737c97ba98",
    ]


@pytest.mark.parametrize("size", [1, 7, 8, 9, 2**15 - 1, 2**15, 2**15 + 1, 3 * 2**15 + 5, 10 * 2**15])
def test_masks_are_whole_keystreams_whatever_the_size_and_threads(size: int) -> None:
    values = np.random.default_rng(size).integers(-(2**63), LARGEST, size, endpoint=True)
    expected = values.astype(np.uint64)
    for number, seed in enumerate(SEEDS):
        expected = expected + keystream(seed, size) if number < 4 else expected - keystream(seed, size)
    before = values.copy()
    for threads in (None, 1, 2, 3, 8):
        np.testing.assert_array_equal(apply_masks(values, SEEDS[:4], SEEDS[4:], threads=threads), expected)
    np.testing.assert_array_equal(values, before)


def test_exchanged_lists_take_the_masks_off() -> None:
    values = np.array([0, 1, -1, LARGEST, -LARGEST, -(2**63)], dtype=np.int64)
    masked = apply_masks(values, SEEDS[:3], SEEDS[3:])
    assert not (masked == values.view(np.uint64)).any()
    np.testing.assert_array_equal(to_signed(apply_masks(masked, SEEDS[3:], SEEDS[:3])), values)
    np.testing.assert_array_equal(to_signed(apply_masks(values, [], [])), values)


@pytest.mark.parametrize(
    ("values", "seeds", "message"),
    [
        (np.zeros(0, dtype=np.int64), SEEDS, "a vector of 0 values"),
        (np.zeros((2, 2), dtype=np.int64), SEEDS, "a vector of 64-bit integers"),
        (np.zeros(2), SEEDS, "not float64"),
        (np.zeros(2, dtype=np.int32), SEEDS, "not int32"),
        (np.zeros(2, dtype=np.int64), [bytes(31)], "a mask's seed has 32 bytes"),
    ],
)
def test_what_is_no_vector_or_seed_is_refused(values: npt.NDArray[np.int64], seeds: list[bytes], message: str) -> None:
    with pytest.raises(PrivacyError, match=message):
        apply_masks(values, seeds, [])


def test_vectors_that_would_overflow_the_block_counter_are_refused() -> None:
    """A view that repeats one value: 256 GiB of them take no memory."""
    too_long = np.broadcast_to(np.int64(0), (masks.MAX_VALUES + 1,))
    with pytest.raises(PrivacyError, match="cannot be masked"):
        apply_masks(too_long, SEEDS, [])
    last_block = masks.MAX_VALUES - 8
    assert len(masks._keystream(SEEDS[0], last_block).update(bytes(64))) == 64
    with pytest.raises(ValueError, match="overflow"):  # the library counts no further either
        masks._keystream(SEEDS[0], last_block).update(bytes(65))


@pytest.mark.parametrize("num_sites", [1, 3, 12, 1000])
def test_headroom_ends_where_the_sum_may_overflow(num_sites: int) -> None:
    limit = LARGEST // num_sites
    extremes = np.array([limit, -limit], dtype=np.int64)
    require_headroom(extremes, num_sites)
    assert int(to_signed(np.full(2, limit, dtype=np.uint64) * np.uint64(num_sites))[0]) == limit * num_sites
    for beyond in (-limit - 1, limit + 1 if num_sites > 1 else -(2**63)):
        with pytest.raises(PrivacyError, match=f"the sum of {num_sites} sites may overflow"):
            require_headroom(np.array([0, beyond], dtype=np.int64), num_sites)


def test_headroom_needs_signed_values_and_a_site() -> None:
    for values, num_sites in ((np.ones(1, dtype=np.uint64), 3), (np.ones(1, dtype=np.int64), 0)):
        with pytest.raises(PrivacyError, match="a sum needs int64 vectors"):
            require_headroom(values, num_sites)


def test_fixed_point_rounds_to_the_nearest_step() -> None:
    values = np.array([0.0, -0.0, 0.24, 0.26, -0.26, 0.25, 0.75, -1e6, 12345.678])
    encoded = encode_fixed_point(values, 0.5, 3)
    assert encoded.tolist() == [0, 0, 0, 1, -1, 0, 2, -2_000_000, 24691]
    np.testing.assert_array_equal(decode_fixed_point(encoded, 0.5), encoded * 0.5)
    noise = np.random.default_rng(0).normal(size=10_000)
    step = 2.0**-30
    assert np.abs(decode_fixed_point(encode_fixed_point(noise, step, 12), step) - noise).max() <= step / 2


@pytest.mark.parametrize(
    ("values", "step", "message"),
    [
        ([0.0, np.nan], 0.5, "NaN or infinite"),
        ([np.inf], 0.5, "NaN or infinite"),
        ([-np.inf], 0.5, "NaN or infinite"),
        ([], 0.5, "a vector of 0 values"),
        ([1.0], 0.0, "step must be finite and positive"),
        ([1.0], -1.0, "step must be finite and positive"),
        ([1.0], np.nan, "step must be finite and positive"),
        ([1.0], np.inf, "step must be finite and positive"),
        ([2.0**63], 1.0, "does not fit 64 bits"),
        ([-(2.0**63)], 1.0, "does not fit 64 bits"),
        ([1e300], 1e-300, "does not fit 64 bits"),
        ([2.0**62], 1.0, "the sum of 3 sites may overflow"),
    ],
)
def test_what_has_no_fixed_point_is_refused(values: list[float], step: float, message: str) -> None:
    with pytest.raises(PrivacyError, match=message):
        encode_fixed_point(np.array(values), step, 3)
