"""The hub's side of a secure sum: it freezes who takes part and who survived, and opens the survivors' sum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.errors import PrivacyError, QuorumMissed
from tasks.privacy.secure_sum import sealing, shamir
from tasks.privacy.secure_sum.checks import (
    check_roster,
    check_signature,
    check_survivors,
    seed_commitment,
    share_digest,
    share_numbers,
)
from tasks.privacy.secure_sum.masks import apply_masks, to_signed
from tasks.privacy.secure_sum.protocol import pair_seed, self_seed_key
from tasks.privacy.secure_sum.records import KeyMessage, Roster, Survivors, UnmaskAnswer, record_sha256


@dataclass(frozen=True)
class UnmaskedSum:
    """The exact sum of the survivors' vectors, (n,), and whose answers were not used: site -> why."""

    values: npt.NDArray[np.int64]
    rejected: dict[str, str]


def make_roster(
    messages: Mapping[str, KeyMessage], *, run_id: str, missing: Mapping[str, str], tolerated_dropouts: int
) -> Roster:
    """The roster of these key messages, each passed by `admit_key_message`.

    Raises:
        PrivacyError: they are too few, of several studies, rounds or thresholds, or without shares for one another.
    """
    if not messages:
        raise PrivacyError("no site has sent a key message, so there is nobody to sum over")
    first = next(iter(messages.values()))
    if {(message.study, message.server_round) for message in messages.values()} != {(first.study, first.server_round)}:
        raise PrivacyError("the key messages are of several rounds: they make no roster")
    roster = Roster(
        study=first.study,
        server_round=first.server_round,
        run_id=run_id,
        threshold=first.threshold,
        members={site: record_sha256(messages[site]) for site in sorted(messages)},
        missing=dict(sorted(missing.items())),
        tolerated_dropouts=tolerated_dropouts,
    )
    check_roster(roster, messages)
    return roster


def freeze_survivors(roster: Roster, sites: Iterable[str]) -> Survivors:
    """The members whose uploads arrived. Raises PrivacyError if they are too few or not members."""
    survivors = Survivors(
        study=roster.study,
        server_round=roster.server_round,
        roster_sha256=record_sha256(roster),
        sites=tuple(sorted(sites)),
    )
    check_survivors(survivors, roster)
    return survivors


def check_answer(
    answer: UnmaskAnswer, roster: Roster, survivors: Survivors, messages: Mapping[str, KeyMessage]
) -> None:
    """Check one answer: sender, signature, and every share against the digest that its sender published.

    Raises:
        PrivacyError: the answer cannot be used; the message names its site and what is wrong.
    """
    site = answer.site
    if site not in survivors.sites:
        raise PrivacyError(f"site {site} is no survivor, so its answer does not count")
    if answer.survivors_sha256 != record_sha256(survivors):
        raise PrivacyError(f"the answer of site {site} is about other survivors")
    check_signature(answer, messages[site].certificate_pem)
    lost = set(roster.members) - set(survivors.sites)
    if set(answer.self_seed_shares) != set(survivors.sites) or set(answer.mask_key_shares) != lost:
        raise PrivacyError(f"the answer of site {site} has not one share of every member")
    for member, message in messages.items():
        kind, share, expected = _share_and_digest(answer, message)
        if share_digest(kind, message.study, message.server_round, member, site, share) != expected:
            raise PrivacyError(f"site {site} answered with a wrong share of the {kind} of site {member}")


