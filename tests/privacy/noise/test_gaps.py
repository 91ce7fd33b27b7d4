"""Gaps in the noise: which there would be without further bits, which there are with them, and how they are counted."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import kstest

from tasks.privacy.noise import keystream
from tasks.privacy.noise.keystream import BLOCK, keyed_gaussian, keyed_laplace
from tasks.privacy.noise.source import MAX_SCALE, SMALL, gaps
from tests.privacy.noise.chosen_bits import BITS, find, laplace, pair, split
from tests.privacy.noise.noise_tests import ALARM

KEY = bytes(range(32))
Sampler = Callable[[bytes, int, float], keystream.Integers]
Draw = Callable[[int], int]
SAMPLERS = [keyed_gaussian, keyed_laplace]


def value_of(scale: float) -> Draw:
    return lambda u: laplace(u, scale)


def minus_radius_of(sd: float) -> Draw:
    return lambda u: -int(pair(u, sd)[0])


def without_further_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keystream, "_EDGE", 0)


# every grid step is reached

PLACES = [
    *(pytest.param(value_of(2.0**44), -round(y * 2**44), id=f"laplace-{y}") for y in (22.5, 40, 54, 60, 90, 150)),
    *(pytest.param(minus_radius_of(2.0**37), -round(r * 2**37), id=f"gaussian-{r}") for r in (7, 10.4, 12, 17)),
    *(pytest.param(minus_radius_of(2.0**37), -steps, id=f"centre-{steps}") for steps in (15, 1000, 10**6)),
]


@pytest.mark.parametrize(("draw", "start"), PLACES)
def test_every_grid_step_is_reached(draw: Draw, start: int) -> None:
    assert [draw(find(draw, start + step)) - start for step in range(16)] == list(range(16))


@pytest.mark.parametrize(("draw", "start"), PLACES[2:6] + PLACES[8:])
def test_without_further_bits_most_would_not_be(draw: Draw, start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    without_further_bits(monkeypatch)
    reached = [draw(find(draw, start + step)) == start + step for step in range(16)]
    assert sum(reached) <= 8


@pytest.mark.parametrize("exponent", [1, 30, 33, 60, 79, 80, 143, 200, 270])
def test_values_are_those_of_exact_arithmetic(exponent: int) -> None:
    """By Python's logarithm of whole numbers, with its 271 bits, at both ends."""
    for odd in (1, 3, 5, 12345):
        u = (odd << BITS) >> (exponent + odd.bit_length())
        exponential = (BITS + 1) * math.log(2) - math.log(2 * u + 1)
        assert laplace(u, 2.0**40) == pytest.approx(-(2.0**40) * exponential, rel=1e-14, abs=1)
        assert pair(u, 2.0**40)[0] == pytest.approx(2.0**40 * math.sqrt(2 * exponential), rel=1e-14, abs=1)
        nearly_one = (1 << BITS) - 1 - u
        radius = math.sqrt(-2 * math.log1p(-(2 * u + 1) / 2 ** (BITS + 1)))
        assert pair(nearly_one, 2.0**44)[0] == pytest.approx(2.0**44 * radius, rel=1e-7, abs=1)


@pytest.mark.parametrize("turned", [False, True])
def test_a_draw_near_an_end_has_the_law_of_every_other(turned: bool) -> None:
    """All bits that a block reads alike, the further ones random: u, or 1 - u, is uniform below 2^-79."""
    words = np.full(100_000, (1 << 63) - 1 if turned else 0, dtype=np.uint64)
    extra = np.full(words.size, 0xFFFF if turned else 0, dtype=np.uint16)
    further = np.random.default_rng(5).integers(0, 1 << 64, (words.size, 3), dtype=np.uint64)
    logs = keystream._log_uniform(words, extra, lambda n: further[:n], *np.empty((2, words.size)), near_one=turned)
    uniform = -np.expm1(logs) * 2.0**79 if turned else np.exp(logs) * 2.0**79
    assert kstest(uniform, "uniform").pvalue > ALARM
    assert kstest(uniform * 1.02, "uniform").pvalue < ALARM, "a law of another width is rejected"


# which draws, and from where


