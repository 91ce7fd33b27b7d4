"""How far each site's ledger has come, as the hub sees it."""

from __future__ import annotations

from tasks.errors import StoreError, StoreUnavailable
from tasks.store import layout
from tasks.store.objects import ObjectStore
from tasks.store.records.ledger import LedgerEntry

#: Keys of one site's ledger that the hub looks at: more than a study has rounds. A site may write any number.
MAX_KEYS = 10_001


def keys_by_site(store: ObjectStore, study: str) -> dict[str, list[str]]:
    """The keys under each site's ledger, sorted, whatever they are, up to MAX_KEYS; read with the hub's credential."""
    above = layout.above("ledger_entry", study=study)
    found: dict[str, list[str]] = {}
    for key in store.keys(above):
        kept = found.setdefault(key.removeprefix(above).partition("/")[0], [])
        if len(kept) < MAX_KEYS:
            kept.append(key)
    return found


def spent(store: ObjectStore, study: str) -> dict[str, LedgerEntry | None]:
    """Each site's newest ledger entry, read with the hub's credential: one listing, and one read a site.

    None where the site has spoilt its ledger: its newest entry is unreadable, of another site or study, or its number
    is not the number of entries that the store holds. Whether the chain is whole is for `evidence` to say.
    """
    return {site: _newest(store, study, site, keys) for site, keys in keys_by_site(store, study).items()}


def _newest(store: ObjectStore, study: str, site: str, keys: list[str]) -> LedgerEntry | None:
    count = len(keys)
    if keys[-1] != layout.ledger_entry(study, site, count):
        return None
    try:
        entry = store.get_record(keys[-1], LedgerEntry)
    except StoreUnavailable:
        raise
    except StoreError:
        return None
    numbers = (entry.sequence, entry.spend.releases)
    return entry if (entry.study, entry.site, *numbers) == (study, site, count, count) else None
