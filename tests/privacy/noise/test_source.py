"""The sources of noise: what they refuse, what repeats and what never does. Its laws: test_noise_statistics.py."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tasks.errors import PrivacyError
from tasks.privacy.noise import source as noise
from tasks.privacy.noise.source import SMALL, NoiseSource, SeededNoise, SystemNoise
from tasks.store.settings import PROJECT

SEED = bytes(range(32))
GAUSSIAN, LAPLACE = [996, 232, -725, -1339], [135, -680, 749, -411]
SUBSET, DERIVED = [0, 10, 11, 19], [579, 754, -771, 654]
Draw = Callable[[NoiseSource, int], Any]
SOURCES = [
    pytest.param(SystemNoise, id="system"),
    pytest.param(lambda: SeededNoise(SEED), id="seeded"),
]
SIZES = [SMALL, SMALL + 1]
DRAWS = [
    pytest.param(lambda source, size: source.gaussian(size, 1e9), id="gaussian"),
    pytest.param(lambda source, size: source.laplace(size, 1e9), id="laplace"),
    pytest.param(lambda source, size: source.subset(2 * size, size), id="subset"),
]


def same(one: Any, other: Any) -> bool:
    """Equal in most places; partly shared noise is for the tests of independence."""
    return bool((one == other).mean() > 0.5)


# what repeats


@pytest.mark.parametrize("draw", DRAWS)
def test_a_seed_repeats_a_sequence_of_calls(draw: Draw) -> None:
    sequences = [[draw(source, 2000).tolist() for _ in range(3)] for source in (SeededNoise(SEED), SeededNoise(SEED))]
    assert sequences[0] == sequences[1]
    assert not any(same(np.array(a), np.array(b)) for a, b in itertools.combinations(sequences[0], 2))


def test_calls_of_any_kind_advance_a_seeded_source() -> None:
    source, other = SeededNoise(SEED), SeededNoise(SEED)
    source.laplace(1, 2.0)
    source.subset(3, 1)
    assert not same(source.gaussian(2000, 1e9), other.gaussian(2000, 1e9))


def test_a_seeded_source_is_vectorised_for_small_sizes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "_exact", lambda *_: pytest.fail("OpenDP cannot be seeded"))
    assert SeededNoise(SEED).gaussian(5, 10.0).shape == (5,)
    assert SeededNoise(SEED).laplace(5, 10.0).shape == (5,)


def test_seeded_noise_is_pinned() -> None:
    source = SeededNoise(SEED)
    assert source.gaussian(4, 1000.0).tolist() == GAUSSIAN
    assert source.laplace(4, 1000.0).tolist() == LAPLACE
    assert source.subset(20, 4).tolist() == SUBSET
    assert source.derive("site", "701").gaussian(4, 1000.0).tolist() == DERIVED


def test_derived_sources_repeat_whatever_was_drawn_before() -> None:
    source = SeededNoise(SEED)
    first = source.derive("701", "round 3").gaussian(2000, 1e9)
    source.gaussian(10, 1e9)
    assert (source.derive("701", "round 3").gaussian(2000, 1e9) == first).all()


def test_derived_sources_differ_with_every_part_of_their_context() -> None:
    contexts = [(), ("a", "bc"), ("ab", "c"), ("abc",), ("abc", ""), ("0",), ("call", "0")]
    roots = [SeededNoise(SEED), SeededNoise(bytes(32)), SeededNoise(SEED).derive("a")]
    draws = [root.gaussian(2000, 1e9) for root in roots[:2]]
    draws += [root.derive(*context).gaussian(2000, 1e9) for root in roots for context in contexts]
    assert len(draws) == 23
    assert not any(same(a, b) for a, b in itertools.combinations(draws, 2))


# what never does


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("draw", DRAWS)
def test_two_calls_of_the_system_never_agree(draw: Draw, size: int) -> None:
    source = SystemNoise()
    draws = [draw(source, size), draw(source, size), draw(SystemNoise(), size)]
    assert not any(same(a, b) for a, b in itertools.combinations(draws, 2))


def test_the_system_takes_exact_samplers_for_small_vectors_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "_exact", lambda law, size, scale: (law, size, scale))
    source: Any = SystemNoise()
    assert source.gaussian(SMALL, 7.0) == ("gaussian", SMALL, 7.0)
    assert source.laplace(SMALL, 7.0) == ("laplace", SMALL, 7.0)
    assert source.gaussian(SMALL + 1, 7.0).shape == (SMALL + 1,)
    assert source.laplace(SMALL + 1, 7.0).shape == (SMALL + 1,)


FORKED_DRAWS = textwrap.dedent("""
    import os, sys
    from tasks.privacy.noise.keystream import BLOCK
    from tasks.privacy.noise.source import SystemNoise

    def draws():
        source = SystemNoise()
        return [source.gaussian(4, 1e12), source.laplace(4, 1e12), source.gaussian(2 * BLOCK, 1e12)[:4],
                source.laplace(2 * BLOCK, 1e12)[:4], source.subset(10**5, 4)]

    draws()
    for _ in range(3):
        if os.fork() == 0:
            sys.stdout.write("".join(f"{draw.tolist()}\\n" for draw in draws()))
            sys.stdout.flush()
            os._exit(0)
        os.wait()
    print("\\n".join(str(draw.tolist()) for draw in draws()))
