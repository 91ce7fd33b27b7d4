"""Vectors of integer noise and random subsets, each a function of one 32-byte key (ChaCha20, RFC 8439).

The value to protect is an integer vector, so adding round(scale * z) equals rounding the vector plus scale * z: the
rounding is post-processing of the continuous mechanism, and the low bits of a float cannot leak the value (Mironov,
"On significance of the least significant bits for differential privacy", CCS 2012). That needs noise that can take
every grid step. Both laws come from an exponential -log(u), where u has 63 + 16 random bits. Where neighbouring u, du
apart, make values y, or radii r of a pair, that are more than a grid step apart, gaps tell inputs apart:

    Laplace, tail     dy = scale du / u       > 1 where u < scale du
    Gaussian, tail    dr = sd du / (u r/sd)   > 1 where u < sd du at most, as r > sd there
    Gaussian, centre  dr = sd du / (r/sd)     > 1 where 1 - u < sd^2 du^2 / 2, as r^2 = 2 sd^2 (1 - u)

With 79 bits the first two would be scale * 2^-79 and sd * 2^-79 of the draws; and the third, with the 53 bits that a
float64 has near 1, sd^2 * 2^-107. So a draw with u below 2^-32, of a pair also one above 1 - 2^-32, gets 192 bits more,
from a stream that no other draw reads, and counts from its end, where float64 keeps them. What is left in gaps is

    scale * 2^-271                               of the Laplace values,
    sd * 2^-271 + max(0, sd^2 * 2^-107 - 2^-32)  of the Gaussian pairs: tail; and, above sd = 2^37.5, a ring around the
                                                 centre, where u is 2^-32 or more from 1.

The smallest u is 2^-272, so the tail beyond 188.5 Laplace scales, or 19.4 sd, is missing: that is within the fractions
above. Angles are at most 2^-51 apart: a quarter of a step at 14 sd of the largest sd. `source.gaps` counts the gaps,
and a mechanism refuses a release where they would be more than a hundredth of delta (`gaussian.check_sampler`).

What is left of floating point: neighbouring Laplace values are up to scale * 2^-52 of a step apart within two scales,
and up to scale * 2^-47 within 64; a step's probability is right to that share of it.

A key gives the same integers on every machine up to the last bit of `log` and `tan`, which moves one value in some
10^7 by one step at sd = 2^27. The number of threads changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tasks.learning.arrays import Floats

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]
RandomWords = npt.NDArray[np.uint64]
#: Gives (draws, _FURTHER_WORDS) random words: the further bits of the draws of a block that need them.
Further = Callable[[int], RandomWords]

KEY_BYTES = 32
#: Values drawn at a time. Smaller blocks make threads wait for each other, larger ones fall out of the cache.
BLOCK = 1 << 17

_EXPONENTIAL_BYTES = 10
_PAIR_BYTES = 18
_SIGN = np.uint64(1 << 63)
_LARGEST = np.uint64((1 << 63) - 1)
#: How near to an end, of 2^63, a draw gets further bits: 2^-32, where 79 bits still make steps of 2^-47.
_EDGE = 1 << 31
_FURTHER_WORDS = 3
#: The stream of a block's further bits, counted from here: no block has such a number.
_FURTHER_STREAMS = 1 << 64
_ZEROS = bytes(1 << 20)


def derive_key(secret: bytes, *context: str) -> bytes:
    """32 bytes bound to every part of `context` (HKDF-SHA256, RFC 5869); parts are never run together."""
    parts = [part.encode() for part in ("pharmafed noise", *context)]
    info = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret)


def keystream(key: bytes, stream: int, out: Bytes) -> Bytes:
    """Fill `out`, shorter than 2^38 bytes, from one of the 2^96 independent streams of `key`; gives `out`."""
    encryptor = Cipher(algorithms.ChaCha20(key, bytes(4) + stream.to_bytes(12, "little")), mode=None).encryptor()
    for start in range(0, out.size, len(_ZEROS)):
        part = out[start : start + len(_ZEROS)]
        encryptor.update_into(memoryview(_ZEROS)[: part.size], part.data)
    return out


def keyed_gaussian(key: bytes, size: int, sd: float) -> Integers:
    """(size,) integers: N(0, sd^2) rounded, sd in grid steps (Box and Muller 1958)."""

    def draw(block: int, scratch: _Scratch, out: Integers) -> None:
        pairs = -(-out.size // 2)
        stream = keystream(key, block, scratch.stream[: _PAIR_BYTES * pairs])
        _gaussian_block(stream, partial(_further, key, block), sd, scratch.floats[:, :pairs], out)

    return _in_blocks(size, draw)


def keyed_laplace(key: bytes, size: int, scale: float) -> Integers:
    """(size,) integers: Laplace(scale) rounded, scale in grid steps."""

    def draw(block: int, scratch: _Scratch, out: Integers) -> None:
        stream = keystream(key, block, scratch.stream[: _EXPONENTIAL_BYTES * out.size])
        _laplace_block(stream, partial(_further, key, block), scale, scratch.floats[:, : out.size], out)

    return _in_blocks(size, draw)


def keyed_subset(key: bytes, population: int, size: int) -> Integers:
    """(size,) distinct integers of range(population), ascending: each subset of that size has the same probability."""
    return np.flatnonzero(_chosen(key, 0, population, size)).astype(np.int64, copy=False)


def keyed_uniform(key: bytes, size: int) -> npt.NDArray[np.float32]:
    """(size,) multiples of 2^-24 in [0, 1)."""
    words = keystream(key, 0, np.empty(4 * size, dtype=np.uint8)).view(np.uint32)
    return (words >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


class _Scratch:
    """Memory that one thread uses for block after block: new arrays would cost more in page faults than the noise."""

    def __init__(self, size: int) -> None:
        self.stream = np.empty(_EXPONENTIAL_BYTES * size + 8, dtype=np.uint8)  # 8: an odd size has half a pair more
        self.floats = np.empty((3, size))


def _in_blocks(size: int, draw: Callable[[int, _Scratch, Integers], None]) -> Integers:
    """Let `draw(number, scratch, out)` write every block of the result, with a thread for each of the machine's cores.

    The pool lives as long as the call: a pool made earlier would not survive a fork.
    """
    result = np.empty(size, dtype=np.int64)
    threads = min(-(-size // BLOCK), os.cpu_count() or 1)
    starts = iter(range(0, size, BLOCK))  # shared: a thread that another process holds up takes fewer

    def work(_thread: int) -> None:
        scratch = _Scratch(min(size, BLOCK))
        for start in starts:
            draw(start // BLOCK, scratch, result[start : start + BLOCK])

    if threads <= 1:
        work(0)
        return result
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))  # the list raises what a thread raised
    return result


def _further(key: bytes, block: int, draws: int) -> RandomWords:
    """(draws, _FURTHER_WORDS) of a block's further bits, in the order of its draws."""
    stream = np.empty(8 * _FURTHER_WORDS * draws, dtype=np.uint8)
    return keystream(key, _FURTHER_STREAMS + block, stream).view(np.uint64).reshape(draws, _FURTHER_WORDS)


