"""Certificates, proofs and signatures: who is admitted, and who is not."""

from __future__ import annotations

import base64
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tasks.deploy.enrol import enrol_local_sites
from tasks.errors import ConfigError, ObjectMissing, PrivacyError
from tasks.privacy.secure_sum.protocol import open_sealing_keys
from tasks.privacy.secure_sum.records import SealingKey
from tasks.store import layout
from tasks.store.identity import (
    enrol,
    ensure_authority,
    ensure_site_identity,
    is_signed_by,
    load_key,
    sign,
    validate_certificate,
)
from tasks.store.objects import ObjectStore
from tasks.store.records.site import Enrolment

SITE = "701"
CHALLENGE = bytes(range(32))
DAY = timedelta(days=1)
Authority = tuple[Ed25519PrivateKey, x509.Certificate]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return ensure_authority(tmp_path / "ca")


@pytest.fixture
def site_folder(tmp_path: Path, authority: Authority) -> Path:
    folder = tmp_path / "sites" / SITE
    ensure_site_identity(folder, SITE, authority)
    return folder


@pytest.fixture
def hub(object_store) -> ObjectStore:
    return object_store.store("hub")


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(authority: Authority, public_key, site: str = SITE, *, begins=-DAY, ends=DAY) -> bytes:
    """A certificate such as ours, but for what the test changes."""
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name(site)).issuer_name(authority[1].subject)
    builder = builder.public_key(public_key).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now + begins).not_valid_after(now + ends)
    return builder.sign(authority[0], algorithm=None).public_bytes(Encoding.PEM)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# identities


def test_secrets_are_for_their_owner_only(tmp_path: Path, site_folder: Path) -> None:
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert files == [
        "ca/certificate.pem",
        "ca/key.pem",
        "sites/701/authority.pem",
        "sites/701/certificate.pem",
        "sites/701/sealing.key",
        "sites/701/signing_key.pem",
    ]
    assert {mode(tmp_path / file) for file in files} == {0o600}
    assert {mode(tmp_path / "ca"), mode(site_folder)} == {0o700}
    assert len((site_folder / "sealing.key").read_bytes()) == 32


def test_what_exists_is_kept(site_folder: Path, tmp_path: Path, authority: Authority) -> None:
    before = {path: path.read_bytes() for path in site_folder.iterdir()}
    ensure_site_identity(site_folder, SITE, authority)
    assert {path: path.read_bytes() for path in site_folder.iterdir()} == before
    assert len(before) == 4
    assert ensure_authority(tmp_path / "ca")[1] == authority[1]


def test_sites_have_keys_of_their_own(tmp_path: Path, authority: Authority, site_folder: Path) -> None:
    other = tmp_path / "sites" / "702"
    ensure_site_identity(other, "702", authority)
    for file in ("sealing.key", "signing_key.pem", "certificate.pem"):
        assert (other / file).read_bytes() != (site_folder / file).read_bytes()


# certificates


def test_our_certificate_is_valid(site_folder: Path, authority: Authority) -> None:
    pem = (site_folder / "certificate.pem").read_bytes()
    found = validate_certificate(pem, SITE, authority[1])
    assert found.public_key() == load_key(site_folder / "signing_key.pem").public_key()
    assert found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False


def test_certificates_that_are_refused(authority: Authority, tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    stranger = ensure_authority(tmp_path / "stranger")
    assert stranger[1].subject == authority[1].subject, "the same name, another key"
    pem = certificate(authority, key.public_key())
    assert validate_certificate(pem, SITE, authority[1]).subject == name(SITE)
    curve = certificate(authority, ec.generate_private_key(ec.SECP256R1()).public_key())
    cases = {
        "not issued by the consortium's authority": [
            certificate(stranger, key.public_key()),
            _self_signed(),
            b"not a certificate",
            b"",
            pem.replace(b"M", b"N", 3),
        ],
        r"the certificate is for \['702'\]": [certificate(authority, key.public_key(), "702")],
        "not valid today: ask the authority for a new one": [
            certificate(authority, key.public_key(), begins=-2 * DAY, ends=-DAY),
            certificate(authority, key.public_key(), begins=DAY, ends=2 * DAY),
        ],
        "key is not Ed25519": [curve],
    }
    for says, pems in cases.items():
        for wrong in pems:
            with pytest.raises(ConfigError, match=f"site 701: .*{says}"):
                validate_certificate(wrong, SITE, authority[1])


def _self_signed() -> bytes:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name(SITE)).issuer_name(name("pharmafed consortium"))
    builder = builder.public_key(key.public_key()).serial_number(1).not_valid_before(now - DAY)
    return builder.not_valid_after(now + DAY).sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


# enrolment


def enrolled(hub: ObjectStore, site: str, folder: Path, authority: Authority, proof: bytes | None = None) -> Enrolment:
    key = load_key(folder / "signing_key.pem")
    pem = (folder / "certificate.pem").read_bytes()
    return enrol(hub, site, pem, CHALLENGE, proof or key.sign(CHALLENGE), authority[1])


@pytest.fixture
def new_site(study_name: str) -> str:
    """The store is shared, so each test enrols a site of its own."""
    return study_name.replace("study", "site")


