"""A site's side of the masks of a round: its keys, its masked upload, its one answer about who dropped out.

`tasks.privacy.secure_sum` has the protocol; here is what it reads and writes. Files of the round at the site:
round_keys.json (its secrets, and the roster it has joined), key_message.json, unmask_answer.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from cryptography import x509

from tasks import layout
from tasks.enrolment import sign
from tasks.errors import ConfigError, ObjectMissing, PrivacyError, RoundRefused
from tasks.files import write_private
from tasks.privacy.contribution import Maskable
from tasks.privacy.secure_sum import protocol
from tasks.privacy.secure_sum.checks import verify_key_message
from tasks.privacy.secure_sum.records import KeyMessage, Roster, RoundKeys, SealingKey, Survivors, UnmaskAnswer, sha256
from tasks.privacy.secure_sum.shamir import threshold_for
from tasks.records import Plan
from tasks.site.context import SiteContext
from tasks.storage import to_json
from tasks.study_privacy import noise_shares

Kept = TypeVar("Kept", RoundKeys, UnmaskAnswer)


class Masking:
    """One site in one masked round.

    Raises (all methods):
        PrivacyError: something is not as the protocol needs it; nothing is masked or told. StoreUnavailable: retry.
    """

    def __init__(self, ctx: SiteContext, plan: Plan) -> None:
        self.ctx, self.plan = ctx, plan
        self.folder = ctx.round_dir(plan.server_round)

    def publish_keys(self) -> None:
        """Draw the round's keys, seal their shares to the other sites, publish the message. Again: the same one."""
        message_file = self.folder / "key_message.json"
        if not message_file.exists():
            keys, message = self._new_keys()
            write_private(self.folder / "round_keys.json", to_json(keys))
            write_private(message_file, to_json(message))
        self.ctx.store.create(
            layout.key_message(self.plan.study, self.plan.server_round, self.ctx.site),
            message_file.read_bytes(),
            content_type="application/json",
        )

    def roster(self) -> Roster:
        """The round's roster, the only one that this site has joined or will join.

        Raises RoundRefused when the site is not on it, or it was never frozen.
        """
        try:
            roster = self.ctx.store.get_record(layout.roster(self.plan.study, self.plan.server_round), Roster)
        except ObjectMissing:
            raise RoundRefused(f"round {self.plan.server_round} has no roster: too few sites joined") from None
        if self.ctx.site not in roster.members:
            reason = roster.missing.get(self.ctx.site, "it joined too late")
            raise RoundRefused(f"site {self.ctx.site} is not on the roster: {reason}")
        if self._keys().roster_sha256 not in (None, sha256(roster)):
            raise PrivacyError(
                f"site {self.ctx.site} has joined another roster of round {self.plan.server_round} already"
            )
        return roster

    def join(self, roster: Roster) -> None:
        """Bind this round's keys to the roster, on disk, before anything is masked with them."""
        keys = protocol.join_roster(
            self._keys(), roster, self._messages(roster), self._sealing_key(), tolerated_dropouts=self._tolerated()
        )
        write_private(self.folder / "round_keys.json", to_json(keys))

    def mask(self, roster: Roster, contribution: Maskable) -> npt.NDArray[np.uint64]:
        """The contribution behind the masks of the roster that `join` has bound the keys to."""
        return protocol.mask(contribution.values, self._keys(), roster, self._messages(roster))

    def forget_secrets(self) -> None:
        """Blank this round's secrets: the upload is made, and with them somebody could take its masks off later."""
        keys = self._keys().model_copy(update={"mask_private_key": bytes(32), "self_seed": bytes(32)})
        write_private(self.folder / "round_keys.json", to_json(keys))

    def answer(self) -> None:
        """Publish this site's shares for the survivors that the hub has frozen: once, and for one story only."""
        plan, answer_file = self.plan, self.folder / "unmask_answer.json"
        roster = self.roster()
        survivors = self._survivors()
        if len(survivors.sites) < plan.min_sites:
            raise PrivacyError(f"{len(survivors.sites)} sites uploaded, {plan.min_sites} are needed: no sum is opened")
        answer = protocol.answer(
            roster,
            survivors,
            self._messages(roster),
            self._keys(),
            self._sealing_key(),
            lambda message: sign(self.ctx.secrets_dir, message),
            earlier=_read(answer_file, UnmaskAnswer),
        )
        write_private(answer_file, to_json(answer))
        self.ctx.store.create_record(layout.unmask_answer(plan.study, plan.server_round, self.ctx.site), answer)

    def _new_keys(self) -> tuple[RoundKeys, KeyMessage]:
        plan = self.plan
        records = {site: self._published_sealing_key(site) for site in plan.sites}
        _, colluding = noise_shares(plan.privacy)
        return protocol.make_round_keys(
            plan.study,
            plan.server_round,
            self.ctx.site,
            protocol.open_sealing_keys(records, self._authority()),
            threshold_for(len(plan.sites), colluding),
            (self.ctx.secrets_dir / "certificate.pem").read_text(),
            lambda message: sign(self.ctx.secrets_dir, message),
        )

    def _messages(self, roster: Roster) -> dict[str, KeyMessage]:
        """Every member's key message, exactly as the roster has it, signed by that site."""
        authority, messages = self._authority(), {}
        for site in sorted(roster.members):
            body = self.ctx.store.get(layout.key_message(self.plan.study, self.plan.server_round, site))
            messages[site] = KeyMessage.model_validate_json(body)
            verify_key_message(messages[site], body, roster, authority)
        return messages

    def _survivors(self) -> Survivors:
        try:
            return self.ctx.store.get_record(layout.survivors(self.plan.study, self.plan.server_round), Survivors)
        except ObjectMissing:
            raise RoundRefused(f"round {self.plan.server_round}: the hub has not said whose uploads it has") from None

    def _keys(self) -> RoundKeys:
        keys = _read(self.folder / "round_keys.json", RoundKeys)
        if keys is None:
            raise PrivacyError(f"site {self.ctx.site} has no keys of round {self.plan.server_round}: it stays out")
        return keys

    def _published_sealing_key(self, site: str) -> SealingKey:
        return self.ctx.store.get_record(layout.sealing_key(site), SealingKey)

    def _sealing_key(self) -> bytes:
        return _needed(self.ctx.secrets_dir / "sealing.key", self.ctx.site).read_bytes()

    def _authority(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(
            _needed(self.ctx.secrets_dir / "authority.pem", self.ctx.site).read_bytes()
        )

    def _tolerated(self) -> int:
        return noise_shares(self.ctx.study.privacy)[0]


def _read(path: Path, record: type[Kept]) -> Kept | None:
    try:
        return record.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        raise PrivacyError(f"{path} is damaged: the site stays out of this round") from None


def _needed(path: Path, site: str) -> Path:
    if not path.exists():
        raise ConfigError(f"site {site} has no {path.name} in {path.parent}: enrol the site again")
    return path