def _log_uniform(
    words: RandomWords, extra: npt.NDArray[np.uint16], further: Further, u: Floats, spare: Floats, *, near_one: bool
) -> Floats:
    """log(u) for u in (0, 1) from 63 bits of each word and 16 more; the sign bit of the word is left over.

    With further bits where u is near 0 and, if `near_one`, near 1. Masked words convert as int64: from uint64 the
    conversion takes eight times as long.
    """
    u[:] = np.bitwise_and(words, _LARGEST, out=spare.view(np.uint64)).view(np.int64)
    spare[:] = extra
    spare += 0.5
    spare *= 2.0**-16
    u += spare
    u *= 2.0**-63
    rare = u.min() < _EDGE * 2.0**-63 or (near_one and 1 - u.max() <= _EDGE * 2.0**-63)
    logs = np.log(u, out=u)
    if rare:
        _refine(words & _LARGEST, extra, further, logs, near_one)
    return logs


def _refine(words: RandomWords, extra: npt.NDArray[np.uint16], further: Further, logs: Floats, near_one: bool) -> None:
    """Write those of log(u) anew, in place, whose u is near an end, from further bits each.

    A draw's distance from 1 is uniform as u is: its bits are those of u turned over.
    """
    whole = np.minimum(words, _LARGEST - words) if near_one else words
    rare = np.flatnonzero(whole < _EDGE)
    near_zero = words[rare] < _EDGE
    distance = np.full(rare.size, 0.5)
    for word in further(rare.size).T:
        distance = (word + distance) * 2.0**-64
    distance += (whole[rare] << np.uint64(16)) + np.where(near_zero, extra[rare], ~extra[rare])
    distance *= 2.0**-79
    logs[rare] = np.where(near_zero, np.log(distance), np.log1p(-distance))


