"""What hub and sites verify before they use each other's records. Whatever is not as it must be is a PrivacyError."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tasks.errors import ConfigError, PrivacyError
from tasks.privacy.secure_sum.records import (
    KeyMessage,
    Presence,
    Roster,
    SealingKey,
    Survivors,
    UnmaskAnswer,
    record_sha256,
)
from tasks.privacy.secure_sum.sealing import commitment, framed, require_strong
from tasks.store.identity import parse_certificate, validate_certificate
from tasks.store.objects import to_json

#: With two, each would learn the other's vector from the sum.
MIN_SITES = 3

Sign = Callable[[bytes], str]
SiteMessage = TypeVar("SiteMessage", SealingKey, KeyMessage, UnmaskAnswer, Presence)
_Any = SealingKey | KeyMessage | UnmaskAnswer | Presence


def signed(record: SiteMessage, sign: Sign) -> SiteMessage:
    """The record with its signature; `sign` gives base64."""
    return record.model_copy(update={"signature": sign(_signed_bytes(record))})


def check_signature(record: _Any, certificate_pem: str) -> None:
    """Check the record's signature with the key of a certificate that is already trusted."""
    certificate = parse_certificate(certificate_pem.encode())
    key = None if certificate is None else certificate.public_key()
    try:
        if not isinstance(key, Ed25519PublicKey):
            raise InvalidSignature
        key.verify(base64.b64decode(record.signature, validate=True), _signed_bytes(record))
    except (InvalidSignature, ValueError):
        raise PrivacyError(f"the signature of site {record.site} on its {_kind(record)} is wrong") from None


def check_origin(record: SealingKey | KeyMessage, authority: x509.Certificate) -> None:
    """Check that the authority certifies the sender, and that the sender signed the record."""
    try:
        validate_certificate(record.certificate_pem.encode(), record.site, authority)
    except ConfigError as error:
        raise PrivacyError(f"{_kind(record)} refused: {error}") from None
    check_signature(record, record.certificate_pem)


def admit_key_message(
    message: KeyMessage,
    site: str,
    study: str,
    server_round: int,
    authority: x509.Certificate,
    *,
    plan_sha256: str | None = None,
) -> None:
    """Check a key message by itself, before there is a roster: sender, signature, study, round and threshold.

    Args:
        plan_sha256: where given, the plan that the sender must follow.

    Raises:
        PrivacyError: it is not this site's message for this round, or its shares are too few or too easily combined.
    """
    if message.site != site:
        raise PrivacyError(f"the key message of site {site} names site {message.site}")
    if (message.study, message.server_round) != (study, server_round):
        raise PrivacyError(
            f"the key message of site {site} is for round {message.server_round} of {message.study}, "
            f"not round {server_round} of {study}"
        )
    if plan_sha256 not in (None, message.plan_sha256):
        raise PrivacyError(f"the key message of site {site} is for another plan of round {server_round}")
    check_origin(message, authority)
    check_threshold(message.threshold, len(message.shares))
    _check_presence(message)


def read_key_message(body: bytes, site: str) -> KeyMessage:
    """Parse a key message as it is stored: every site compares these bytes with the roster's digest of the message.

    Raises:
        PrivacyError: it is no key message, or not spelled as `to_json` spells it.
    """
    try:
        message = KeyMessage.model_validate_json(body)
    except ValueError as error:
        raise PrivacyError(f"the key message of site {site} cannot be read ({type(error).__name__})") from None
    if to_json(message) != body:
        raise PrivacyError(f"the key message of site {site} is not spelled as its record is")
    return message


def check_shares(message: KeyMessage, holders: Collection[str], threshold: int) -> None:
    """Check that a key message fits every other one of its round: the plan's holders and threshold, and a sound key.

    Raises:
        PrivacyError: with this message on a roster, no site could mask.
    """
    if set(message.shares) != set(holders) or message.threshold != threshold:
        raise PrivacyError(
            f"the key message of site {message.site} has {message.threshold} of {len(message.shares)} shares, not "
            f"{threshold} of the {len(holders)} planned sites'"
        )
    require_strong(message.mask_public_key)


def verify_key_message(message: KeyMessage, body: bytes, roster: Roster, authority: x509.Certificate) -> None:
    """Check a key message against the roster: its exact bytes, and all that `admit_key_message` checks.

    Args:
        body: the message's bytes as they were stored.

    Raises:
        PrivacyError: the message is not the one that the roster names, or not what that site may send.
    """
    expected = roster.members.get(message.site)
    if expected is None:
        raise PrivacyError(f"site {message.site} is not in the roster of round {roster.server_round}")
    if hashlib.sha256(body).hexdigest() != expected or to_json(message) != body:
        raise PrivacyError(f"the key message of site {message.site} is not the one that the roster names")
    admit_key_message(message, message.site, roster.study, roster.server_round, authority)
    _check_membership(message, roster)


