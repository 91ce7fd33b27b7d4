"""Masks of 64-bit integers: ChaCha20 keystreams (RFC 8439), added and subtracted modulo 2^64.

A 32-byte seed is the key of one keystream, nonce zero, from block 0: value i of its mask is the keystream's bytes
8i to 8i+7, little-endian. A seed serves one vector only, so the nonce can be constant.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms

from tasks.errors import PrivacyError

#: The block counter has 32 bits, and a block of 64 bytes masks 8 values.
MAX_VALUES = 8 * 2**32
_MAX_SUM = 2**63 - 1
#: 256 KiB of keystream at a time: it stays in the cache of one core together with the values it is added to.
_CHUNK = 1 << 15

MaskableVector = npt.NDArray[np.int64] | npt.NDArray[np.uint64]


def apply_masks(
    values: MaskableVector, add: Sequence[bytes], subtract: Sequence[bytes], *, threads: int | None = None
) -> npt.NDArray[np.uint64]:
    """values + masks of `add` - masks of `subtract`, modulo 2^64. Exchanging the two lists takes the masks off again.

    Args:
        values: (n,), 0 < n <= MAX_VALUES; left as they are.
        add, subtract: seeds of 32 bytes.
        threads: how many to use, all cores by default. The result does not depend on it.

    Raises:
        PrivacyError: the values are no such vector, or a seed is not 32 bytes.
    """
    _check_vector(values)
    if any(len(seed) != 32 for seed in (*add, *subtract)):
        raise PrivacyError("a mask's seed has 32 bytes")
    masked = values.astype(np.uint64)
    workers = min(threads or os.cpu_count() or 1, -(-masked.size // _CHUNK))
    share = -(-masked.size // (workers * _CHUNK)) * _CHUNK
    with ThreadPoolExecutor(workers) as pool:
        starts = range(0, masked.size, share)
        list(pool.map(lambda start: _mask_range(masked[start : start + share], start, add, subtract), starts))
    return masked


def to_signed(total: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """The same 64 bits as signed integers: exact if the true sum lies within +-(2^63 - 1)."""
    return total.view(np.int64)


def require_headroom(values: npt.NDArray[np.int64], num_sites: int) -> None:
    """Check that the sum of `num_sites` such vectors fits 64 bits: every |value| <= (2^63 - 1) / num_sites.

    Raises:
        PrivacyError: a value is larger, or the vector is empty or not int64.
    """
    _check_vector(values)
    if values.dtype != np.int64 or num_sites < 1:
        raise PrivacyError(f"a sum needs int64 vectors of at least one site, not {values.dtype} of {num_sites}")
    if max(int(values.max()), -int(values.min())) > _MAX_SUM // num_sites:
        raise PrivacyError(f"a value is so large that the sum of {num_sites} sites may overflow: use a coarser step")


def encode_fixed_point(values: npt.NDArray[np.float64], step: float, num_sites: int) -> npt.NDArray[np.int64]:
    """Round each value, (n,), to the nearest multiple of `step` (ties to even) and give the multiples.

    Raises:
        PrivacyError: NaN or infinity, an empty vector, a step that is not finite and positive, or a value whose sum
            over `num_sites` sites may overflow.
    """
    if not (np.isfinite(step) and step > 0):
        raise PrivacyError(f"a fixed-point step must be finite and positive, not {step}")
    if not np.isfinite(values).all():
        raise PrivacyError("a value to encode is NaN or infinite: the update stays at the site")
    with np.errstate(over="ignore"):  # a quotient that overflows is infinite, and refused just below
        multiples = np.rint(values / step)
    if (np.abs(multiples) >= 2.0**63).any():
        raise PrivacyError(f"a value does not fit 64 bits in steps of {step}: use a coarser step")
    encoded = multiples.astype(np.int64)
    require_headroom(encoded, num_sites)
    return encoded


def decode_fixed_point(values: npt.NDArray[np.int64], step: float) -> npt.NDArray[np.float64]:
    """The multiples of `step` as float64."""
    return values.astype(np.float64) * step


def _mask_range(masked: npt.NDArray[np.uint64], start: int, add: Sequence[bytes], subtract: Sequence[bytes]) -> None:
    """Mask one slice in place; `start` is its place in the vector, a multiple of _CHUNK. Every seed's keystream runs
    over a chunk before the next chunk, so that the chunk is read from memory once, not once a seed."""
    plus, minus = [_keystream(seed, start) for seed in add], [_keystream(seed, start) for seed in subtract]
    zeros = memoryview(bytes(8 * min(_CHUNK, masked.size)))
    buffer = np.empty(len(zeros) // 8, dtype="<u8")
    for begin in range(0, masked.size, _CHUNK):
        chunk = masked[begin : begin + _CHUNK]
        mask, stream, empty = buffer[: chunk.size], buffer.data.cast("B")[: chunk.nbytes], zeros[: chunk.nbytes]
        for cipher in plus:
            cipher.update_into(empty, stream)
            np.add(chunk, mask, out=chunk)
        for cipher in minus:
            cipher.update_into(empty, stream)
            np.subtract(chunk, mask, out=chunk)


def _keystream(seed: bytes, start: int) -> CipherContext:
    """The keystream from value `start` on. The library's 16-byte nonce is a 4-byte block counter and 12 bytes."""
    return Cipher(algorithms.ChaCha20(seed, (start // 8).to_bytes(4, "little") + bytes(12)), mode=None).encryptor()


def _check_vector(values: MaskableVector) -> None:
    if values.ndim != 1 or values.dtype not in (np.int64, np.uint64):
        raise PrivacyError(f"masks go on a vector of 64-bit integers, not {values.dtype} {values.shape}")
    if not 0 < values.size <= MAX_VALUES:
        raise PrivacyError(f"a vector of {values.size} values cannot be masked; it must have 1 to {MAX_VALUES}")
