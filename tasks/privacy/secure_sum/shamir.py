"""Shamir's secret sharing (1979) of 32 bytes over the prime field of 2^257 - 93.

Any `threshold` shares give the secret; fewer are consistent with every secret. Written here because nothing that is
well kept does it: pycryptodome's splits 16 bytes, SLIP-39 packages make word lists, the rest are one person's.
The field is the largest of 257 bits, so that each secret is one element and a random 257-bit number is nearly always
one too. Python's integers do not run in constant time: each site splits and the hub combines on its own machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from tasks.errors import PrivacyError

PRIME = 2**257 - 93
SECRET_BYTES = 32
SHARE_BYTES = 33


def threshold_for(sites: int, colluding: int) -> int:
    """The fewest shares t with 2t > sites + colluding: two stories about one site cannot both collect t shares.

    Every honest site tells one story, so t of each would take 2t <= (sites - colluding) + 2 colluding answers.

    Raises:
        PrivacyError: the sites are fewer than 3, or `colluding` is negative or leaves fewer than two honest sites, of
            which a sum would hide nothing.
    """
    if sites < 3 or not 0 <= colluding <= sites - 2:
        raise PrivacyError(f"a secure sum of {sites} sites cannot resist {colluding} of them: it takes 3, two honest")
    return (sites + colluding) // 2 + 1


def split(secret: bytes, threshold: int, holders: int, *, random: Callable[[int], bytes] = os.urandom) -> list[bytes]:
    """Shares of 33 bytes for the holders 1, 2, ..., in this order.

    Args:
        random: gives that many uniform bytes; fixed in tests only.

    Raises:
        PrivacyError: the secret is not 32 bytes, or not 2 <= threshold <= holders.
    """
    if len(secret) != SECRET_BYTES:
        raise PrivacyError(f"a secret to share has {SECRET_BYTES} bytes, not {len(secret)}")
    if not 2 <= threshold <= holders:
        raise PrivacyError(f"{threshold} of {holders} shares is no threshold: it must lie between 2 and {holders}")
    coefficients = [int.from_bytes(secret, "big"), *(_element(random) for _ in range(threshold - 1))]
    return [_evaluate(coefficients, x).to_bytes(SHARE_BYTES, "big") for x in range(1, holders + 1)]


def combine(shares: Mapping[int, bytes]) -> bytes:
    """The secret at 0 of the polynomial through the shares, by holder (Lagrange interpolation).

    With fewer than the threshold, or a wrong share, the result is another 32 bytes or an error: check it against a
    commitment.

    Raises:
        PrivacyError: no shares, a share that is no field element, or shares that meet in no 32-byte secret.
    """
    if not shares or min(shares) < 1:
        raise PrivacyError("shares to combine are numbered from 1, and there must be one")
    total = 0
    for x, share in shares.items():
        y = int.from_bytes(share, "big")
        if len(share) != SHARE_BYTES or y >= PRIME:
            raise PrivacyError(f"share {x} is no element of the field")
        total += y * _weight_at_zero(x, shares)
    secret = total % PRIME
    if secret >> (8 * SECRET_BYTES):
        raise PrivacyError("the shares meet in no 32-byte secret: too few of them, or one is wrong")
    return secret.to_bytes(SECRET_BYTES, "big")


def _weight_at_zero(x: int, holders: Mapping[int, bytes]) -> int:
    numerator = denominator = 1
    for other in holders:
        if other != x:
            numerator = numerator * other % PRIME
            denominator = denominator * (other - x) % PRIME
    return numerator * pow(denominator, -1, PRIME)


def _element(random: Callable[[int], bytes]) -> int:
    """A uniform field element: 257 random bits, drawn again in the 93 cases of 2^257 that are not in the field."""
    while True:
        value = int.from_bytes(random(SHARE_BYTES), "big") & (2**257 - 1)
        if value < PRIME:
            return value


def _evaluate(coefficients: list[int], x: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * x + coefficient) % PRIME
    return value
