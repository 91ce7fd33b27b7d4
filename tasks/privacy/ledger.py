"""What was spent: one entry a site and round, written at the site and in the store before the update leaves.

A site counts its own releases from its own copy; entries that its copy lacks are fetched back from the store, so a
site that lost its disk does not start again at zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from tasks import layout
from tasks.errors import ObjectMissing, PrivacyError, StoreError, StoreUnavailable
from tasks.files import write_private
from tasks.records import LedgerEntry, Spend
from tasks.storage import ObjectStore, to_json


class SiteLedger:
    """One site's spending in one study.

    Raises (all methods):
        StoreUnavailable: the store does not answer; nothing may be released until it does.
    """

    def __init__(self, store: ObjectStore, study: str, site: str, folder: Path) -> None:
        self.store, self.study, self.site = store, study, site
        self.folder = folder / "ledger" / study

    def releases_before(self, server_round: int) -> int:
        """How many other rounds the site has released something in, in whatever order they were opened."""
        earlier = sum(self._entry(past) is not None for past in range(1, server_round))
        return earlier + sum(entry.server_round > server_round for entry in self._own_entries())

    def record(self, server_round: int, spend: Spend, commitment: str) -> LedgerEntry:
        """Write the spend, first at the site, then in the store. The same release again is the same entry.

        Raises:
            PrivacyError: this round has already paid for something else; a round never releases two things. Or the
                study's privacy settings changed since its first release, so that the running total would be wrong.
        """
        entry = self._entry(server_round)
        if entry is None:
            entry = LedgerEntry(
                study=self.study,
                server_round=server_round,
                site=self.site,
                spend=spend,
                commitment=commitment,
                recorded_at=datetime.now(UTC),
            )
        if entry.commitment != commitment:
            raise PrivacyError(
                f"round {server_round} of {self.study}: site {self.site} has already recorded another release; "
                "its data or model changed since. It stays out of this round"
            )
        self._check_terms(entry)
        self._write_own(entry)
        self.store.create_record(layout.ledger_entry(self.study, self.site, server_round), entry)
        return entry

    def _entry(self, server_round: int) -> LedgerEntry | None:
        path = self.folder / f"{server_round:04d}.json"
        if path.exists():
            return LedgerEntry.model_validate_json(path.read_bytes())
        try:
            entry = self.store.get_record(layout.ledger_entry(self.study, self.site, server_round), LedgerEntry)
        except ObjectMissing:
            return None
        self._write_own(entry)
        return entry

    def _check_terms(self, entry: LedgerEntry) -> None:
        """All releases of a study must cost the same: its total is computed from their number."""
        for own in self._own_entries():
            if _terms(own.spend) != _terms(entry.spend):
                raise PrivacyError(
                    f"the privacy settings or rounds.total of {self.study} changed after round {own.server_round} was "
                    "released: the budget is one for the whole study. Change them back, or start a new study"
                )

    def _own_entries(self) -> Iterator[LedgerEntry]:
        for path in sorted(self.folder.glob("[0-9]*.json")):
            yield LedgerEntry.model_validate_json(path.read_bytes())

    def _write_own(self, entry: LedgerEntry) -> None:
        write_private(self.folder / f"{entry.server_round:04d}.json", to_json(entry))


def _terms(spend: Spend) -> tuple[object, ...]:
    return spend.mechanism, spend.mu, spend.delta, spend.epsilon_budget


def spent(store: ObjectStore, study: str) -> dict[str, LedgerEntry | None]:
    """Each site's newest ledger entry, read with the hub's credential; None where it is no ledger entry.

    A site writes its own entries, so one that it has spoilt must not keep the hub from reading the others.
    """
    prefix = layout.ledger_prefix(study) + "/"
    newest = {key.removeprefix(prefix).partition("/")[0]: key for key in store.keys(prefix)}
    return {site: _entry_or_none(store, key) for site, key in newest.items()}


def _entry_or_none(store: ObjectStore, key: str) -> LedgerEntry | None:
    try:
        return store.get_record(key, LedgerEntry)
    except StoreUnavailable:
        raise
    except StoreError:
        return None