def _gaussian_block(stream: Bytes, further: Further, sd: float, floats: Floats, out: Integers) -> None:
    """Box-Muller with t = tan(angle / 2), as cos = 2 / (1 + t^2) - 1 and sin = 2 t / (1 + t^2).

    One tangent takes 1.8 ns with numpy's AVX-512 code; a sine and a cosine take 30 ns, or 8 ns with torch.
    """
    radius, tangent, scaled = floats
    pairs = radius.size
    words = stream[: 16 * pairs].view(np.uint64)
    _log_uniform(words[:pairs], stream[16 * pairs :].view(np.uint16), further, radius, tangent, near_one=True)
    radius *= -2.0 * sd * sd
    np.sqrt(radius, out=radius)
    tangent[:] = words[pairs:].view(np.int64)
    tangent *= np.pi * 2.0**-64
    np.tan(tangent, out=tangent)
    np.multiply(tangent, tangent, out=scaled)
    scaled += 1.0
    np.divide(radius, scaled, out=scaled)
    scaled *= 2.0
    out[:pairs] = np.rint(np.subtract(scaled, radius, out=radius), out=radius)
    scaled *= tangent
    out[pairs:] = np.rint(scaled, out=scaled)[: out.size - pairs]


def _laplace_block(stream: Bytes, further: Further, scale: float, floats: Floats, out: Integers) -> None:
    """An exponential with a random sign (the word's own sign bit)."""
    words = stream[: 8 * out.size].view(np.uint64)
    extra = stream[8 * out.size :].view(np.uint16)
    value = _log_uniform(words, extra, further, floats[0], floats[1], near_one=False)
    value *= scale
    words &= _SIGN
    np.bitwise_xor(value.view(np.uint64), words, out=value.view(np.uint64))
    out[:] = np.rint(value, out=value)


def _chosen(key: bytes, stream: int, population: int, size: int) -> npt.NDArray[np.bool_]:
    """(population,) flags, `size` of them True.

    Every item draws a 16-bit key, and the items with the smallest keys are chosen. Those that tie on the last key draw
    again among themselves. No item is told apart by its index, so the choice is exactly uniform whatever the ties.
    """
    if size in (0, population):
        return np.full(population, size > 0)
    keys = keystream(key, stream, np.empty(2 * population, dtype=np.uint8)).view(np.uint16)
    counts = np.zeros(1 << 16, dtype=np.int64)
    for start in range(0, population, BLOCK):
        counts += np.bincount(keys[start : start + BLOCK], minlength=1 << 16)
    last = int(np.searchsorted(np.cumsum(counts), size))
    chosen = keys < last
    ties = np.flatnonzero(keys == last)
    chosen[ties] = _chosen(key, stream + 1, ties.size, size - int(counts[:last].sum()))
    return chosen
