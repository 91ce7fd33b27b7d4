import ssl
import stat
import tomllib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tasks.deploy.store_security import RENEWED, VALID, certificate_file, ensure_closed, require_closed, security_file
from tasks.errors import ConfigError

NOW = datetime(2027, 1, 1, tzinfo=UTC)
SERVERS = ("master", "volume", "filer")


@pytest.fixture
def home(tmp_path):
    assert ensure_closed(tmp_path, NOW) is True
    return tmp_path


def settings(home):
    return tomllib.loads(security_file(home).read_text())


def certificate(home):
    return x509.load_pem_x509_certificate(certificate_file(home).read_bytes())


def test_every_interface_demands_the_one_certificate(home):
    found = settings(home)
    resolved = {(home / "seaweedfs" / found["grpc"]["ca"]).resolve()}
    for part in (*SERVERS, "s3", "client"):
        resolved |= {(home / "seaweedfs" / found["grpc"][part][name]).resolve() for name in ("cert", "key")}
    for part in (*SERVERS, "client"):
        resolved |= {(home / "seaweedfs" / found["https"][part][name]).resolve() for name in ("cert", "key", "ca")}
    assert resolved == {certificate_file(home).resolve()}
    assert found["https"]["client"]["enabled"] is True


def test_each_kind_of_token_has_a_key_of_its_own(home):
    tokens = settings(home)["jwt"]
    keys = [tokens["signing"]["key"], tokens["signing"]["read"]["key"]]
    keys += [tokens["filer_signing"]["key"], tokens["filer_signing"]["read"]["key"]]
    assert len(set(keys)) == 4
    assert {len(key) for key in keys} == {64}


def test_the_certificate_is_its_own_authority_and_no_ones_else(home):
    found = certificate(home)
    found.verify_directly_issued_by(found)
    assert found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert isinstance(found.public_key(), ec.EllipticCurvePublicKey)
    ssl.create_default_context().load_cert_chain(certificate_file(home))  # the key fits
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.rglob("*") if path.is_file()} == {0o600}


def test_nothing_is_written_again_without_need(home):
    before = certificate_file(home).read_bytes(), security_file(home).read_text()
    assert ensure_closed(home, NOW + VALID - RENEWED - timedelta(days=1)) is False
    assert (certificate_file(home).read_bytes(), security_file(home).read_text()) == before


def test_a_certificate_is_renewed_long_before_it_ends(home):
    before, later = certificate(home), NOW + VALID - RENEWED + timedelta(days=1)
    assert ensure_closed(home, later) is True
    assert certificate(home).not_valid_after_utc == later + VALID
    assert certificate(home).public_key() != before.public_key()
    assert ensure_closed(home, later) is False


@pytest.mark.parametrize("content", ["", "no certificate", "half"])
def test_a_broken_certificate_is_replaced(home, content):
    whole = certificate_file(home).read_text()
    certificate_file(home).write_text(whole.partition("-----BEGIN PRIVATE KEY")[0] if content == "half" else content)
    assert ensure_closed(home, NOW) is True
    require_closed(security_file(home), certificate_file(home), NOW)


def test_a_certificate_with_another_ones_key_is_replaced(home, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    ensure_closed(other, NOW)
    [ours, theirs] = [certificate_file(h).read_text().partition("-----BEGIN PRIVATE KEY") for h in (home, other)]
    certificate_file(home).write_text(ours[0] + theirs[1] + theirs[2])
    assert ensure_closed(home, NOW) is True


def test_settings_from_before_get_the_new_sections_and_keep_their_keys(home):
    now = security_file(home).read_text()
    security_file(home).write_text(now.partition("[grpc]")[0])
    assert ensure_closed(home, NOW) is True
    assert security_file(home).read_text() == now


def test_settings_that_cannot_be_read_are_not_overwritten(home):
    security_file(home).write_text("[jwt.signing\nkey = ")
    with pytest.raises(ConfigError, match=r"security\.toml cannot be read"):
        ensure_closed(home, NOW)
    assert security_file(home).read_text() == "[jwt.signing\nkey = "


SECTIONS = ["jwt.signing", "jwt.filer_signing.read", "grpc", *(f"grpc.{part}" for part in (*SERVERS, "s3", "client"))]
SECTIONS += [f"https.{part}" for part in (*SERVERS, "client")]


@pytest.mark.parametrize("section", SECTIONS)
def test_settings_with_a_section_missing_are_refused(home, section):
    blocks = security_file(home).read_text().split("\n\n")
    left = [block for block in blocks if f"[{section}]" not in block]
    assert len(left) == len(blocks) - 1
    require_closed(security_file(home), certificate_file(home), NOW)
    security_file(home).write_text("\n\n".join(left))
    with pytest.raises(ConfigError, match="would leave the object store open"):
        require_closed(security_file(home), certificate_file(home), NOW)


def test_missing_settings_and_an_expired_certificate_are_refused(home):
    with pytest.raises(ConfigError, match="no valid certificate"):
        require_closed(security_file(home), certificate_file(home), NOW + VALID)
    security_file(home).unlink()
    with pytest.raises(ConfigError, match="would leave the object store open"):
        require_closed(security_file(home), certificate_file(home), NOW)
