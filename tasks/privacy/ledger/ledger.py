"""What was spent: a chain of signed entries a study and site, written before the update that each pays for leaves.

An entry is written at the site, then in the store, and only then may the update go. Either copy makes up for the
other: a site that lost its disk fetches its entries back, one that died between the two writes completes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from tasks.errors import BudgetExhausted, ObjectExists, ObjectMissing, PrivacyError
from tasks.privacy.ledger.chain import FIRST, MAX_ENTRY, ChainCheck, Link, terms
from tasks.store import layout
from tasks.store.files import alone, write_private
from tasks.store.identity import load_key
from tasks.store.objects import ObjectStore
from tasks.store.records.ledger import LedgerEntry, LedgerPin, Spend

#: Stands for the bytes that leave where none do: the round is paid for all the same.
NO_RELEASE = "0" * 64
ENTRY_NAME = re.compile(r"[0-9]{6}\.json")
#: How far beyond the end of a ledger that is fetched back a site looks for entries, where nobody knows how many rounds
#: its study has.
_LOOK_AHEAD = 1 << 13


class Standing(NamedTuple):
    """What a ledger says at one moment: its entries, an unbroken chain with the site's signature."""

    links: Sequence[Link]

    @property
    def num_entries(self) -> int:
        """How many releases were paid for."""
        return len(self.links)

    @property
    def last_round(self) -> int:
        """The newest round that was paid for; 0 before the first."""
        return self.links[-1].entry.server_round if self.links else 0

    def next_release(self, server_round: int) -> int:
        """The number of this round's release: of its entry if it has one, else of the next entry."""
        link = _of_round(self.links, server_round)
        return link.entry.sequence if link else len(self.links) + 1


