"""Gaussian noise on an integer grid, drawn from a ChaCha20 keystream.

The key is derived (HKDF-SHA256, RFC 5869) from a secret that never leaves the site and from everything the release
depends on. So a retried task draws the same noise for the same release, and never the same noise for another one:
two releases that differ in any input get independent noise, and nobody without the secret can subtract it.

The sum to protect is an integer vector, so adding round(sd * z) equals rounding the sum plus sd * z: the rounding is
post-processing of the Gaussian mechanism, and the low bits of a float cannot leak the sum (Mironov 2012).
That needs noise that can take every grid step. The radius of a Box-Muller pair comes from 75 random bits, so that in
the tails too its steps are finer than the grid's: with 53 bits, some 2 pairs in 10^9 would fall where there are gaps,
and gaps tell sums apart. What is left of floating point: the tail beyond 10.2 sd (1e-22 of a pair) is missing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tasks.errors import PrivacyError

MAX_SD = 2**45
_BLOCK = 1 << 20
_LOW_BITS = np.uint64(0x7FF)


def derive_key(secret: bytes, *context: str) -> bytes:
    """32 bytes bound to every part of `context`.

    Raises:
        PrivacyError: the secret is shorter than 32 bytes.
    """
    if len(secret) < 32:
        raise PrivacyError(f"the noise key has {len(secret)} bytes, not 32: enrol the site again")
    info = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in ("pharmafed noise", *context))
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(secret)


def gaussian_integers(key: bytes, size: int, sd: float) -> npt.NDArray[np.int64]:
    """`size` integers: normal with standard deviation `sd` (in grid steps), rounded; a function of the key alone.

    Raises:
        PrivacyError: sd is not finite and at least 1 (the grid would be too coarse), or so large that a float64
            would skip grid steps.
    """
    if not (np.isfinite(sd) and 1 <= sd < MAX_SD):
        raise PrivacyError(f"noise of sd {sd} grid steps cannot be drawn; it must lie in [1, 2^45)")
    keystream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
    blocks = [_normal_block(keystream.update(bytes(16 * -(-n // 2)))) for n in _block_sizes(size)]
    normal = np.concatenate(blocks)[:size] if blocks else np.empty(0)
    return np.rint(normal * sd).astype(np.int64)


def _block_sizes(size: int) -> list[int]:
    return [min(_BLOCK, size - start) for start in range(0, size, _BLOCK)]


def _normal_block(stream: bytes) -> npt.NDArray[np.float64]:
    """Box-Muller: 64 + 11 bits for the radius, 53 for the angle; u is in (0, 1], so its logarithm is finite."""
    words = np.frombuffer(stream, dtype="<u8").reshape(2, -1)
    low = ((words[1] & _LOW_BITS).astype(np.float64) + 0.5) * 2.0**-11
    u = (words[0].astype(np.float64) + low) * 2.0**-64
    radius = np.sqrt(-2.0 * np.log(u))
    angle = 2.0 * np.pi * ((words[1] >> np.uint64(11)).astype(np.float64) * 2.0**-53)
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