def check_roster(roster: Roster, messages: Mapping[str, KeyMessage]) -> None:
    """Check the roster by itself, and that `messages` are exactly the ones it names."""
    if len(roster.members) < max(MIN_SITES, roster.threshold):
        raise PrivacyError(
            f"a roster of {len(roster.members)} sites is too small for a secure sum: "
            f"it takes {max(MIN_SITES, roster.threshold)}"
        )
    if set(messages) != set(roster.members):
        raise PrivacyError(f"key messages of {sorted(messages)} do not make the roster of {sorted(roster.members)}")
    for site, message in messages.items():
        if message.site != site or record_sha256(message) != roster.members[site]:
            raise PrivacyError(f"the key message of site {site} is not the one that the roster names")
        _check_membership(message, roster)


def check_survivors(survivors: Survivors, roster: Roster) -> None:
    """Check that the survivors are members of this roster, and enough of them."""
    if survivors.roster_sha256 != record_sha256(roster):
        raise PrivacyError("the survivors are of another roster: no share is given for them")
    if (survivors.study, survivors.server_round) != (roster.study, roster.server_round):
        raise PrivacyError("the survivors are of another round: no share is given for them")
    strangers = set(survivors.sites) - set(roster.members)
    if strangers or len(set(survivors.sites)) != len(survivors.sites):
        raise PrivacyError(f"the survivors are no subset of the roster: {sorted(strangers) or 'a site stands twice'}")
    fewest = min_survivors(roster)
    if len(survivors.sites) < fewest:
        raise PrivacyError(f"only {len(survivors.sites)} sites survived; a sum is opened for {fewest} or more")


def min_survivors(roster: Roster) -> int:
    """The fewest sites whose sum is opened: enough shares, and enough of the noise that each member brought."""
    return max(MIN_SITES, roster.threshold, len(roster.members) - roster.tolerated_dropouts)


def check_threshold(threshold: int, holders: int) -> None:
    """Check that two stories cannot both collect `threshold` of the holders' shares."""
    if holders < MIN_SITES or not holders < 2 * threshold <= 2 * holders:
        raise PrivacyError(
            f"{threshold} of {holders} shares make no secure sum: it takes {MIN_SITES} sites and more than half of them"
        )


def share_numbers(message: KeyMessage) -> dict[str, int]:
    """The number that each holder's shares of this message's secrets have, from 1, by order of names."""
    return {site: number for number, site in enumerate(sorted(message.shares), 1)}


def share_digest(kind: str, study: str, server_round: int, sender: str, holder: str, share: bytes) -> str:
    """The digest that stands beside a sealed share in the key message. `kind` is "self seed" or "mask key"."""
    return commitment("pharmafed share", kind, study, str(server_round), sender, holder, share)


def seed_commitment(study: str, server_round: int, site: str, self_seed: bytes) -> str:
    """What a key message says about the self seed."""
    return commitment("pharmafed self seed", study, str(server_round), site, self_seed)


def _check_presence(message: KeyMessage) -> None:
    """A site's word on itself is signed by it and about this very round."""
    word = message.presence
    if word is None:
        return
    said = (word.study, word.server_round, word.site, word.plan_sha256)
    if said != (message.study, message.server_round, message.site, message.plan_sha256):
        raise PrivacyError(f"the key message of site {message.site} holds its word on another round")
    check_signature(word, message.certificate_pem)


def _check_membership(message: KeyMessage, roster: Roster) -> None:
    if message.threshold != roster.threshold:
        raise PrivacyError(
            f"the key message of site {message.site} has threshold {message.threshold}, the roster {roster.threshold}"
        )
    if without := sorted(set(roster.members) - set(message.shares)):
        raise PrivacyError(f"the key message of site {message.site} has no shares for sites {without}")


def _signed_bytes(record: _Any) -> bytes:
    unsigned = record.model_copy(update={"signature": ""})
    return framed(f"pharmafed {_kind(record)}", to_json(unsigned))


def _kind(record: _Any) -> str:
    kinds = {
        SealingKey: "sealing key",
        KeyMessage: "key message",
        UnmaskAnswer: "unmask answer",
        Presence: "presence",
    }
    return kinds[type(record)]