@pytest.fixture
def folder(new_site: str, tmp_path: Path, authority: Authority) -> Path:
    ensure_site_identity(tmp_path / new_site, new_site, authority)
    return tmp_path / new_site


def test_a_site_is_enrolled_once(hub: ObjectStore, new_site: str, folder: Path, authority: Authority) -> None:
    first = enrolled(hub, new_site, folder, authority)
    assert (first.site, first.active) == (new_site, True)
    assert len(first.token) >= 32
    assert enrolled(hub, new_site, folder, authority) == first
    assert hub.get_record(layout.enrolment(new_site), Enrolment) == first
    private = (folder / "signing_key.pem").read_text().splitlines()[1]
    assert private not in hub.get(layout.enrolment(new_site)).decode()


def test_another_certificate_for_an_enrolled_site_is_refused(
    hub: ObjectStore, new_site: str, folder: Path, authority: Authority
) -> None:
    first = enrolled(hub, new_site, folder, authority)
    (folder / "certificate.pem").unlink()
    ensure_site_identity(folder, new_site, authority)
    with pytest.raises(ConfigError, match="enrolled with another certificate: revoke that enrolment first"):
        enrolled(hub, new_site, folder, authority)
    assert hub.get_record(layout.enrolment(new_site), Enrolment) == first


def test_a_wrong_proof_enrols_nobody(hub: ObjectStore, new_site: str, folder: Path, authority: Authority) -> None:
    key = load_key(folder / "signing_key.pem")
    wrong = [b"", bytes(64), key.sign(b"another challenge"), Ed25519PrivateKey.generate().sign(CHALLENGE)]
    for proof in wrong:
        with pytest.raises(ConfigError, match="the signature over the hub's challenge is wrong"):
            enrol(hub, new_site, (folder / "certificate.pem").read_bytes(), CHALLENGE, proof, authority[1])
    with pytest.raises(ObjectMissing):
        hub.get(layout.enrolment(new_site))


def test_a_strangers_certificate_enrols_nobody(
    hub: ObjectStore, new_site: str, tmp_path: Path, authority: Authority
) -> None:
    stranger = ensure_authority(tmp_path / "stranger")
    ensure_site_identity(tmp_path / "fake", new_site, stranger)
    with pytest.raises(ConfigError, match="not issued by the consortium's authority"):
        enrolled(hub, new_site, tmp_path / "fake", authority)
    assert not hub.exists(layout.enrolment(new_site))


def test_tokens_differ(hub: ObjectStore, tmp_path: Path, study_name: str) -> None:
    sites = [f"{study_name}_{letter}" for letter in "ab"]
    first, second = enrol_local_sites(hub, tmp_path, sites)
    assert [first.site, second.site] == sites
    assert first.token != second.token
    assert enrol_local_sites(hub, tmp_path, sites) == [first, second]


def test_enrolment_publishes_the_sealing_key_that_the_site_can_open(
    hub: ObjectStore, tmp_path: Path, study_name: str
) -> None:
    """So that other sites seal their shares to it; signed, so that the store cannot put its own in its place."""
    site = f"{study_name}_sealing"
    (enrolment,) = enrol_local_sites(hub, tmp_path, [site])
    record = hub.get_record(layout.sealing_key(site), SealingKey)
    private = (tmp_path / "secrets" / "sites" / site / "sealing.key").read_bytes()
    own = X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    _, authority = ensure_authority(tmp_path / "secrets" / "ca")
    assert open_sealing_keys({site: record}, authority) == {site: own}
    assert record.certificate_pem == enrolment.certificate_pem
    exchanged = record.model_copy(update={"public_key": X25519PrivateKey.generate().public_key().public_bytes_raw()})
    with pytest.raises(PrivacyError):
        open_sealing_keys({site: exchanged}, authority)
    stored = hub.get(layout.sealing_key(site))
    assert private not in stored
    assert base64.b64encode(private) not in stored
    assert private.hex().encode() not in stored


# signatures


def enrolment_of(folder: Path) -> Enrolment:
    pem = (folder / "certificate.pem").read_text()
    return Enrolment(site=SITE, token="t", certificate_pem=pem, enrolled_at=datetime.now(UTC))


def test_a_signature_is_the_sites_over_these_bytes(site_folder: Path, tmp_path: Path, authority: Authority) -> None:
    message, enrolment = b"manifest", enrolment_of(site_folder)
    signature = sign(site_folder, message)
    assert is_signed_by(enrolment, signature, message)
    other = tmp_path / "sites" / "702"
    ensure_site_identity(other, "702", authority)
    flipped = bytearray(base64.b64decode(signature))
    flipped[0] ^= 1
    wrong = [
        (signature, b"manifesT"),
        (signature, b""),
        (sign(other, message), message),
        (base64.b64encode(bytes(flipped)).decode(), message),
        ("", message),
        ("no base64!", message),
        (signature[:-4], message),
        ("Ünicode", message),
    ]
    assert [is_signed_by(enrolment, *case) for case in wrong] == [False] * len(wrong)


def test_a_key_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no key at .*: enrol the site, or run `pharmafed up`"):
        load_key(tmp_path / "signing_key.pem")
