"""What closes the object store's inner interfaces: a certificate that only the store holds, and `security.toml`.

Master, volume server, filer and S3 gateway talk to each other over HTTP and gRPC. Each of these ports demands a
certificate and takes one only: the store's own, signed by itself and kept with its key in `secrets/store.pem`. No
authority can issue another one, so the consortium's, which signs the sites' certificates, opens nothing here.

`weed` takes a missing section of `security.toml` for "no TLS wanted" and says so in no log. So the file is brought up
to date before every start, and `require_closed` is there for a start whose files come from elsewhere.
"""

from __future__ import annotations

import secrets
import tomllib
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tasks.deploy.ports import LOOPBACK
from tasks.deploy.secret_files import write_secret
from tasks.errors import ConfigError
from tasks.store import files

VALID = timedelta(days=2 * 365)
RENEWED = timedelta(days=365)
"""`up` makes a new certificate when less than this is left: a store that is started once a year never meets the end."""
_NAME = "pharmafed object store"
_TOKENS = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
_GRPC = ("grpc.master", "grpc.volume", "grpc.filer", "grpc.s3", "grpc.client")
_HTTPS = ("https.master", "https.volume", "https.filer", "https.client")
_CERTIFICATE = "../secrets/store.pem"
"""As seen from the store's working directory, so that the file is right in a container too."""


def certificate_file(home: Path) -> Path:
    """The store's certificate and its private key, in one file so that they are replaced together."""
    return home / "secrets" / "store.pem"


def security_file(home: Path) -> Path:
    """What `weed` reads at its start, in its working directory."""
    return home / "seaweedfs" / "security.toml"


def ensure_closed(home: Path, now: datetime | None = None) -> bool:
    """Make certificate and `security.toml`, or bring them up to date; the tokens' keys are kept.

    Returns:
        Whether one of them changed, so that a running store has to be started again.

    Raises:
        ConfigError: `security.toml` is there and cannot be read.
    """
    renewed = _ensure_certificate(certificate_file(home), now or datetime.now(UTC))
    path = security_file(home)
    found = _parse(path) if path.exists() else {}
    keys = {name: _key(found, name) or secrets.token_hex(32) for name in _TOKENS}
    text = _security(keys)
    if path.exists() and path.read_text() == text:
        return renewed
    write_secret(path, text)
    return True


def require_closed(security: Path, certificate: Path, now: datetime | None = None) -> None:
    """Check, before `weed` is started with these files, that no interface would be open.

    Raises:
        ConfigError: a section is missing or other than we write it, or the certificate is not valid now.
    """
    found = _parse(security) if security.exists() else {}
    wanted = tomllib.loads(_security({name: _key(found, name) for name in _TOKENS}))
    if found != wanted or not all(_key(found, name) for name in _TOKENS):
        raise ConfigError(f"{security} would leave the object store open: {_REMEDY}")
    if _expiry(certificate) <= (now or datetime.now(UTC)):
        raise ConfigError(f"{certificate} holds no valid certificate with its key: {_REMEDY}")


_REMEDY = "run `pharmafed up`, or in containers the service `setup`, to have it written again"


def _security(keys: dict[str, str]) -> str:
    tokens = [f'[{name}]\nkey = "{key}"\n' for name, key in keys.items()]
    pair = f'cert = "{_CERTIFICATE}"\nkey = "{_CERTIFICATE}"\n'
    authority = f'ca = "{_CERTIFICATE}"\n'
    grpc = [f"[grpc]\n{authority}", *(f"[{name}]\n{pair}" for name in _GRPC)]
    https = [f"[{name}]\n{pair}{authority}" for name in _HTTPS]
    head = "# Written by `pharmafed up`: the keys of the tokens are kept, everything else is replaced.\n"
    return "\n".join([head, *tokens, *grpc, *https]) + "enabled = true\n"  # of https.client, the last one


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): restore it, or remove it to get a new one") from None


def _key(found: dict[str, Any], name: str) -> str:
    """The key of one kind of token, or the empty string."""
    section: Any = found
    for part in name.split("."):
        section = section.get(part, {}) if isinstance(section, dict) else {}
    key = section.get("key", "") if isinstance(section, dict) else ""
    return key if isinstance(key, str) else ""


def _ensure_certificate(path: Path, now: datetime) -> bool:
    if path.exists() and _expiry(path) - now >= RENEWED:
        return False
    files.write_private(path, _new_certificate(now))
    return True


def _expiry(path: Path) -> datetime:
    """When the certificate ends; the beginning of time when the file does not hold one with its key."""
    try:
        content = path.read_bytes()
        certificate = x509.load_pem_x509_certificate(content)
        key = load_pem_private_key(content, password=None)
    except (OSError, ValueError):
        return datetime.min.replace(tzinfo=UTC)
    fits = key.public_key() == certificate.public_key()
    return certificate.not_valid_after_utc if fits else datetime.min.replace(tzinfo=UTC)


def _new_certificate(now: datetime) -> bytes:
    """A key of its own and a certificate signed with it, for both ends of a connection; it can sign no other."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _NAME)])
    both_ends = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + VALID)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both_ends), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(LOOPBACK))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM) + private
