"""Which layout an object store has: a bucket of another layout is refused, in words, before anything is done in it."""

from __future__ import annotations

from pydantic import ValidationError

from tasks.errors import ConfigError, ObjectMissing
from tasks.foreign.bounds import Count
from tasks.store import layout
from tasks.store.objects import ObjectStore, to_json
from tasks.store.records.record import Record

#: 1: a site's keys had the round before the site, so that its rights reached under others' keys. 2: `store.layout`.
LAYOUT = 2


class StoreVersion(Record):
    """`federation/layout.json`."""

    layout: Count


def require_layout(store: ObjectStore) -> None:
    """Mark an empty store, or check the mark of one in use; with the hub's credential.

    Raises:
        ConfigError: it holds rounds of another layout. StoreError: the mark is damaged.
    """
    key = layout.layout_version()
    try:
        found = StoreVersion.model_validate_json(store.get(key, max_bytes=1 << 10)).layout
    except ObjectMissing:
        found = 1 if next(store.keys(layout.STUDIES), None) else LAYOUT
        if found == LAYOUT:
            store.create(key, to_json(StoreVersion(layout=LAYOUT)), content_type="application/json")
    except ValidationError as error:
        raise store.damaged(key, StoreVersion, error) from None
    if found != LAYOUT:
        raise ConfigError(
            f"the object store was filled by {'an earlier' if found < LAYOUT else 'a later'} version of pharmafed "
            f"(layout {found}, this one works with {LAYOUT}). Export the ledgers with that version (`pharmafed privacy "
            "export STUDY --to FOLDER`), then start with another PHARMAFED_HOME. What patients have spent stays spent: "
            "go on with a new study whose epsilon is what is left"
        )
