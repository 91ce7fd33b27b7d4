"""Sums under CKKS: right to eight digits, made without a key, and refused where they cannot be."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from tasks.errors import ConfigError, PrivacyError
from tasks.privacy.secure_sum import ckks


@pytest.fixture(scope="module")
def key() -> bytes:
    return ckks.make_key()


@pytest.mark.parametrize("size", [1, 23, ckks.SLOTS, ckks.SLOTS + 1, 2 * ckks.SLOTS + 7])
def test_the_sum_of_thirteen_is_right(key: bytes, size: int) -> None:
    vectors = np.random.default_rng(size).normal(0, 3, (13, size))
    total = ckks.add((ckks.encrypt(vector, key) for vector in vectors), size)
    found = ckks.decrypt(total, size, key)
    assert found.shape == (size,)
    assert np.abs(found - vectors.sum(axis=0)).max() < 1e-6


def test_holders_of_the_key_get_the_same_bytes(key: bytes) -> None:
    total = ckks.add([ckks.encrypt(np.arange(5.0), key)] * 3, 5)
    first = ckks.decrypt(total, 5, key)
    ckks._secret.cache_clear()
    assert first.tobytes() == ckks.decrypt(total, 5, key).tobytes()


def test_two_encryptions_of_one_vector_differ(key: bytes) -> None:
    assert ckks.encrypt(np.ones(3), key) != ckks.encrypt(np.ones(3), key)


def test_another_key_reads_nothing(key: bytes) -> None:
    body = ckks.encrypt(np.ones(8), key)
    assert np.abs(ckks.decrypt(body, 8, ckks.make_key()) - 1).min() > 1e3


def test_the_hub_adds_without_a_secret() -> None:
    assert not ckks._public().has_secret_key()


@pytest.mark.parametrize("bad", [[], [np.nan], [np.inf], [1.0, 5000.0], [[1.0]]])
def test_what_cannot_be_summed_is_not_encrypted(key: bytes, bad: list[float]) -> None:
    with pytest.raises(PrivacyError, match="stays at the site"):
        ckks.encrypt(np.array(bad), key)


def test_wrong_bodies_are_refused(key: bytes) -> None:
    good = ckks.encrypt(np.ones(5), key)
    for bad, size in (
        (good, 6),
        (good, 4),
        (good + good, 5),
        (b"", 5),
        (b"\x01", 5),
        (struct.pack("<I", 4) + b"junk", 5),
        (good[:-100], 5),
        (good[:4] + bytes(len(good) - 4), 5),
    ):
        with pytest.raises(PrivacyError):
            ckks.add([bad], size)
    with pytest.raises(PrivacyError, match="nothing to add"):
        ckks.add([], 5)


def _remade(change: str, key: bytes) -> bytes:
    """An encrypted vector of five values that is sound by itself and does not add to others."""
    tenseal, context, values = pytest.importorskip("tenseal"), ckks._secret(key), [1.0] * 5
    match change:
        case "another scale":
            return ckks._framed(tenseal.ckks_vector(context, values, scale=2.0**30).serialize())
        case "a lower modulus":
            return ckks._framed((tenseal.ckks_vector(context, values) * 2.0).serialize())
        case "an empty piece":
            empty = tenseal.ckks_vector(context, values)
            return ckks._framed(empty.serialize()) + ckks._framed(b"")
        case _:
            return ckks._framed(tenseal.ckks_vector(context, values).serialize())


@pytest.mark.parametrize("change", ["another scale", "a lower modulus", "an empty piece"])
def test_what_would_not_add_to_the_others_is_found_by_itself(key: bytes, change: str) -> None:
    """So it is the fault of the site that sent it, before anything is summed."""
    with pytest.raises(PrivacyError, match="cannot be read"):
        ckks.check(_remade(change, key), 5)
    sound = _remade("nothing", key)
    ckks.check(sound, 5)
    assert ckks.decrypt(ckks.add([sound, ckks.encrypt(np.ones(5), key)], 5), 5, key) == pytest.approx([2.0] * 5)


def test_a_key_that_is_none_is_refused(key: bytes) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        ckks.encrypt(np.ones(2), b"junk")
    with pytest.raises(ConfigError, match="holds no secret"):
        ckks.encrypt(np.ones(2), ckks._public().serialize())