""")


def test_processes_forked_from_one_parent_draw_different_noise() -> None:
    """Airflow's workers fork from a parent that has loaded and may have used everything."""
    command = [sys.executable, "-W", "ignore", "-c", FORKED_DRAWS]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 20
    assert len(set(lines)) == 20


# refusals


@pytest.mark.parametrize("make", SOURCES)
@pytest.mark.parametrize("law", ["gaussian", "laplace"])
@pytest.mark.parametrize("scale", [0.0, 0.999, -5.0, float("nan"), float("inf"), -float("inf"), 2.0**45, 2.0**58])
@pytest.mark.parametrize("size", [3, 2000])
def test_a_scale_out_of_bounds_is_refused(make: Callable[[], Any], law: str, scale: float, size: int) -> None:
    with pytest.raises(PrivacyError, match=r"grid steps cannot be drawn; it must lie in \[1, 2\^45\)") as caught:
        getattr(make(), law)(size, scale)
    assert str(scale) in str(caught.value)


@pytest.mark.parametrize("make", SOURCES)
@pytest.mark.parametrize("law", ["gaussian", "laplace"])
@pytest.mark.parametrize("scale", [1.0, 2.0**45 * 0.999])
@pytest.mark.parametrize("size", [0, 3, 2000])
def test_the_bounds_themselves_can_be_drawn(make: Callable[[], Any], law: str, scale: float, size: int) -> None:
    sample = getattr(make(), law)(size, scale)
    assert sample.shape == (size,)
    assert sample.dtype == np.int64
    assert (np.abs(sample) < 60 * scale).all()


@pytest.mark.parametrize("make", SOURCES)
@pytest.mark.parametrize("law", ["gaussian", "laplace"])
def test_a_negative_size_is_refused(make: Callable[[], Any], law: str) -> None:
    with pytest.raises(PrivacyError, match="-1 values of noise cannot be drawn; the size must be at least 0"):
        getattr(make(), law)(-1, 5.0)


@pytest.mark.parametrize("make", SOURCES)
@pytest.mark.parametrize(("population", "size"), [(5, 6), (5, -1), (0, 1), (-1, 0), (-2, -2)])
def test_an_impossible_subset_is_refused(make: Callable[[], Any], population: int, size: int) -> None:
    with pytest.raises(PrivacyError, match=f"a subset of {size} out of {population} cannot be drawn"):
        make().subset(population, size)


@pytest.mark.parametrize("length", [0, 16, 31])
def test_a_short_seed_is_refused(length: int) -> None:
    with pytest.raises(PrivacyError, match=f"has {length} bytes; it must have at least 32"):
        SeededNoise(bytes(length))