@pytest.mark.parametrize(
    ("word", "asks"),
    [(2**31 - 1, True), (2**31, False), (2**62, False), (2**63 - 2**31 - 1, False), (2**63 - 2**31, True)],
)
@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("near_one", [False, True])
def test_only_draws_near_an_end_ask_for_further_bits(word: int, asks: bool, sign: int, near_one: bool) -> None:
    asked: list[int] = []

    def further(draws: int) -> keystream.Words:
        asked.append(draws)
        return np.zeros((draws, 3), dtype=np.uint64)

    words = np.array([2**40, word | sign << 63, 2**61], dtype=np.uint64)
    before = -np.log(((words & np.uint64(2**63 - 1)).view(np.int64) + 0.5**17) * 2.0**-63)
    logs = keystream._log_uniform(words, np.zeros(3, dtype=np.uint16), further, *np.empty((2, 3)), near_one=near_one)
    assert sum(asked) == (asks and (near_one or word < 2**62))
    np.testing.assert_array_equal(-logs[[0, 2]], before[[0, 2]])
    assert -logs[1] == pytest.approx(before[1], rel=1e-9, abs=1e-12)


def force(monkeypatch: pytest.MonkeyPatch, places: dict[int, list[int]], word: int) -> list[int]:
    """Have these draws of a block read this word; gives the numbers of all streams that are read."""
    original, streams = keystream.keystream, list[int]()

    def forced(key: bytes, stream: int, out: keystream.Bytes) -> keystream.Bytes:
        streams.append(stream)
        original(key, stream, out)
        out[: out.size // 10 * 8].view(np.uint64)[places.get(stream, [])] = word
        return out

    monkeypatch.setattr(keystream, "keystream", forced)
    return streams


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("word", [0, 5, 2**31 - 1, 2**63 - 1])
def test_they_are_a_function_of_the_key_whatever_the_threads(
    sampler: Sampler, word: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, scale = 3 * BLOCK + 11, 2.0**44
    usual = sampler(KEY, size, scale)
    streams = force(monkeypatch, {1: [7, 60_000], 3: [2]}, word)
    drawn = {}
    for cores in (1, 2, 7):
        monkeypatch.setattr(keystream.os, "cpu_count", lambda cores=cores: cores)
        streams.clear()
        drawn[cores] = sampler(KEY, size, scale).tobytes()
        asking = [2**64 + 1, 2**64 + 3] if word < 2**62 or sampler is keyed_gaussian else []
        assert sorted(streams) == [0, 1, 2, 3, *asking]
    assert len(set(drawn.values())) == 1
    changed = np.flatnonzero(np.frombuffer(drawn[1], dtype=np.int64) != usual)
    partners = [0, BLOCK // 2] if sampler is keyed_gaussian else [0]
    expected = [BLOCK + 7 + p for p in partners] + [BLOCK + 60_000 + p for p in partners]
    expected += [3 * BLOCK + 2 + p for p in ([0, 6] if sampler is keyed_gaussian else [0])]
    assert set(changed) <= set(expected)
    assert len(changed) >= 3


def test_blocks_and_keys_do_not_share_them(monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, {0: [7], 1: [7, 8]}, 0)
    found = [
        int(keyed_laplace(key, 2 * BLOCK, 2.0**44)[i]) for key in (KEY, bytes(32)) for i in (7, BLOCK + 7, BLOCK + 8)
    ]
    assert len({abs(value) for value in found}) == 6
    assert min(abs(value) for value in found) > 43 * 2**44


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("byte", [0, 255])
def test_a_stream_of_nothing_but_ends_is_no_failure(
    sampler: Sampler, byte: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stuck(_key: bytes, _stream: int, out: keystream.Bytes) -> keystream.Bytes:
        out[:] = byte
        return out

    monkeypatch.setattr(keystream, "keystream", stuck)
    sample = sampler(KEY, 1001, 1e6)
    assert sample.shape == (1001,)
    assert np.abs(sample).max() <= 188536033


# as an attacker


def test_without_further_bits_an_output_tells_neighbours_apart_and_with_them_it_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The attacker sees 0 + noise or 1 + noise, and waits for an output that only one of them can have.

    In the tail of 50 scales, neighbouring draws of 79 bits are 2^37 steps apart, so that any value there tells. `find`
    gives the first u that reaches a value, so a value that it misses is missed by every u.
    """
    draw, place = value_of(2.0**44), -50 * 2**44

    def possible(output: int, secret: int) -> bool:
        return draw(find(draw, output - secret)) == output - secret

    with monkeypatch.context() as patch:
        without_further_bits(patch)
        output = draw(find(draw, place))
        assert possible(output, 0)
        assert not possible(output, 1), "this output says that the secret is 0"
    for seen in (output, output + 1, place):
        assert possible(seen, 0)
        assert possible(seen, 1)


def test_the_centre_told_neighbours_apart_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pair on an axis: between radius 0 and sd * 2^-26 there was nothing."""
    draw = minus_radius_of(2.0**34)
    with monkeypatch.context() as patch:
        without_further_bits(patch)
        radii = {-draw((1 << BITS) - 1 - (k << 214)) for k in range(39)}
        assert radii == {0, *(round(2.0**34 * math.sqrt(2 * k * 2.0**-53)) for k in (1, 2))}
        assert sorted(radii) == [0, 256, 362]
    assert [draw(find(draw, -radius)) for radius in range(255, 0, -50)] == [-r for r in range(255, 0, -50)]


# how they are counted


def test_the_exact_samplers_leave_none() -> None:
    assert gaps("laplace", SMALL, 2.0**44) == gaps("gaussian", SMALL, 2.0**44) == gaps("laplace", 0, 1.0) == 0
    assert gaps("laplace", SMALL + 1, 1.0) > 0 < gaps("gaussian", SMALL + 1, 1.0)


def test_the_numbers_are_those_of_the_docstring() -> None:
    assert gaps("laplace", 4_700_000, 2.0**44) == 4_700_000 * 2.0**-227
    assert gaps("gaussian", 10_000_001, 2.0**28) == 5_000_001 * 2.0**-243
    assert gaps("gaussian", 2_000_000, 2.0**37.5) == pytest.approx(0, abs=1e-12)
    assert gaps("gaussian", 2_000_000, 2.0**38) == pytest.approx(1_000_000 * 2.0**-32)
    assert gaps("gaussian", 1_000_000_000, 2.0**37.4) < 1e-50


@pytest.mark.parametrize("scale", [2.0**20, 2.0**37])
def test_they_begin_where_the_bound_says(scale: float) -> None:
    """Draws of neighbouring bits, on both sides of u = scale * 2^-271: a step apart at most, or more than that."""
    edge = int(scale)
    for u in (2 * edge, 10 * edge, 1 << 200):
        assert abs(laplace(u, scale) - laplace(u + 1, scale)) <= 1
        assert abs(pair(u, scale)[0] - pair(u + 1, scale)[0]) <= 1
    assert abs(laplace(edge // 4, scale) - laplace(edge // 4 + 1, scale)) >= 3


@pytest.mark.parametrize("sd", [2.0**37.4, 2.0**40, MAX_SCALE * 0.99])
def test_the_ring_around_the_centre_is_as_wide_as_counted(sd: float) -> None:
    """Between 2^-32 and sd^2 * 2^-107 from u = 1, neighbours, 2^-53 apart, are more than a step apart; not beyond."""
    edge = sd * sd * 2.0**-107

    def gap(distance: float, apart: float = 2.0**-53) -> float:
        near, far = ((1 << BITS) - 1 - round(d * 2.0**BITS) for d in (distance, distance + apart))
        return abs(int(pair(near, sd)[0]) - int(pair(far, sd)[0]))

    assert gap(2 * max(edge, 2.0**-32)) <= 1
    assert (gap(1.01 * 2.0**-32) > 1) == (edge > 2.0**-31)
    assert max(gap(d, d * 2.0**-52) for d in (0.9 * 2.0**-32, 2.0**-53, 2.0**-100)) <= 1
    assert (gaps("gaussian", 10_000, sd) > 1e-9) == (edge > 2.0**-31)


def test_further_bits_are_split_as_the_sampler_reads_them() -> None:
    """Else the tests above would look at other draws than they say."""
    word, extra, further = split((5 << 208) + (7 << 192) + (11 << 128) + (13 << 64) + 17)
    assert (word, extra, further(1).tolist()) == (5, 7, [[17, 13, 11]])
