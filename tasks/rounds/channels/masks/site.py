"""A site's side of the masks of a round: its keys, its masked upload, its one answer about who dropped out.

`tasks.privacy.secure_sum` has the protocol; here is what it reads and writes. Files of the round at the site:
round_keys.json (its secrets, and the roster it has joined), key_message.json, unmask_answer.json.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tasks.errors import ConfigError, ObjectMissing, PrivacyError, RoundRefused
from tasks.privacy.ledger.ledger import SiteLedger
from tasks.privacy.secure_sum import protocol
from tasks.privacy.secure_sum.checks import read_key_message, signed, verify_key_message
from tasks.privacy.secure_sum.records import (
    KeyMessage,
    Presence,
    Roster,
    RoundKeys,
    SealingKey,
    Survivors,
    UnmaskAnswer,
    record_sha256,
)
from tasks.privacy.secure_sum.shamir import threshold_for
from tasks.rounds.channels.channel import Seal, SiteChannel
from tasks.rounds.site.context import PlannedRound, SiteContext
from tasks.rounds.site.witness import Witness, require_not_set_back
from tasks.store import layout
from tasks.store.files import write_private
from tasks.store.identity import sign
from tasks.store.objects import to_json
from tasks.store.record_size import max_bytes
from tasks.store.records.ledger import Spend
from tasks.study.privacy import noise_shares
from tasks.study.round_terms import fewest_sites

Kept = TypeVar("Kept", RoundKeys, UnmaskAnswer)


class Site(SiteChannel):
    """One site in one masked round.

    Raises (all methods):
        PrivacyError: something is not as the protocol needs it; nothing is masked or told. StoreUnavailable: retry.
    """

    def __init__(self, ctx: SiteContext, planned: PlannedRound) -> None:
        super().__init__(ctx, planned)
        self.folder = ctx.round_dir(self.plan.server_round)
        self._entered: Roster | None = None
        self._verified: dict[str, dict[str, KeyMessage]] = {}

    def join(self, ledger_entries: int) -> None:
        """Draw the round's keys, seal their shares to the other sites, publish the message. Again: the same one."""
        message_file = self.folder / "key_message.json"
        if not message_file.exists():
            keys, message = self._new_keys(ledger_entries)
            write_private(self.folder / "round_keys.json", to_json(keys))
            self._witness.keep([message.presence])
            write_private(message_file, to_json(message))
        self.ctx.store.create(
            layout.key_message(self.plan.study, self.plan.server_round, self.ctx.site),
            message_file.read_bytes(),
            content_type="application/json",
        )

    def enter(self, ledger: SiteLedger, pay: Callable[[int], Spend]) -> str:
        """Bind this round's keys to its roster, on disk, before anything is masked with them. Again: nothing changes.

        Args:
            ledger, pay: the site's own ledger and the spend of its entries: see `witness.require_not_set_back`.

        Raises:
            RoundRefused: the site is not on the roster, or it was never frozen.
        """
        roster = self.roster()
        if self._keys().roster_sha256 != record_sha256(roster):
            self._bind(roster, ledger, pay)
        self._entered = roster
        return record_sha256(roster)

    def seal(self) -> Seal:
        """Read what masking takes, so that a contribution can be put behind the masks of the roster.

        Raises:
            PrivacyError: the site has not entered the round.
        """
        roster = self._entered
        if roster is None:
            raise PrivacyError(f"site {self.ctx.site} masks nothing before it has joined a roster")
        keys, messages = self._keys(), self._messages(roster)
        return Seal(lambda part: protocol.mask(part.values, keys, roster, messages), num_masked=len(roster.members))

    def use_up(self, release_sha256: str) -> None:
        """Note on disk what the masks were used for, and blank the secrets, before the masked vector goes anywhere."""
        write_private(self.folder / "round_keys.json", to_json(protocol.used_up(self._keys(), release_sha256)))

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
        if self._keys().roster_sha256 not in (None, record_sha256(roster)):
            raise PrivacyError(
                f"site {self.ctx.site} has joined another roster of round {self.plan.server_round} already"
            )
        return roster

    def answer(self) -> None:
        """Publish this site's shares for the survivors that the hub has frozen: once, and for one story only."""
        plan, answer_file = self.plan, self.folder / "unmask_answer.json"
        roster = self.roster()
        survivors = self._survivors()
        if len(survivors.sites) < fewest_sites(self.ctx.study, plan.min_sites):
            raise PrivacyError(f"{len(survivors.sites)} sites uploaded, {plan.min_sites} are needed: no sum is opened")
        answer = protocol.answer(
            roster,
            survivors,
            self._messages(roster),
            self._keys(),
            self._sealing_key(),
            self._sign,
            earlier=_read(answer_file, UnmaskAnswer),
        )
        write_private(answer_file, to_json(answer))
        self.ctx.store.create_record(layout.unmask_answer(plan.study, plan.server_round, self.ctx.site), answer)

    def _bind(self, roster: Roster, ledger: SiteLedger, pay: Callable[[int], Spend]) -> None:
        messages, own, lost = self._messages(roster), self._sealing_key(), self._tolerated()
        keys = protocol.join_roster(self._keys(), roster, messages, own, tolerated_dropouts=lost)
        require_not_set_back(ledger, messages, pay)
        self._witness.keep(message.presence for message in messages.values())
        write_private(self.folder / "round_keys.json", to_json(keys))

    def _new_keys(self, ledger_entries: int) -> tuple[RoundKeys, KeyMessage]:
        plan = self.plan
        presence = Presence(
            study=plan.study,
            server_round=plan.server_round,
            site=self.ctx.site,
            plan_sha256=self.plan_sha256,
            ledger_entries=ledger_entries,
        )
        records = {site: self._published_sealing_key(site) for site in plan.sites}
        _, colluding = noise_shares(plan.privacy)
        return protocol.make_round_keys(
            plan.study,
            plan.server_round,
            self.ctx.site,
            protocol.open_sealing_keys(records, self.ctx.authority),
            threshold_for(len(plan.sites), colluding),
            (self.ctx.secrets_dir / "certificate.pem").read_text(),
            self._sign,
            plan_sha256=self.plan_sha256,
            presence=signed(presence, self._sign),
            witnessed={site: word for site, word in self._witness.words().items() if site in self.ctx.study.sites},
        )

    def _sign(self, message: bytes) -> str:
        return sign(self.ctx.secrets_dir, message)

    @property
    def _witness(self) -> Witness:
        return Witness(self.ctx.work_dir, self.plan.study)

    def _messages(self, roster: Roster) -> dict[str, KeyMessage]:
        """Every member's key message, exactly as the roster has it, signed by that site; read once for a roster."""
        digest = record_sha256(roster)
        if digest not in self._verified:
            self._verified[digest] = {site: self._message(site, roster) for site in sorted(roster.members)}
        return self._verified[digest]

    def _message(self, site: str, roster: Roster) -> KeyMessage:
        key = layout.key_message(self.plan.study, self.plan.server_round, site)
        body = self.ctx.store.get(key, max_bytes=max_bytes(KeyMessage))
        message = read_key_message(body, site)
        verify_key_message(message, body, roster, self.ctx.authority)
        return message

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
