from __future__ import annotations

import hashlib
import hmac

import pytest

from tasks.errors import PrivacyError
from tasks.privacy.secure_sum.sealing import agreed_key, commitment, framed, new_private_key, public_key, seal, unseal

# Alice and Bob of RFC 7748, section 6.1.
ALICE = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
ALICE_PUBLIC = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
BOB = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
SHARED = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
#: A point of order 8 (RFC 7748's curve): every product with it is zero.
LOW_ORDER = bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")


def test_sealed_opens_for_the_recipient_only() -> None:
    private = new_private_key()
    sealed = seal(b"two shares", public_key(private), b"round 1")
    assert unseal(sealed, private, b"round 1") == b"two shares"
    assert len(sealed) == len(b"two shares") + 48
    assert seal(b"two shares", public_key(private), b"round 1") != sealed
    with pytest.raises(PrivacyError, match="does not open"):
        unseal(sealed, new_private_key(), b"round 1")
    with pytest.raises(PrivacyError, match="does not open"):
        unseal(sealed, private, b"round 2")


def test_every_altered_byte_is_noticed() -> None:
    private = new_private_key()
    sealed = seal(b"share", public_key(private), b"")
    refused = 0
    for place in range(len(sealed)):
        altered = bytearray(sealed)
        altered[place] ^= 1
        with pytest.raises(PrivacyError, match="does not open"):
            unseal(bytes(altered), private, b"")
        refused += 1
    for cut in (0, 31, 40, len(sealed) - 1):
        with pytest.raises(PrivacyError, match="does not open"):
            unseal(sealed[:cut], private, b"")
    assert refused == 53


@pytest.mark.parametrize("weak", [bytes(32), LOW_ORDER])
def test_keys_whose_shared_secret_is_zero_are_refused(weak: bytes) -> None:
    with pytest.raises(PrivacyError, match="shared secret is zero"):
        agreed_key(ALICE, weak)
    with pytest.raises(PrivacyError, match="shared secret is zero"):
        seal(b"share", weak, b"")


def test_keys_of_another_length_are_refused() -> None:
    calls = [
        lambda: public_key(bytes(31)),
        lambda: seal(b"", bytes(33), b""),
        lambda: unseal(bytes(60), bytes(31), b""),
        lambda: agreed_key(ALICE, b""),
    ]
    for call in calls:
        with pytest.raises(PrivacyError, match="an X25519 key has 32 bytes"):
            call()


def test_pair_seed_is_hkdf_of_the_x25519_secret() -> None:
    """Against RFC 7748's example and RFC 5869 written out with HMAC."""
    info = b"".join(len(part).to_bytes(4, "big") + part for part in (b"pharmafed pair mask", b"cardio", b"1"))
    extracted = hmac.digest(bytes(32), SHARED, hashlib.sha256)
    expected = hmac.digest(extracted, info + b"\x01", hashlib.sha256)
    assert public_key(ALICE) == ALICE_PUBLIC
    assert agreed_key(ALICE, public_key(BOB), "cardio", "1") == expected
    assert agreed_key(BOB, ALICE_PUBLIC, "cardio", "1") == expected


def test_parts_that_run_together_stay_apart() -> None:
    lists = [("ab", "c"), ("a", "bc"), ("abc",), ("abc", ""), ("", "abc")]
    assert len({framed("label", *parts) for parts in lists}) == len(lists)
    assert len({agreed_key(ALICE, public_key(BOB), *parts) for parts in lists}) == len(lists)
    assert len({commitment("label", *parts) for parts in lists}) == len(lists)
    assert commitment("one", "x") != commitment("other", "x")
