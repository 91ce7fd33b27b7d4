"""Certificates, keys and enrolment: who a site is, and how the hub knows.

A site makes its own Ed25519 key; the consortium's authority signs a certificate for it. To enrol, the site presents
the certificate with a signature over the hub's challenge; the hub validates both and answers with a token that
identifies the site's contributions. Updates are signed with the same key.
"""

from __future__ import annotations

import base64
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.x509.oid import NameOID

from tasks.errors import ConfigError, ObjectMissing
from tasks.store import layout
from tasks.store.files import write_private
from tasks.store.objects import ObjectStore
from tasks.store.records.site import Enrolment

_YEARS = 2
#: The name in the hub's certificate; with its blank it is no site's.
HUB_NAME = "pharmafed hub"


def ensure_authority(folder: Path) -> tuple[Ed25519PrivateKey, x509.Certificate]:
    """The consortium's authority in `folder` (key.pem, certificate.pem); made if there is none."""
    key_file, certificate_file = folder / "key.pem", folder / "certificate.pem"
    if key_file.exists():
        return load_key(key_file), x509.load_pem_x509_certificate(certificate_file.read_bytes())
    key = Ed25519PrivateKey.generate()
    certificate = _certificate("pharmafed consortium", key.public_key(), "pharmafed consortium", key, is_authority=True)
    write_private(key_file, _pem(key))
    write_private(certificate_file, certificate.public_bytes(serialization.Encoding.PEM))
    return key, certificate


def ensure_site_identity(folder: Path, site: str, authority: tuple[Ed25519PrivateKey, x509.Certificate]) -> None:
    """A site's signing and sealing keys, its certificate and the authority's in `folder`; made where missing."""
    key_file = folder / "signing_key.pem"
    if not key_file.exists():
        write_private(key_file, _pem(Ed25519PrivateKey.generate()))
    if not (folder / "sealing.key").exists():
        write_private(folder / "sealing.key", X25519PrivateKey.generate().private_bytes_raw())
    if not (folder / "certificate.pem").exists():
        issuer, _ = authority
        certificate = _certificate(site, load_key(key_file).public_key(), "pharmafed consortium", issuer)
        write_private(folder / "certificate.pem", certificate.public_bytes(serialization.Encoding.PEM))
    if not (folder / "authority.pem").exists():
        write_private(folder / "authority.pem", authority[1].public_bytes(serialization.Encoding.PEM))


def ensure_hub_identity(folder: Path, authority: tuple[Ed25519PrivateKey, x509.Certificate]) -> None:
    """The key with which the hub signs plans and cards, and its certificate, in `folder`; made where missing."""
    key_file, certificate_file = folder / "signing_key.pem", folder / "certificate.pem"
    if not key_file.exists():
        write_private(key_file, _pem(Ed25519PrivateKey.generate()))
    if not certificate_file.exists():
        certificate = _certificate(HUB_NAME, load_key(key_file).public_key(), "pharmafed consortium", authority[0])
        write_private(certificate_file, certificate.public_bytes(serialization.Encoding.PEM))


def enrol(
    store: ObjectStore, site: str, certificate_pem: bytes, challenge: bytes, proof: bytes, authority: x509.Certificate
) -> Enrolment:
    """Admit a site, or give back its enrolment if it is admitted with the same certificate already.

    Raises:
        ConfigError: the certificate is not the authority's, not for this site, not valid now, or the proof is wrong.
    """
    certificate = validate_certificate(certificate_pem, site, authority)
    if not _verifies(certificate, proof, challenge):
        raise ConfigError(f"site {site}: the signature over the hub's challenge is wrong: not the certificate's key")
    try:
        known = store.get_record(layout.enrolment(site), Enrolment)
        if known.certificate_pem == certificate_pem.decode():
            return known
        raise ConfigError(f"site {site} is enrolled with another certificate: revoke that enrolment first")
    except ObjectMissing:
        pass
    enrolment = Enrolment(
        site=site,
        token=secrets.token_urlsafe(24),
        certificate_pem=certificate_pem.decode(),
        enrolled_at=datetime.now(UTC),
    )
    store.create_record(layout.enrolment(site), enrolment)
    return enrolment


def validate_certificate(certificate_pem: bytes, site: str, authority: x509.Certificate) -> x509.Certificate:
    """Parse a site's certificate and check issuer, name, key type and dates. Raises ConfigError."""
    certificate = parse_certificate(certificate_pem)
    try:
        if certificate is None:
            raise InvalidSignature
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        raise ConfigError(f"site {site}: the certificate was not issued by the consortium's authority") from None
    names = [name.value for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [site]:
        raise ConfigError(f"site {site}: the certificate is for {names}")
    if not certificate.not_valid_before_utc <= datetime.now(UTC) <= certificate.not_valid_after_utc:
        raise ConfigError(f"site {site}: the certificate is not valid today: ask the authority for a new one")
    if not isinstance(certificate.public_key(), Ed25519PublicKey):
        raise ConfigError(f"site {site}: the certificate's key is not Ed25519")
    return certificate


def parse_certificate(pem: bytes) -> x509.Certificate | None:
    """The first certificate of a PEM text; None where there is none, or one whose parts cannot be read.

    The library reads most parts only when they are asked for: what is used of a certificate is asked for here.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        for part in ("subject", "issuer", "not_valid_before_utc", "not_valid_after_utc", "signature_hash_algorithm"):
            getattr(certificate, part)
        certificate.public_key()
    except (ValueError, TypeError, OverflowError, UnsupportedAlgorithm, x509.InvalidVersion):
        return None
    return certificate


def sign(folder: Path, message: bytes) -> str:
    """Sign with the key of the site whose secrets lie in `folder`; base64."""
    return base64.b64encode(load_key(folder / "signing_key.pem").sign(message)).decode()


def is_signed_by(enrolment: Enrolment, signature: str, message: bytes) -> bool:
    """Whether `signature` (base64) over `message` is the enrolled site's."""
    certificate = parse_certificate(enrolment.certificate_pem.encode())
    return certificate is not None and verifies(certificate, signature, message)


def verifies(certificate: x509.Certificate, signature: str, message: bytes) -> bool:
    """Whether `signature` (base64) over `message` was made with the certificate's key."""
    try:
        return _verifies(certificate, base64.b64decode(signature, validate=True), message)
    except ValueError:
        return False


def load_key(path: Path) -> Ed25519PrivateKey:
    """Read an Ed25519 private key. Raises ConfigError."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        raise ConfigError(f"no key at {path}: enrol the site, or run `pharmafed up`") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} holds no Ed25519 key")
    return key


def _verifies(certificate: x509.Certificate, signature: bytes, message: bytes) -> bool:
    public = certificate.public_key()
    if not isinstance(public, Ed25519PublicKey):
        return False
    try:
        public.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def _certificate(
    name: str, key: Ed25519PublicKey, issuer: str, issuer_key: Ed25519PrivateKey, *, is_authority: bool = False
) -> x509.Certificate:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=365 * _YEARS))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=0 if is_authority else None), critical=True)
        .sign(issuer_key, algorithm=None)
    )


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