class SiteLedger:
    """One site's spending in one study.

    Args:
        store: with the site's credential.
        folder: the site's own folder; its copy of the ledger lies in `ledger/<study>/`.
        secrets_dir: where the site's signing key lies.
        num_rounds: of the study; a ledger has no more entries than that.

    Raises (all methods):
        StoreUnavailable: the store does not answer; nothing may be released until it does.
        PrivacyError: the two copies disagree, or one is no unbroken chain with this site's signature.
    """

    def __init__(
        self,
        store: ObjectStore,
        study: str,
        site: str,
        folder: Path,
        secrets_dir: Path,
        num_rounds: int = _LOOK_AHEAD,
    ) -> None:
        self.store, self.study, self.site = store, study, site
        self.folder = folder / "ledger" / study
        self.secrets_dir = secrets_dir
        self.num_rounds = num_rounds
        self._proven_end: int | None = None

    def read(self) -> Standing:
        """All entries, once each copy has been completed from the other."""
        with alone(self.folder):
            return Standing(self._synced())

    def require_pinned(self, standing: Standing, pin: LedgerPin | None) -> None:
        """Check that the ledger has come at least as far as the hub's signed card says.

        Raises:
            PrivacyError: an entry that the hub has accepted an update for is not there, or another one is: both copies
                of the ledger were set back.
        """
        links = standing.links
        if pin is None or (len(links) >= pin.sequence and links[pin.sequence - 1].sha256 == pin.sha256):
            return
        raise self._set_back(f"a model's card, which the hub has signed, names an entry {pin.sequence}")

    def require_witnessed(self, server_round: int, num_entries: int, pay: Callable[[int], Spend], who: str) -> None:
        """Check the ledger against what another site has kept: this site's signed word from an earlier round.

        Where all is there but what became of that round, as after the loss of a disk, the round is paid for now.

        Args:
            server_round: the round of that word. num_entries: how long the ledger was before it.
            pay: the spend of the entry of a number, in case. who: the other site.

        Raises:
            PrivacyError: the ledger is shorter than it was then: both copies were set back.
        """
        with alone(self.folder):
            links = self._synced()
            if len(links) < num_entries:
                raise self._set_back(f"site {who} has this site's signature on {num_entries} entries")
            if not links or links[-1].entry.server_round < server_round:
                self._append(links, server_round, pay(len(links) + 1), NO_RELEASE, None)

    def pay(self, server_round: int, spend: Spend, plan_sha256: str | None = None) -> None:
        """Write the spend of a round in which nothing leaves. A round that has paid already does not pay again.

        Raises:
            BudgetExhausted: the total would be above the budget.
        """
        with alone(self.folder):
            links = self._synced()
            if _of_round(links, server_round) is None:
                self._append(links, server_round, spend, NO_RELEASE, plan_sha256)

    def record(
        self, server_round: int, spend: Spend, release_sha256: str, plan_sha256: str | None = None
    ) -> tuple[LedgerEntry, str]:
        """Write the spend, first at the site, then in the store. The same release again is the same entry.

        Args:
            spend: with `releases` from `Standing.next_release`.
            release_sha256: of the bytes that are to leave.
            plan_sha256: of the plan that asks for it, as stored.

        Returns:
            the entry, and the sha256 of its bytes.

        Raises:
            PrivacyError: this round has already paid for something else; a round never releases two things. Or the
                study's privacy settings changed since its first release, so that the running total would be wrong.
            BudgetExhausted: the total would be above the budget.
        """
        with alone(self.folder):
            links = self._synced()
            self._require_terms(links, spend)
            link = _of_round(links, server_round)
            link = link or self._append(links, server_round, spend, release_sha256, plan_sha256)
        if link.entry.release_sha256 != release_sha256:
            raise PrivacyError(
                f"round {server_round} of {self.study}: site {self.site} has already recorded another release; "
                "its data or model changed since. It stays out of this round"
            )
        return link.entry, link.sha256

    def _append(
        self, links: list[Link], server_round: int, spend: Spend, release_sha256: str, plan_sha256: str | None
    ) -> Link:
        sequence = len(links) + 1
        self._require_order(links, server_round)
        self._require_number(spend, sequence)
        self._require_budget(links, spend)
        entry = LedgerEntry(
            study=self.study,
            site=self.site,
            sequence=sequence,
            previous=links[-1].sha256 if links else FIRST,
            server_round=server_round,
            spend=spend,
            plan_sha256=plan_sha256,
            release_sha256=release_sha256,
            recorded_at=datetime.now(UTC),
        )
        link = Link.seal(entry, self.secrets_dir)
        self._proven_end = None
        write_private(self._path(sequence), link.body)
        try:
            self._publish(link)
        except ObjectExists:
            return self._give_way(link)
        return link

    def _give_way(self, link: Link) -> Link:
        """Another process of this site wrote its entry into the store first: that one counts.

        This one was never in the store, so nothing was released on it, and it goes.
        """
        self._path(link.entry.sequence).unlink()
        winner = _of_round(self._synced(), link.entry.server_round)
        if winner is None:
            raise PrivacyError(
                f"site {self.site} was recording two rounds of {self.study} at once, and round "
                f"{link.entry.server_round} came second: run its step again"
            )
        return winner

    def _synced(self) -> list[Link]:
        """All entries, after each copy has been completed from the other."""
        links = self._own_links()
        for link in links[self._num_shared(links) :]:
            try:
                self._publish(link)
            except ObjectExists:
                raise self._fork(link.entry.sequence) from None
        return links + self._fetched(links)

    def _own_links(self) -> list[Link]:
        """The entries of the site's own copy."""
        paths = sorted(path for path in self.folder.iterdir() if ENTRY_NAME.fullmatch(path.name))
        for sequence, path in enumerate(paths, 1):
            if path != self._path(sequence):
                raise self._broken(str(self._path(sequence)), "is missing", own=True)
        links = [self._parsed(path.read_bytes(), str(path), own=True) for path in paths]
        self._require_chain(links, own=True)
        return links

    def _num_shared(self, links: list[Link]) -> int:
        """How many entries both copies have. Where they agree on one, they agree on all that it names."""
        for link in reversed(links):
            body = self._stored(link.entry.sequence)
            if body is not None and body != link.body:
                raise self._fork(link.entry.sequence)
            if body is not None:
                return link.entry.sequence
        return 0

    def _fetched(self, links: list[Link]) -> list[Link]:
        """Entries that only the store has: of a site that lost its disk, or has an older copy of it."""
        found: list[Link] = []
        end = len(links) + 1
        while (body := self._stored(end)) is not None:
            found.append(self._parsed(body, self._key(end), own=False))
            end += 1
        if (found or not links) and end != self._proven_end:
            self._refuse_hole(end)
            self._proven_end = end
        self._require_chain([*links, *found], own=False)
        for link in found:
            write_private(self._path(link.entry.sequence), link.body)
        return found

    def _refuse_hole(self, end: int) -> None:
        """Without a copy of its own, a site must not take a hole in the store for the end of its ledger.

        A site cannot list the store, so it looks ahead in doubling steps: it finds any single entry that was taken out.
        """
        step = 1
        while step <= self.num_rounds:
            if self.store.exists(self._key(end + step)):
                raise self._broken(self._key(end), f"is missing, but {self._key(end + step)} is there", own=False)
            step *= 2

    def _require_chain(self, links: list[Link], *, own: bool) -> None:
        check = ChainCheck(self.study, self.site, load_key(self.secrets_dir / "signing_key.pem").public_key())
        for link in links:
            check.add(link)
        check.check_signature()
        for sequence, text in check.problems:
            raise self._broken(str(self._path(sequence)) if own else self._key(sequence), text, own=own)

    def _require_terms(self, links: list[Link], spend: Spend) -> None:
        if links and terms(links[0].entry.spend) != terms(spend):
            raise PrivacyError(
                f"the privacy settings or rounds.total of {self.study} changed after round "
                f"{links[0].entry.server_round} was released: the budget is one for the whole study. Change them "
                "back, or start a new study"
            )

    def _require_order(self, links: list[Link], server_round: int) -> None:
        if links and links[-1].entry.server_round > server_round:
            raise PrivacyError(
                f"site {self.site} has paid for round {links[-1].entry.server_round} of {self.study} already: it does "
                f"not go back to round {server_round}"
            )

    def _require_number(self, spend: Spend, sequence: int) -> None:
        if spend.releases != sequence:
            raise PrivacyError(
                f"a spend of {spend.releases} releases cannot be entry {sequence} of site {self.site} in {self.study}: "
                "another release came in between. Run the step again"
            )

    def _require_budget(self, links: list[Link], spend: Spend) -> None:
        if spend.epsilon is None or spend.epsilon_budget is None or spend.epsilon <= spend.epsilon_budget:
            return
        before = "no release fits in it"
        if links:
            last = links[-1].entry
            before = f"it ended with release {last.sequence}, in round {last.server_round} on {last.recorded_at:%F}"
        raise BudgetExhausted(
            f"release {spend.releases} of site {self.site} in {self.study} would bring epsilon to {spend.epsilon:.4g}; "
            f"the budget is {spend.epsilon_budget:g}, and {before}"
        )

    def _publish(self, link: Link) -> None:
        self.store.create(self._key(link.entry.sequence), link.body, content_type="application/json")

    def _stored(self, sequence: int) -> bytes | None:
        try:
            return self.store.get(self._key(sequence), max_bytes=MAX_ENTRY)
        except ObjectMissing:
            return None

    def _parsed(self, body: bytes, place: str, *, own: bool) -> Link:
        try:
            return Link.parse(body)
        except ValueError:
            raise self._broken(place, "is no ledger entry", own=own) from None

    def _broken(self, place: str, text: str, *, own: bool) -> PrivacyError:
        remedy = (
            f"Move {self.folder} away and run the step again: the entries come back from the store"
            if own
            else "Only this site and the hub can write there: put back what was changed, from a copy of the site's "
            f"{self.folder} or an export of the hub (`pharmafed privacy export`)"
        )
        return PrivacyError(f"site {self.site} releases nothing: its ledger entry {place} {text}. {remedy}")

    def _set_back(self, evidence: str) -> PrivacyError:
        return PrivacyError(
            f"site {self.site} releases nothing: {evidence} of its ledger of {self.study}, and neither "
            f"{self.folder} nor the store has it. Put the entries back, from a copy of the site's folder or an export "
            "of the hub (`pharmafed privacy export`); without them what was spent is not known"
        )

    def _fork(self, sequence: int) -> PrivacyError:
        return PrivacyError(
            f"site {self.site} releases nothing: its ledger has two entries {sequence}, {self._path(sequence)} and "
            f"{self._key(sequence)} in the store, and they differ. One was changed: `pharmafed privacy spend "
            f"{self.study}` at the hub says whether it is the stored one; if not, move {self.folder} away"
        )

    def _path(self, sequence: int) -> Path:
        return self.folder / f"{sequence:06d}.json"

    def _key(self, sequence: int) -> str:
        return layout.ledger_entry(self.study, self.site, sequence)


def _of_round(links: Sequence[Link], server_round: int) -> Link | None:
    return next((link for link in links if link.entry.server_round == server_round), None)
