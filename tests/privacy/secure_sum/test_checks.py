"""Key messages: the genuine one passes; every altered, foreign or replayed one is refused with its reason."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tasks.errors import PrivacyError
from tasks.privacy.secure_sum import sealing
from tasks.privacy.secure_sum.checks import admit_key_message, seed_commitment, share_digest, signed, verify_key_message
from tasks.privacy.secure_sum.opening import make_roster
from tasks.privacy.secure_sum.protocol import open_sealing_keys, publish_sealing_key
from tasks.privacy.secure_sum.records import KeyMessage, Roster, record_sha256
from tasks.store.identity import ensure_authority, ensure_site_identity, sign
from tasks.store.objects import to_json
from tests.privacy.secure_sum.secure_sum_federation import STUDY, Federation, Round

Change = Callable[[KeyMessage], KeyMessage]


@pytest.fixture(scope="module")
def running(federation: Federation) -> Round:
    return federation.start(3, 2)


def naming(roster: Roster, message: KeyMessage) -> Roster:
    """The roster of a hub that takes part in the fraud: it names the altered message's digest."""
    return roster.model_copy(update={"members": roster.members | {message.site: record_sha256(message)}})


def verify(message: KeyMessage, roster: Roster, federation: Federation) -> None:
    verify_key_message(message, to_json(message), roster, federation.authority)


def swapped_key(message: KeyMessage) -> KeyMessage:
    return message.model_copy(update={"mask_public_key": sealing.public_key(sealing.new_private_key())})


def altered_share(message: KeyMessage) -> KeyMessage:
    pair = message.shares["703"]
    sealed = bytes([pair.sealed[0] ^ 1]) + pair.sealed[1:]
    return message.model_copy(update={"shares": message.shares | {"703": pair.model_copy(update={"sealed": sealed})}})


def other_commitment(message: KeyMessage) -> KeyMessage:
    return message.model_copy(update={"self_seed_commitment": "0" * 64})


def lower_threshold(message: KeyMessage) -> KeyMessage:
    return message.model_copy(update={"threshold": 2})


def no_signature(message: KeyMessage) -> KeyMessage:
    return message.model_copy(update={"signature": ""})


ALTERATIONS = [swapped_key, altered_share, other_commitment, lower_threshold, no_signature]


def test_genuine_messages_pass(running: Round, federation: Federation) -> None:
    for site, message in running.messages.items():
        verify(message, running.roster, federation)
        admit_key_message(message, site, STUDY, 1, federation.authority)


@pytest.mark.parametrize("change", ALTERATIONS)
def test_altered_message_is_not_the_roster_s(running: Round, federation: Federation, change: Change) -> None:
    with pytest.raises(PrivacyError, match="key message of site 702 is not the one that the roster names"):
        verify(change(running.messages["702"]), running.roster, federation)


@pytest.mark.parametrize("change", ALTERATIONS)
def test_altered_message_is_not_signed_even_if_the_hub_is_in_on_it(
    running: Round, federation: Federation, change: Change
) -> None:
    altered = change(running.messages["702"])
    with pytest.raises(PrivacyError, match="the signature of site 702 on its key message is wrong"):
        verify(altered, naming(running.roster, altered), federation)
    with pytest.raises(PrivacyError, match="the signature of site 702 on its key message is wrong"):
        admit_key_message(altered, "702", STUDY, 1, federation.authority)


def test_other_bytes_of_the_same_message_are_refused(running: Round, federation: Federation) -> None:
    message = running.messages["702"]
    with pytest.raises(PrivacyError, match="not the one that the roster names"):
        verify_key_message(message, to_json(message) + b" ", running.roster, federation.authority)
    with pytest.raises(PrivacyError, match="not the one that the roster names"):
        verify_key_message(message, to_json(running.messages["703"]), running.roster, federation.authority)
    spaced = to_json(message) + b" "
    members = running.roster.members | {"702": hashlib.sha256(spaced).hexdigest()}
    with pytest.raises(PrivacyError, match="not the one that the roster names"):
        verify_key_message(
            message, spaced, running.roster.model_copy(update={"members": members}), federation.authority
        )


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"server_round": 2}, "is for round 1 of cardio, not round 2 of cardio"),
        ({"study": "onco"}, "not round 1 of onco"),
    ],
)
def test_replayed_message_is_refused(
    running: Round, federation: Federation, other: dict[str, object], message: str
) -> None:
    with pytest.raises(PrivacyError, match=message):
        verify(running.messages["702"], running.roster.model_copy(update=other), federation)


def test_relabelled_replay_is_not_signed(running: Round, federation: Federation) -> None:
    for other in ({"server_round": 2}, {"study": "onco"}):
        relabelled = running.messages["702"].model_copy(update=other)
        roster = naming(running.roster.model_copy(update=other), relabelled)
        with pytest.raises(PrivacyError, match="the signature of site 702"):
            verify(relabelled, roster, federation)


def test_message_with_another_site_s_certificate_is_refused(running: Round, federation: Federation) -> None:
    """Site 703 speaks for 702, with its own genuine certificate and key."""
    thief = federation.sites["703"]
    posed = signed(running.messages["702"].model_copy(update={"certificate_pem": thief.certificate_pem}), thief.sign)
    with pytest.raises(PrivacyError, match=r"key message refused: site 702: the certificate is for \['703'\]"):
        verify(posed, naming(running.roster, posed), federation)
    with pytest.raises(PrivacyError, match="the key message of site 703 names site 702"):
        admit_key_message(posed, "703", STUDY, 1, federation.authority)


