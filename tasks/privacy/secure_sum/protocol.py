"""The site's side of a secure sum. The package's docstring has the order of the steps and the guarantee.

Two things keep a lying hub out that no function can remember by itself. With one set of round keys a site joins one
roster: two sums that differ in one site would give that site away. And it answers about one set of survivors: two
answers could give both the self mask and the pair masks of one upload. So the caller stores what `join_roster` and
`answer` return, at the site and before anything else happens, and passes it in the next time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from cryptography import x509

from tasks.errors import PrivacyError
from tasks.privacy.secure_sum import sealing
from tasks.privacy.secure_sum.checks import (
    Sign,
    check_origin,
    check_roster,
    check_survivors,
    check_threshold,
    seed_commitment,
    share_digest,
    signed,
)
from tasks.privacy.secure_sum.masks import apply_masks, require_headroom
from tasks.privacy.secure_sum.records import (
    KeyMessage,
    Presence,
    Roster,
    RoundKeys,
    SealingKey,
    SharePair,
    Survivors,
    UnmaskAnswer,
    record_sha256,
)
from tasks.privacy.secure_sum.shamir import SHARE_BYTES, split


def publish_sealing_key(site: str, sealing_private: bytes, certificate_pem: str, sign: Sign) -> SealingKey:
    """The signed public half of the site's long-lived sealing key."""
    public = sealing.public_key(sealing_private)
    return signed(SealingKey(site=site, certificate_pem=certificate_pem, public_key=public), sign)


def open_sealing_keys(records: Mapping[str, SealingKey], authority: x509.Certificate) -> dict[str, bytes]:
    """The sites' sealing keys, once certificate and signature of each are verified.

    Raises:
        PrivacyError: a record is not of the site it stands for, not certified, or not signed.
    """
    for site, record in records.items():
        if record.site != site:
            raise PrivacyError(f"the sealing key of site {site} names site {record.site}")
        check_origin(record, authority)
    return {site: record.public_key for site, record in records.items()}


def make_round_keys(
    study: str,
    server_round: int,
    site: str,
    sealing_keys: Mapping[str, bytes],
    threshold: int,
    certificate_pem: str,
    sign: Sign,
    *,
    plan_sha256: str,
    presence: Presence | None = None,
    witnessed: Mapping[str, Presence] | None = None,
) -> tuple[RoundKeys, KeyMessage]:
    """Fresh secrets for one round, and the message that shares them out.

    Args:
        plan_sha256: of the whole plan as stored: keys serve the plan that they were drawn for.
        presence, witnessed: this site's word and that of others, see `Presence`.
        sealing_keys: of every planned site, this one included (`open_sealing_keys`).
        threshold: shares that recover a secret (`shamir.threshold_for`).

    Raises:
        PrivacyError: the site has no sealing key itself, or the threshold is not more than half of the sites.
    """
    if site not in sealing_keys:
        raise PrivacyError(f"site {site} has published no sealing key, so it holds no shares: publish it first")
    check_threshold(threshold, len(sealing_keys))
    keys = RoundKeys(
        study=study,
        server_round=server_round,
        site=site,
        plan_sha256=plan_sha256,
        mask_private_key=sealing.new_private_key(),
        self_seed=os.urandom(32),
    )
    message = KeyMessage(
        study=study,
        server_round=server_round,
        site=site,
        plan_sha256=plan_sha256,
        certificate_pem=certificate_pem,
        threshold=threshold,
        mask_public_key=sealing.public_key(keys.mask_private_key),
        self_seed_commitment=seed_commitment(study, server_round, site, keys.self_seed),
        shares=_share_out(keys, threshold, sealing_keys),
        presence=presence,
        witnessed=dict(sorted((witnessed or {}).items())),
    )
    return keys, signed(message, sign)


