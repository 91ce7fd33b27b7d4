"""The keyed samplers: the standard's keystream, every grid step within reach, and nothing but the key matters."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from tasks.privacy.noise import keystream
from tasks.privacy.noise.keystream import BLOCK, derive_key, keyed_gaussian, keyed_laplace, keyed_subset
from tests.privacy.noise.chosen_bits import BITS, laplace, pair
from tests.privacy.noise.noise_tests import ALARM, low_bits_p_value

KEY = bytes(range(32))
LARGEST = 2.0**45 * 0.999
GAUSSIAN = [-553, -517, -793, -264, -921, 635]
LAPLACE = [-188, -558, 516, 1954, 1088, -242]
SUBSET = [3, 7, 8, 13, 16, 18]
DIGESTS = ["50c026a8f7f4d8b0", "72f06b0148179021", "2287d528c72fea54"]
Sampler = Callable[[bytes, int, float], keystream.Integers]
SAMPLERS = [keyed_gaussian, keyed_laplace]


def draw_bytes(key: bytes, stream: int, size: int) -> keystream.Bytes:
    return keystream.keystream(key, stream, np.full(size, 255, dtype=np.uint8))


# the keystream


def test_the_keystream_is_that_of_rfc_8439() -> None:
    """Appendix A.1, test vectors 1 (block 0 of the zero key and nonce) and 2 (block 1 of the same)."""
    stream = draw_bytes(bytes(32), 0, 128).tobytes()
    assert stream[:16].hex() == "76b8e0ada0f13d90405d6ae55386bd28"
    assert stream[64:80].hex() == "9f07e7be5551387a98ba977c732d080d"


def test_a_long_stream_continues_a_short_one_and_streams_differ() -> None:
    long = draw_bytes(KEY, 3, (1 << 20) + 100)
    assert (long[:50] == draw_bytes(KEY, 3, 50)).all()
    others = [draw_bytes(KEY, 2**95, 100), draw_bytes(KEY, 4, 100), long[1 << 20 :]]
    assert [int((long[:100] == other).sum() < 10) for other in others] == [1, 1, 1]


def test_keys_depend_on_the_secret_and_on_every_part_of_the_context() -> None:
    contexts = [("a", "bc"), ("ab", "c"), ("abc",), ("abc", ""), ("", "abc"), ("a|bc",), ()]
    keys = {derive_key(secret, *context) for context in contexts for secret in (KEY, bytes(32))}
    assert len(keys) == 14
    assert {len(key) for key in keys} == {32}


# the grid


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("scale", [2.0**27, LARGEST])
def test_noise_is_whole_steps_and_reaches_every_one(sampler: Sampler, scale: float) -> None:
    """Residues modulo 8 are equally common; false alarm 1e-6."""
    sample = sampler(KEY, 250_000, scale)
    assert sample.dtype == np.int64
    assert low_bits_p_value(sample) > ALARM
    assert low_bits_p_value(sample * 2) < ALARM, "a sampler that skips every other step"


@pytest.mark.parametrize("word", [0, 1, 2**11, 2**31 - 1, 2**31, 2**62, 2**63 - 2**31, 2**63 - 1])
@pytest.mark.parametrize("rest", [0, 2 ** (BITS - 63) - 1])
def test_extreme_words_give_noise_within_the_stated_tail(word: int, rest: int) -> None:
    u, angles = (word << (BITS - 63)) + rest, (0, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
    assert max(np.hypot(*pair(u, LARGEST, angle)) for angle in angles) < 19.42 * LARGEST
    assert abs(laplace(u, LARGEST)) < 188.6 * LARGEST


def test_the_smallest_uniform_reaches_the_stated_tail() -> None:
    assert [laplace(0, 1e6), laplace(0, 1e6, sign=1)] == [-188536033, 188536033]
    assert pair(0, 1e6).tolist() == [19418344, 0]


@pytest.mark.parametrize("eighth", range(8))
def test_the_angle_word_goes_once_around_the_circle(eighth: int) -> None:
    angle = np.pi * eighth / 4
    assert pair(1 << (BITS - 1), 1e9, eighth * 2**61) == pytest.approx(
        1e9 * np.sqrt(2 * np.log(2)) * np.array([np.cos(angle), np.sin(angle)]), abs=1
    )


# a function of the key alone


def test_the_streams_are_pinned() -> None:
    """Else recorded simulations could no longer be repeated. A scale of 1000 keeps clear of the last bit of log."""
    size = 2 * BLOCK + 3
    digests = [hashlib.sha256(sampler(KEY, size, 1000.0).tobytes()).hexdigest()[:16] for sampler in SAMPLERS]
    digests.append(hashlib.sha256(keyed_subset(KEY, size, 1000).tobytes()).hexdigest()[:16])
    assert keyed_gaussian(KEY, 6, 1000.0).tolist() == GAUSSIAN
    assert keyed_laplace(KEY, 6, 1000.0).tolist() == LAPLACE
    assert keyed_subset(KEY, 20, 6).tolist() == SUBSET
    assert digests == DIGESTS


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_number_of_threads_changes_nothing(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = set()
    for cores in (1, 2, 7, None):
        monkeypatch.setattr(keystream.os, "cpu_count", lambda cores=cores: cores)
        draws.add(sampler(KEY, 5 * BLOCK + 1, 1e6).tobytes())
    assert len(draws) == 1


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("size", [0, 1, 2, 7, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3])
def test_any_size(sampler: Sampler, size: int) -> None:
    sample = sampler(KEY, size, 1e9)
    assert sample.shape == (size,)
    assert (np.abs(sample) > 1e9 / 1000).sum() >= 0.995 * size - 2, "every value was written"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_failing_thread_fails_the_call(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_key: bytes, stream: int, out: keystream.Bytes) -> keystream.Bytes:
        if stream == 2:
            raise MemoryError("no keystream")
        return out

    monkeypatch.setattr(keystream, "keystream", fails)
    with pytest.raises(MemoryError, match="no keystream"):
        sampler(KEY, 4 * BLOCK, 1e6)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_large_draw_holds_its_result_and_a_few_blocks(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keystream.os, "cpu_count", lambda: 2)
    size = 24 * BLOCK
    tracemalloc.start()
    try:
        result = sampler(KEY, size, 1e6)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result.nbytes == 8 * size
    assert result.nbytes < peak < result.nbytes + 2 * 36 * BLOCK


# subsets


@pytest.mark.parametrize(("population", "size"), [(0, 0), (5, 0), (5, 5), (5, 2), (300_000, 1), (300_000, 123_456)])
def test_a_subset_has_its_size_no_repeats_and_ascends(population: int, size: int) -> None:
    subset = keyed_subset(KEY, population, size)
    assert subset.shape == (size,)
    assert subset.dtype == np.int64
    assert (np.diff(subset) > 0).all()
    assert ((subset >= 0) & (subset < population)).all()
