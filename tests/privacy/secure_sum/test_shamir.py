from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import chisquare

from tasks.errors import PrivacyError
from tasks.privacy.secure_sum.shamir import PRIME, SHARE_BYTES, combine, split, threshold_for


def seeded(seed: int) -> Callable[[int], bytes]:
    return np.random.default_rng(seed).bytes


def numbered(shares: list[bytes]) -> dict[int, bytes]:
    return dict(enumerate(shares, 1))


def line_through(points: dict[int, int], x: int) -> int:
    """Lagrange interpolation at x, written out again so that the module's own is not its own witness."""
    total = 0
    for i, y in points.items():
        term = y
        for j in points:
            if j != i:
                term = term * (x - j) * pow(i - j, PRIME - 2, PRIME) % PRIME
        total += term
    return total % PRIME


@pytest.mark.parametrize("base", [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37])
def test_field_is_prime(base: int) -> None:
    """Miller-Rabin: PRIME - 1 = 2 * odd, so a prime's base^odd is 1 or -1. Twelve bases miss 1 in 4^12 composites."""
    odd = (PRIME - 1) // 2
    assert odd % 2 == 1
    assert pow(base, odd, PRIME) in (1, PRIME - 1)


@pytest.mark.parametrize(("threshold", "holders"), [(t, n) for n in (2, 3, 5, 12, 40) for t in {2, n // 2 + 1, n}])
def test_any_threshold_of_shares_gives_the_secret(threshold: int, holders: int) -> None:
    rng = np.random.default_rng(threshold * 100 + holders)
    for secret in (bytes(32), b"\xff" * 32, rng.bytes(32), rng.bytes(32)):
        shares = numbered(split(secret, threshold, holders, random=rng.bytes))
        for _ in range(5):
            chosen = rng.choice(np.arange(1, holders + 1), size=threshold, replace=False)
            assert combine({int(x): shares[int(x)] for x in chosen}) == secret
        assert combine(shares) == secret


def test_every_subset_of_five() -> None:
    secret = seeded(1)(32)
    shares = numbered(split(secret, 3, 5, random=seeded(2)))
    opened = [combine({x: shares[x] for x in subset}) for size in (3, 4, 5) for subset in combinations(shares, size)]
    assert opened == [secret] * 16


@pytest.mark.parametrize("threshold", [2, 3, 7])
def test_fewer_than_the_threshold_fit_every_secret(threshold: int) -> None:
    """The same t-1 shares belong to a polynomial of every other secret: they exclude none."""
    shares = numbered(split(seeded(3)(32), threshold, threshold, random=seeded(4)))
    known = {x: shares[x] for x in range(1, threshold)}
    for other in (bytes(32), b"\xff" * 32, seeded(5)(32)):
        points = {0: int.from_bytes(other, "big")} | {x: int.from_bytes(y, "big") for x, y in known.items()}
        missing = line_through(points, threshold).to_bytes(SHARE_BYTES, "big")
        assert combine(known | {threshold: missing}) == other


def test_one_share_alone_is_uniform() -> None:
    """Chi-square over 32 bins of the share of one fixed secret; false-alarm rate 1e-6."""
    shares = [int.from_bytes(split(bytes(32), 2, 2, random=seeded(n))[0], "big") for n in range(4000)]
    assert chisquare(np.bincount([share >> 252 for share in shares], minlength=32)).pvalue > 1e-6
    # Coefficients of one bit too few would be seen.
    narrow = [share % 2**256 for share in shares]
    assert chisquare(np.bincount([share >> 252 for share in narrow], minlength=32)).pvalue < 1e-6


def test_random_numbers_outside_the_field_are_drawn_again() -> None:
    """Reduced instead, 2^257 - 1 would be the coefficient 92, and small coefficients would be more likely."""
    drawn = iter([b"\xff" * SHARE_BYTES, bytes(SHARE_BYTES - 1) + b"\x05"])
    shares = split(bytes(32), 2, 3, random=lambda _: next(drawn))
    assert [int.from_bytes(share, "big") for share in shares] == [5, 10, 15]


def test_wrong_share_changes_the_secret_or_is_refused() -> None:
    secret = seeded(6)(32)
    shares = numbered(split(secret, 3, 5, random=seeded(7)))
    with pytest.raises(PrivacyError, match="no element of the field"):
        combine(shares | {2: b"\xff" * SHARE_BYTES})
    with pytest.raises(PrivacyError, match="no element of the field"):
        combine({1: shares[1], 2: shares[2][1:]})
    points, refused = {x: int.from_bytes(shares[x], "big") for x in (1, 2)}, 0
    for number in range(20):
        wrong = b"\0" + seeded(number)(SHARE_BYTES - 1)
        met = line_through(points | {3: int.from_bytes(wrong, "big")}, 0)
        if met < 2**256:
            assert combine({1: shares[1], 2: shares[2], 3: wrong}) == met.to_bytes(32, "big") != secret
        else:
            refused += 1
            with pytest.raises(PrivacyError, match="meet in no 32-byte secret"):
                combine({1: shares[1], 2: shares[2], 3: wrong})
    assert 0 < refused < 20


@pytest.mark.parametrize("shares", [{}, {0: bytes(SHARE_BYTES)}])
def test_numbers_of_shares_start_at_one(shares: dict[int, bytes]) -> None:
    with pytest.raises(PrivacyError, match="numbered from 1"):
        combine(shares)


@pytest.mark.parametrize(
    ("secret", "threshold", "holders", "message"),
    [
        (bytes(31), 2, 3, "32 bytes, not 31"),
        (bytes(32), 1, 3, "1 of 3 shares is no threshold"),
        (bytes(32), 4, 3, "4 of 3 shares is no threshold"),
    ],
)
def test_impossible_splits_are_refused(secret: bytes, threshold: int, holders: int, message: str) -> None:
    with pytest.raises(PrivacyError, match=message):
        split(secret, threshold, holders)


def test_threshold_is_the_smallest_that_two_stories_cannot_both_reach() -> None:
    checked = 0
    for sites in range(3, 30):
        for colluding in range(sites - 1):
            threshold = threshold_for(sites, colluding)
            assert threshold <= sites
            assert 2 * threshold > sites + colluding >= 2 * (threshold - 1)
            checked += 1
    assert checked == 405


@pytest.mark.parametrize(("sites", "colluding"), [(2, 0), (5, 4), (5, 5), (5, -1)])
def test_hopeless_federations_are_refused(sites: int, colluding: int) -> None:
    with pytest.raises(PrivacyError, match=f"of {sites} sites cannot resist {colluding}"):
        threshold_for(sites, colluding)
