"""Sums under homomorphic encryption: CKKS by TenSEAL, the extra `ckks`. The sites hold one key, the hub holds none.

The hub adds ciphertexts that it cannot read; the sites decrypt the sum. Compared with masks (`secure_sum`): 57 bytes a
value instead of 8, an error of about 1e-8 instead of none, and any single site that shows the hub the key gives every
site's update away, where masks withstand all but two. It is here because the paper asks for it.

Parameters: ring of 8192, moduli of 60, 40 and 60 bits, scale 2^40: 128-bit security and room for sums of thousands of
sites (Cheon, Kim, Kim & Song 2017; homomorphicencryption.org standard 2018).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.errors import ConfigError, PrivacyError

SLOTS = 4096
_RING, _MODULI, _SCALE = 8192, [60, 40, 60], 2.0**40
#: Largest value that may be encrypted: beyond it, a sum would leave the 20 bits that the moduli leave above the scale.
MAX_VALUE = 2.0**12
#: What a decrypted sum is rounded to.
STEP = 2.0**-20
Values = npt.NDArray[np.float64]


def make_key() -> bytes:
    """A new secret context, for the sites alone. Whoever has it reads every update of the study."""
    made: bytes = _new_context().serialize(
        save_public_key=True, save_secret_key=True, save_galois_keys=False, save_relin_keys=False
    )
    return made


def encrypt(values: Values, key: bytes) -> bytes:
    """Encrypt a vector, (n,), in pieces of SLOTS values.

    Raises:
        PrivacyError: it is empty, not finite, or too large to be summed.
    """
    if values.ndim != 1 or values.size == 0 or not (np.abs(values) <= MAX_VALUE).all():  # NaN fails it too
        raise PrivacyError(f"only a vector of finite values up to {MAX_VALUE:g} can be encrypted: it stays at the site")
    tenseal, context = _tenseal(), _secret(key)
    pieces = (values[start : start + SLOTS] for start in range(0, values.size, SLOTS))
    return b"".join(_framed(tenseal.ckks_vector(context, piece).serialize()) for piece in pieces)


def add(bodies: Iterable[bytes], num_values: int) -> bytes:
    """Add encrypted vectors of `num_values` values, without any key.

    Raises:
        PrivacyError: one of them is no such vector.
    """
    total: list[Any] = []
    for body in bodies:
        pieces = list(_vectors(body, _public(), num_values))
        total = [one + other for one, other in zip(total, pieces, strict=True)] if total else pieces
    if not total:
        raise PrivacyError("there is nothing to add")
    return b"".join(_framed(vector.serialize()) for vector in total)


def check(body: bytes, num_values: int) -> None:
    """Check that `add` can take an encrypted vector of `num_values` values, without any key. Raises PrivacyError."""
    for _ in _vectors(body, _public(), num_values):
        pass


def decrypt(body: bytes, num_values: int, key: bytes) -> Values:
    """Decrypt a vector of `num_values` values; every holder of the key gets the same bytes. Raises PrivacyError.

    Rounded to STEP, well above the scheme's own error: who sees that error beside the ciphertext can solve for the key
    (Li & Micciancio 2021). Rounding keeps it in but for values at the edge of a step; it is no proof.
    """
    found = [np.array(vector.decrypt(), dtype=np.float64) for vector in _vectors(body, _secret(key), num_values)]
    rounded: Values = np.round(np.concatenate(found) / STEP) * STEP
    return rounded


def _vectors(body: bytes, context: Any, num_values: int) -> Iterator[Any]:
    """The pieces of an encrypted vector, checked against the length that is expected."""
    tenseal, position, left = _tenseal(), 0, num_values
    while position < len(body):
        (size,) = struct.unpack_from("<I", body, position) if position + 4 <= len(body) else (len(body),)
        piece, position = body[position + 4 : position + 4 + size], position + 4 + size
        try:
            vector = tenseal.ckks_vector_from(context, piece)
            sound = _is_fresh(vector)
        except (ValueError, RuntimeError, MemoryError, IndexError):
            sound = False
        if not sound:
            raise PrivacyError("an encrypted vector cannot be read: wrong bytes, or other parameters")
        if not left or vector.size() != min(left, SLOTS):
            raise PrivacyError(f"an encrypted vector does not hold {num_values} values")
        left -= vector.size()
        yield vector
    if left:
        raise PrivacyError(f"an encrypted vector holds {num_values - left} of {num_values} values")


def _is_fresh(vector: Any) -> bool:
    """Whether a vector is one ciphertext as `encrypt` makes it: another scale or modulus does not add to the rest."""
    pieces = vector.ciphertext()
    return len(pieces) == 1 and (
        pieces[0].size(),
        pieces[0].scale,
        pieces[0].coeff_modulus_size(),
        pieces[0].poly_modulus_degree(),
        pieces[0].is_ntt_form(),
    ) == (2, _SCALE, len(_MODULI) - 1, _RING, True)


def _framed(body: bytes) -> bytes:
    return struct.pack("<I", len(body)) + body


def _new_context() -> Any:
    tenseal = _tenseal()
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, _RING, coeff_mod_bit_sizes=_MODULI)
    context.global_scale = _SCALE
    return context


@cache
def _public() -> Any:
    """The parameters alone, with no secret in it: enough to add."""
    context = _new_context()
    context.make_context_public()
    return context


@cache
def _secret(key: bytes) -> Any:
    try:
        context = _tenseal().context_from(key)
    except (ValueError, RuntimeError):
        raise ConfigError("the site's CKKS key cannot be read: ask the other sites for theirs") from None
    if not context.is_private():
        raise ConfigError("the site's CKKS key holds no secret: ask the other sites for theirs")
    return context


def _tenseal() -> Any:
    try:
        import tenseal
    except ImportError:
        raise ConfigError("channel ckks needs the extra ckks: pip install 'pharmafed[ckks]'") from None
    return tenseal
