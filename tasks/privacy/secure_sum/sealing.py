"""X25519 keys: sealing to a site's long-lived key, and the secrets that two sites or one site derive for a round.

Sealing is single-shot HPKE in base mode (RFC 9180): ephemeral-static X25519, HKDF-SHA256, ChaCha20-Poly1305, as the
`cryptography` library has it. All keys are 32 raw bytes (RFC 7748).
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tasks.errors import PrivacyError


def new_private_key() -> bytes:
    """A fresh X25519 private key from the system's generator."""
    return X25519PrivateKey.generate().private_bytes_raw()


def public_key(private: bytes) -> bytes:
    """The public half. Raises PrivacyError if `private` is not 32 bytes."""
    return _private(private).public_key().public_bytes_raw()


def seal(plaintext: bytes, recipient_public: bytes, associated: bytes) -> bytes:
    """Encrypt so that only the recipient opens it, and only with the same `associated` bytes; 48 bytes longer.

    Raises:
        PrivacyError: the recipient's key is not 32 bytes, or so weak that the shared secret would be zero.
    """
    try:
        return _suite().encrypt(plaintext, _public(recipient_public), info=framed("pharmafed seal", associated))
    except ValueError:
        raise PrivacyError("a sealing key is weak (its shared secret is zero): that site must make a new one") from None


def unseal(sealed: bytes, private: bytes, associated: bytes) -> bytes:
    """The plaintext of `seal`. Raises PrivacyError if anything differs: key, `associated`, or one bit of `sealed`."""
    try:
        return _suite().decrypt(sealed, _private(private), info=framed("pharmafed seal", associated))
    except (InvalidTag, ValueError):
        raise PrivacyError("a sealed message does not open: it is altered, or sealed to another key or use") from None


def agreed_key(private: bytes, peer_public: bytes, *parts: str) -> bytes:
    """32 bytes that only the two owners of the key pairs can compute, bound to `parts`.

    Raises:
        PrivacyError: a key is not 32 bytes, or the shared secret is zero (RFC 7748, section 6.1).
    """
    try:
        shared = _private(private).exchange(_public(peer_public))
    except ValueError:
        raise PrivacyError("a mask key is weak (its shared secret is zero): that site cannot take part") from None
    return derive(shared, "pharmafed pair mask", *parts)


def require_strong(public: bytes) -> None:
    """Raises PrivacyError: with this key, every shared secret would be zero (it has a small order)."""
    agreed_key(new_private_key(), public)


def derive(secret: bytes, label: str, *parts: str) -> bytes:
    """32 bytes bound to the label and to every part (HKDF-SHA256, RFC 5869)."""
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=framed(label, *parts)).derive(secret)


def commitment(label: str, *parts: str | bytes) -> str:
    """SHA-256, hex, of the framed parts. It hides a part of full entropy, and binds all of them."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(framed(label, *parts))
    return digest.finalize().hex()


def framed(label: str, *parts: str | bytes) -> bytes:
    """The label and parts, each behind its length in 4 bytes: no two different lists give the same bytes."""
    encoded = [part.encode() if isinstance(part, str) else part for part in (label, *parts)]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


def _suite() -> Suite:
    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def _private(raw: bytes) -> X25519PrivateKey:
    _check_length(raw)
    return X25519PrivateKey.from_private_bytes(raw)


def _public(raw: bytes) -> X25519PublicKey:
    _check_length(raw)
    return X25519PublicKey.from_public_bytes(raw)


def _check_length(raw: bytes) -> None:
    if len(raw) != 32:
        raise PrivacyError(f"an X25519 key has 32 bytes, not {len(raw)}")