def open_sum(
    total: npt.NDArray[np.uint64],
    roster: Roster,
    survivors: Survivors,
    messages: Mapping[str, KeyMessage],
    answers: Mapping[str, UnmaskAnswer],
) -> UnmaskedSum:
    """Take the masks off the survivors' summed uploads.

    A wrong share is recognised by its published digest, so any number of wrong answers does no harm as long as
    `roster.threshold` right ones are left.

    Args:
        total: (n,), the survivors' uploads added modulo 2^64.
        messages: of every member, each passed by `verify_key_message`.
        answers: by site.

    Raises:
        QuorumMissed: fewer than `roster.threshold` answers can be used; the message names the rest and why.
        PrivacyError: roster, survivors or messages do not belong together, or right shares meet in a secret that is
            not the one a site committed to: that site, which is named, shared out something else.
    """
    check_roster(roster, messages)
    check_survivors(survivors, roster)
    usable, rejected = sift(answers, roster, survivors, messages)
    if len(usable) < roster.threshold:
        reasons = "".join(f"; {site}: {reason}" for site, reason in rejected.items())
        raise QuorumMissed(
            f"round {roster.server_round} of {roster.study}: {len(usable)} answers can be used and it takes "
            f"{roster.threshold} to open the sum{reasons}"
        )
    chosen = [usable[site] for site in sorted(usable)[: roster.threshold]]
    secrets = {member: _recover(messages[member], member in survivors.sites, chosen) for member in roster.members}
    added, subtracted = _masks_in(secrets, roster, survivors, messages)
    return UnmaskedSum(to_signed(apply_masks(total, add=subtracted, subtract=added)), rejected)


def sift(
    answers: Mapping[str, UnmaskAnswer], roster: Roster, survivors: Survivors, messages: Mapping[str, KeyMessage]
) -> tuple[dict[str, UnmaskAnswer], dict[str, str]]:
    """The answers that can be used, and of each other one why not, by site."""
    usable: dict[str, UnmaskAnswer] = {}
    rejected: dict[str, str] = {}
    for site, answer in answers.items():
        try:
            if answer.site != site:
                raise PrivacyError(f"the answer of site {site} names site {answer.site}")
            check_answer(answer, roster, survivors, messages)
            usable[site] = answer
        except PrivacyError as error:
            rejected[site] = str(error)
    return usable, rejected


def _share_and_digest(answer: UnmaskAnswer, message: KeyMessage) -> tuple[str, bytes, str]:
    pair = message.shares[answer.site]
    if message.site in answer.self_seed_shares:
        return "self seed", answer.self_seed_shares[message.site], pair.self_seed_share_sha256
    return "mask key", answer.mask_key_shares[message.site], pair.mask_key_share_sha256


def _recover(message: KeyMessage, survived: bool, answers: list[UnmaskAnswer]) -> bytes:
    """The sender's self seed if it survived, its mask private key if not, checked against its key message."""
    numbers = share_numbers(message)
    shares = {numbers[answer.site]: _share_and_digest(answer, message)[1] for answer in answers}
    try:
        secret = shamir.combine(shares)
        matches = _matches_seed(secret, message) if survived else sealing.public_key(secret) == message.mask_public_key
    except PrivacyError:
        matches = False
    if not matches:
        raise PrivacyError(
            f"site {message.site} shared out another secret than it committed to: leave it out of the next round"
        )
    return secret


def _matches_seed(secret: bytes, message: KeyMessage) -> bool:
    return seed_commitment(message.study, message.server_round, message.site, secret) == message.self_seed_commitment


def _masks_in(
    secrets: Mapping[str, bytes], roster: Roster, survivors: Survivors, messages: Mapping[str, KeyMessage]
) -> tuple[list[bytes], list[bytes]]:
    """Seeds of the masks that are still in the sum: those that the survivors added, and those they subtracted.

    The pair masks of two survivors have cancelled. What is left: every survivor's own mask, and its pair masks with
    members that dropped out, added if the lost site comes later in the order of names.
    """
    digest = record_sha256(roster)
    added = [self_seed_key(secrets[site], messages[site], digest) for site in survivors.sites]
    subtracted: list[bytes] = []
    for lost in sorted(set(roster.members) - set(survivors.sites)):
        for site in survivors.sites:
            seed = pair_seed(secrets[lost], lost, messages[site], digest)
            (added if lost > site else subtracted).append(seed)
    return added, subtracted