def test_message_with_another_authority_s_certificate_is_refused(
    running: Round, federation: Federation, tmp_path: Path
) -> None:
    ensure_site_identity(tmp_path / "702", "702", ensure_authority(tmp_path / "ca"))
    certificate = (tmp_path / "702" / "certificate.pem").read_text()
    posed = running.messages["702"].model_copy(update={"certificate_pem": certificate})
    posed = signed(posed, partial(sign, tmp_path / "702"))
    with pytest.raises(PrivacyError, match="not issued by the consortium's authority"):
        verify(posed, naming(running.roster, posed), federation)


def test_message_of_a_stranger_is_refused(running: Round, federation: Federation) -> None:
    stranger = running.messages["702"].model_copy(update={"site": "799"})
    with pytest.raises(PrivacyError, match="site 799 is not in the roster"):
        verify(stranger, running.roster, federation)


def test_signed_message_that_does_not_fit_the_roster_is_refused(running: Round, federation: Federation) -> None:
    """What a site signs itself and yet may not send: shares that two of five hold, another threshold, no share."""
    site, genuine = federation.sites["702"], running.messages["702"]
    fewer = {holder: pair for holder, pair in genuine.shares.items() if holder != "705"}
    for change, reason in (
        ({"threshold": 2}, "2 of 5 shares make no secure sum"),
        ({"threshold": 6}, "6 of 5 shares make no secure sum"),
        ({"threshold": 4}, "has threshold 4, the roster 3"),
        ({"shares": fewer}, r"has no shares for sites \['705'\]"),
    ):
        odd = signed(genuine.model_copy(update=change), site.sign)
        with pytest.raises(PrivacyError, match=reason):
            verify(odd, naming(running.roster, odd), federation)


def test_rosters_that_make_no_sum_are_refused(running: Round) -> None:
    def freeze(messages: dict[str, KeyMessage]) -> Roster:
        return make_roster(messages, run_id="run-1", missing={}, tolerated_dropouts=0)

    with pytest.raises(PrivacyError, match="nobody to sum over"):
        freeze({})
    for few in (("701",), ("701", "702")):
        with pytest.raises(PrivacyError, match=f"a roster of {len(few)} sites is too small"):
            freeze({site: running.messages[site] for site in few})
    later = running.messages["703"].model_copy(update={"server_round": 2})
    with pytest.raises(PrivacyError, match="of several rounds"):
        freeze(running.messages | {"703": later})
    with pytest.raises(PrivacyError, match="site 704 is not the one that the roster names"):
        freeze(running.messages | {"704": running.messages["703"]})
    stricter = running.messages["703"].model_copy(update={"threshold": 4})
    with pytest.raises(PrivacyError, match="site 703 has threshold 4, the roster 3"):
        freeze(running.messages | {"703": stricter})
    blind = running.messages["703"].model_copy(update={"shares": {"703": running.messages["703"].shares["703"]}})
    with pytest.raises(PrivacyError, match="site 703 has no shares for sites"):
        freeze(running.messages | {"703": blind})


def test_digests_are_bound_to_all_that_they_stand_for() -> None:
    share = ("self seed", "cardio", 1, "701", "702", b"share")
    for place, other in enumerate(("mask key", "onco", 2, "703", "703", b"another")):
        assert share_digest(*share) != share_digest(*share[:place], other, *share[place + 1 :])
    seed = ("cardio", 1, "701", b"seed")
    for place, other in enumerate(("onco", 2, "703", b"another")):
        assert seed_commitment(*seed) != seed_commitment(*seed[:place], other, *seed[place + 1 :])


def test_sealing_keys_are_certified_and_signed(federation: Federation, tmp_path: Path) -> None:
    site, private = federation.sites["701"], sealing.new_private_key()
    genuine = publish_sealing_key("701", private, site.certificate_pem, site.sign)
    assert open_sealing_keys({"701": genuine}, federation.authority) == {"701": sealing.public_key(private)}
    swapped = genuine.model_copy(update={"public_key": sealing.public_key(sealing.new_private_key())})
    posed = publish_sealing_key("702", private, site.certificate_pem, site.sign)
    for records, reason in (
        ({"701": swapped}, "the signature of site 701 on its sealing key is wrong"),
        ({"702": genuine}, "the sealing key of site 702 names site 701"),
        ({"702": posed}, r"sealing key refused: site 702: the certificate is for \['701'\]"),
    ):
        with pytest.raises(PrivacyError, match=reason):
            open_sealing_keys(records, federation.authority)


def test_a_signature_is_of_one_kind_of_record(federation: Federation, running: Round) -> None:
    """What is signed begins with the kind of record, so a signature passes on no other kind. (Ed25519 is
    deterministic: the same bytes have the same signature.)"""
    message, site = running.messages["701"], federation.sites["701"]
    key = publish_sealing_key("701", site.sealing_private, site.certificate_pem, site.sign)
    given = running.answer("701", running.survivors(running.roster.members))
    for record, kind in ((message, "key message"), (key, "sealing key"), (given, "unmask answer")):
        body = to_json(record.model_copy(update={"signature": ""}))
        assert record.signature == site.sign(sealing.framed(f"pharmafed {kind}", body))