def join_roster(
    keys: RoundKeys,
    roster: Roster,
    messages: Mapping[str, KeyMessage],
    sealing_private: bytes,
    *,
    tolerated_dropouts: int,
) -> RoundKeys:
    """The round keys, bound to this roster. Store them before masking; a second roster is then refused.

    Args:
        messages: of every member, each passed by `verify_key_message`.
        tolerated_dropouts: what the site's own study file says; the roster must say the same.

    Raises:
        PrivacyError: the keys have joined another roster, the roster or a message is not as it must be, or a share
            for this site does not open: whoever sent it could not be recovered if it dropped out.
    """
    digest = record_sha256(roster)
    if keys.roster_sha256 not in (None, digest):
        raise PrivacyError(f"site {keys.site} has joined another roster of round {keys.server_round} already")
    check_roster(roster, messages)
    _check_own_message(keys, roster, messages)
    _check_plans(keys, messages)
    if roster.tolerated_dropouts != tolerated_dropouts:
        raise PrivacyError(
            f"the roster tolerates {roster.tolerated_dropouts} drop-outs, the study {tolerated_dropouts}: "
            "the sum would have another noise than planned"
        )
    for message in messages.values():
        _open_shares(message, keys.site, sealing_private)
    return keys.model_copy(update={"roster_sha256": digest})


def mask(
    values: npt.NDArray[np.int64], keys: RoundKeys, roster: Roster, messages: Mapping[str, KeyMessage]
) -> npt.NDArray[np.uint64]:
    """values + self mask + pair masks with later sites - pair masks with earlier ones, modulo 2^64; (n,).

    The masks are a function of keys and roster. So mask one vector only: the difference of two uploads is the
    difference of their vectors. Store `used_up` before what this returns goes anywhere.

    Raises:
        PrivacyError: the keys have been used or have not joined this roster, a message is not the roster's, a mask key
            is weak, or a value is so large that the members' sum may overflow.
    """
    digest = record_sha256(roster)
    if keys.used_for is not None:
        raise PrivacyError(f"site {keys.site} has used its masks of round {keys.server_round}: they serve once")
    if keys.roster_sha256 != digest:
        raise PrivacyError(f"site {keys.site} has not joined this roster: join_roster comes before mask")
    check_roster(roster, messages)
    _check_own_message(keys, roster, messages)
    require_headroom(values, len(roster.members))
    seeds = {
        peer: pair_seed(keys.mask_private_key, keys.site, messages[peer], digest)
        for peer in sorted(messages)
        if peer != keys.site
    }
    own = self_seed_key(keys.self_seed, messages[keys.site], digest)
    add = [seed for peer, seed in seeds.items() if peer > keys.site]
    subtract = [seed for peer, seed in seeds.items() if peer < keys.site]
    return apply_masks(values, [own, *add], subtract)


def used_up(keys: RoundKeys, release_sha256: str) -> RoundKeys:
    """The keys after their one use, for `release_sha256`: without their secrets, which could take the masks off again.

    Raises:
        PrivacyError: they have been used for something else.
    """
    if keys.used_for not in (None, release_sha256):
        raise PrivacyError(
            f"site {keys.site} has masked something else in round {keys.server_round}: two vectors under one mask "
            "would show their difference"
        )
    return keys.model_copy(update={"mask_private_key": bytes(32), "self_seed": bytes(32), "used_for": release_sha256})


def answer(
    roster: Roster,
    survivors: Survivors,
    messages: Mapping[str, KeyMessage],
    keys: RoundKeys,
    sealing_private: bytes,
    sign: Sign,
    *,
    earlier: UnmaskAnswer | None,
) -> UnmaskAnswer:
    """This site's shares: of each survivor's self seed, and of each other member's mask key.

    Args:
        earlier: what this site has answered with these round keys before, from its own disk; None if nothing. The
            same survivors get the same answer again.

    Raises:
        PrivacyError: the site has answered about other survivors, has not joined this roster or is no survivor; the
            survivors are not of this roster or too few; a message is not the roster's; a share does not open.
    """
    check_roster(roster, messages)
    check_survivors(survivors, roster)
    if keys.roster_sha256 != record_sha256(roster):
        raise PrivacyError(f"site {keys.site} has not joined this roster: it answers for no other")
    if keys.site not in survivors.sites:
        raise PrivacyError(f"site {keys.site} is not among the survivors, so it does not answer")
    if earlier is not None and earlier.survivors_sha256 != record_sha256(survivors):
        raise PrivacyError(
            f"site {keys.site} has answered about other survivors of round {keys.server_round}: two stories about who "
            "dropped out would unmask single updates"
        )
    opened = {member: _open_shares(messages[member], keys.site, sealing_private) for member in sorted(messages)}
    unsigned = UnmaskAnswer(
        study=roster.study,
        server_round=roster.server_round,
        site=keys.site,
        survivors_sha256=record_sha256(survivors),
        self_seed_shares={member: opened[member][0] for member in opened if member in survivors.sites},
        mask_key_shares={member: opened[member][1] for member in opened if member not in survivors.sites},
    )
    return signed(unsigned, sign)


