"""Single draws of the keyed samplers from bits that a test chooses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tasks.privacy.noise import keystream

#: Of a u: 63 of a word, 16 more, and 192 that only a draw near an end asks for. u is (bits + 1/2) / 2^BITS.
BITS = 63 + 16 + 192


def stream_of(words: list[int], extra: list[int]) -> keystream.Bytes:
    """The random bytes that one block of a sampler reads."""
    raw = np.array(words, dtype="<u8").tobytes() + np.array(extra, dtype="<u2").tobytes()
    return np.frombuffer(raw, dtype=np.uint8).copy()


def split(u: int) -> tuple[int, int, keystream.Further]:
    """The word, its 16 more bits and the source of its further bits.

    Counted from the nearer end: near 1, the further bits are turned over as the others are.
    """
    word, extra, low = u >> 208, u >> 192 & 0xFFFF, u & (1 << 192) - 1
    if word >= 1 << 62:
        low ^= (1 << 192) - 1
    words = np.array([[low >> shift & (1 << 64) - 1 for shift in (0, 64, 128)]], dtype=np.uint64)
    return word, extra, lambda _draws: words


def pair(u: int, sd: float, angle: int = 0) -> keystream.Integers:
    """The Gaussian pair of these random bits; at angle 0 the first is the radius."""
    word, extra, further = split(u)
    out = np.full(2, np.iinfo(np.int64).max)
    keystream._gaussian_block(stream_of([word, angle], [extra]), further, sd, np.full((3, 1), np.nan), out)
    return out


def laplace(u: int, scale: float, sign: int = 0) -> int:
    """The Laplace value of these random bits; negative with sign 0."""
    word, extra, further = split(u)
    out = np.full(1, np.iinfo(np.int64).max)
    stream = stream_of([word | sign << 63], [extra])
    keystream._laplace_block(stream, further, scale, np.full((3, 1), np.nan), out)
    return int(out[0])


def find(draw: Callable[[int], int], value: int) -> int:
    """Among all u, in increasing order of `draw`, the first that gives `value` or more."""
    low, high = 0, (1 << BITS) - 1
    while low < high:
        middle = (low + high) // 2
        if draw(middle) < value:
            low = middle + 1
        else:
            high = middle
    return low