def pair_seed(private: bytes, site: str, peer: KeyMessage, roster_sha256: str) -> bytes:
    """The seed of the mask that `site`, owner of `private`, and the sender of `peer` share in this roster."""
    first, second = sorted((site, peer.site))
    return sealing.agreed_key(
        private, peer.mask_public_key, peer.study, str(peer.server_round), first, second, roster_sha256
    )


def self_seed_key(self_seed: bytes, message: KeyMessage, roster_sha256: str) -> bytes:
    """The seed of a site's own mask in this roster: bound to it, so that no two rosters share a mask."""
    context = (message.study, str(message.server_round), message.site, roster_sha256)
    return sealing.derive(self_seed, "pharmafed self mask", *context)


def _share_out(keys: RoundKeys, threshold: int, sealing_keys: Mapping[str, bytes]) -> dict[str, SharePair]:
    holders = sorted(sealing_keys)
    seed_shares = split(keys.self_seed, threshold, len(holders))
    key_shares = split(keys.mask_private_key, threshold, len(holders))
    context = (keys.study, keys.server_round, keys.site)
    return {
        holder: SharePair(
            sealed=sealing.seal(seed + key, sealing_keys[holder], _associated(*context, holder)),
            self_seed_share_sha256=share_digest("self seed", *context, holder, seed),
            mask_key_share_sha256=share_digest("mask key", *context, holder, key),
        )
        for holder, seed, key in zip(holders, seed_shares, key_shares, strict=True)
    }


def _open_shares(message: KeyMessage, holder: str, sealing_private: bytes) -> tuple[bytes, bytes]:
    """The holder's shares of the sender's self seed and mask key."""
    context, pair = (message.study, message.server_round, message.site), message.shares[holder]
    try:
        plaintext = sealing.unseal(pair.sealed, sealing_private, _associated(*context, holder))
    except PrivacyError as error:
        raise PrivacyError(f"the shares from site {message.site} to site {holder}: {error}") from None
    seed, key = plaintext[:SHARE_BYTES], plaintext[SHARE_BYTES:]
    digests = share_digest("self seed", *context, holder, seed), share_digest("mask key", *context, holder, key)
    announced = (pair.self_seed_share_sha256, pair.mask_key_share_sha256)
    if len(key) != SHARE_BYTES or digests != announced:
        raise PrivacyError(f"the shares from site {message.site} to site {holder} are not the ones it announced")
    return seed, key


def _associated(study: str, server_round: int, sender: str, holder: str) -> bytes:
    return sealing.framed("pharmafed shares", study, str(server_round), sender, holder)


def _check_plans(keys: RoundKeys, messages: Mapping[str, KeyMessage]) -> None:
    """All members must follow the same plan, byte for byte: a hub could tell each site another one."""
    if other := sorted(site for site, message in messages.items() if message.plan_sha256 != keys.plan_sha256):
        raise PrivacyError(f"sites {other} follow another plan of round {keys.server_round} than site {keys.site}")


def _check_own_message(keys: RoundKeys, roster: Roster, messages: Mapping[str, KeyMessage]) -> None:
    """The roster must hold this site's message of these very keys: an older one would be masked with other keys."""
    if keys.site not in messages:
        raise PrivacyError(f"site {keys.site} is not in the roster, so it masks nothing")
    own = messages[keys.site]
    commitment = seed_commitment(roster.study, roster.server_round, keys.site, keys.self_seed)
    if (own.mask_public_key, own.self_seed_commitment) != (sealing.public_key(keys.mask_private_key), commitment):
        raise PrivacyError(f"the roster has a key message of site {keys.site} that these round keys did not make")
