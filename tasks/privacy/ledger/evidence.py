"""What is needed to verify the ledgers of a study: read from the store, or from a folder that lies anywhere.

anchors.json                  what the hub pinned, by site
certificates/701.pem          the site's certificate
ledger/701/000001.json        the entries, each in the exact bytes that the next one names
README.txt                    how to verify it
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from pydantic import BaseModel, ConfigDict

from tasks.errors import ConfigError, PrivacyError, StoreError, StoreUnavailable
from tasks.foreign.files import listed
from tasks.privacy.ledger.chain import MAX_ENTRY, Link
from tasks.privacy.ledger.ledger import ENTRY_NAME
from tasks.privacy.ledger.spent import keys_by_site
from tasks.privacy.ledger.verification import ChainReport, verify_chain
from tasks.store import layout
from tasks.store.identity import parse_certificate
from tasks.store.objects import ObjectStore, to_json
from tasks.store.records.ledger import LedgerEntry
from tasks.store.records.round import Selection
from tasks.store.records.site import Enrolment

_SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
#: The store answers a read in milliseconds; most of it is waiting.
_READERS = 8
_README = """\
The privacy ledgers of study {study}, exported {at:%Y-%m-%d %H:%M} UTC.

To verify them, without a deployment or a network:  pharmafed privacy verify {folder}

Each entry in ledger/<site>/ names the sha256 of the file before it, byte for byte, and is signed by the site.
anchors.json holds the digests that the hub pinned when it accepted an update: they are the hub's word.
certificates/ come from the hub as well: compare them with the ones that the sites hold.
"""


class Anchor(BaseModel):
    """A ledger entry that the hub pinned in a round's selection."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    server_round: int
    sequence: int
    sha256: str


class Anchors(BaseModel):
    """`anchors.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str
    exported_at: datetime
    anchors: dict[str, tuple[Anchor, ...]]
    strays: dict[str, tuple[str, ...]]
    unread: tuple[str, ...] = ()


class _Pinned(NamedTuple):
    """What the hub's selections pin, by site, and of each that cannot be used, which, why and what helps."""

    anchors: dict[str, tuple[Anchor, ...]]
    unread: tuple[str, ...]


@dataclass(frozen=True)
class Evidence:
    """One site's ledger and what it is checked against. `strays` are names in its ledger that are no entry's.

    `unread` says which of the hub's selections cannot be read: what the hub has pinned in them is not checked.
    """

    study: str
    site: str
    bodies: dict[int, bytes]
    strays: tuple[str, ...]
    certificate_pem: str | None
    anchors: tuple[Anchor, ...]
    unread: tuple[str, ...] = ()

    def verify(self) -> ChainReport:
        """Verify the ledger, and that the evidence itself is whole."""
        pinned = {anchor.sequence: anchor.sha256 for anchor in self.anchors}
        bodies = [self.bodies[number] for number in sorted(self.bodies)]
        report = verify_chain(bodies, self._certificate(), pinned, study=self.study, site=self.site)
        return report.model_copy(update={"problems": (*self._own_problems(), *report.problems)})

    def _certificate(self) -> x509.Certificate | None:
        return parse_certificate((self.certificate_pem or "").encode())

    def _own_problems(self) -> list[str]:
        problems = [f"{name!r} lies in the ledger and is no entry" for name in self.strays]
        if self.bodies and self._certificate() is None:
            problems.append(f"site {self.site} has no certificate, so its signature cannot be checked")
        pinned: dict[int, Anchor] = {}
        for anchor in self.anchors:
            first = pinned.setdefault(anchor.sequence, anchor)
            if first.sha256 != anchor.sha256:
                rounds = f"rounds {first.server_round} and {anchor.server_round}"
                problems.append(f"entry {anchor.sequence} was pinned twice, and differently, in {rounds}")
        return problems


def collect(store: ObjectStore, study: str, sites: Iterable[str] = ()) -> dict[str, Evidence]:
    """The evidence of every site with a ledger or an accepted update, and of `sites`; with the hub's credential.

    Raises:
        StoreUnavailable: worth a retry.
    """
    keys = {site: found for site, found in keys_by_site(store, study).items() if _SITE_NAME.fullmatch(site)}
    pinned = _pinned(store, study)
    return {
        site: _of_site(store, study, site, keys.get(site, []), pinned)
        for site in sorted({*keys, *pinned.anchors, *sites})
    }


def read_chain(store: ObjectStore, study: str, site: str) -> list[LedgerEntry]:
    """One site's entries, verified; read with the hub's credential.

    Raises:
        PrivacyError: the chain is broken, naming the first entry at fault.
    """
    keys = keys_by_site(store, study).get(site, [])
    evidence = _of_site(store, study, site, keys, _pinned(store, study))
    report = evidence.verify()
    if report.problems:
        raise PrivacyError(
            f"the ledger of site {site} in {study} is broken: {report.problems[0]}. "
            f"See `pharmafed privacy spend {study}`"
        )
    return [Link.parse(evidence.bodies[number]).entry for number in sorted(evidence.bodies)]


def export(store: ObjectStore, study: str, folder: Path) -> dict[str, Evidence]:
    """Write the evidence of a study to a new folder, which `load` reads. Tokens and secrets stay in the store.

    Raises:
        ConfigError: the folder is there and not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not an empty folder: name a new one")
    evidence = collect(store, study)
    now = datetime.now(UTC)
    for site, found in evidence.items():
        for number, body in found.bodies.items():
            _write(folder / "ledger" / site / f"{number:06d}.json", body)
        if found.certificate_pem is not None:
            _write(folder / "certificates" / f"{site}.pem", found.certificate_pem.encode())
    anchors = {site: found.anchors for site, found in evidence.items()}
    strays = {site: found.strays for site, found in evidence.items() if found.strays}
    _write(folder / "README.txt", _README.format(study=study, at=now, folder=folder.name).encode())
    unread = unread_of(evidence.values())
    index = Anchors(study=study, exported_at=now, anchors=anchors, strays=strays, unread=unread)
    _write(folder / "anchors.json", to_json(index))
    return evidence


def load(folder: Path) -> dict[str, Evidence]:
    """Read an exported folder.

    Raises:
        ConfigError: it is no such folder.
    """
    try:
        index = Anchors.model_validate_json((folder / "anchors.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{folder} has no readable anchors.json ({type(error).__name__}): name a folder that "
            "`pharmafed privacy export` has written, whole"
        ) from None
    ledgers = {path.name for path in listed(folder / "ledger")}
    return {site: _of_folder(folder, index, site) for site in sorted({*index.anchors, *ledgers})}


def _of_folder(folder: Path, index: Anchors, site: str) -> Evidence:
    paths = {path.name: path for path in (folder / "ledger" / site).glob("*")}
    bodies = {int(name[:6]): path.read_bytes() for name, path in paths.items() if ENTRY_NAME.fullmatch(name)}
    certificate = folder / "certificates" / f"{site}.pem"
    return Evidence(
        study=index.study,
        site=site,
        bodies=bodies,
        strays=(*index.strays.get(site, ()), *sorted(name for name in paths if not ENTRY_NAME.fullmatch(name))),
        certificate_pem=certificate.read_text() if certificate.exists() else None,
        anchors=index.anchors.get(site, ()),
        unread=index.unread,
    )


def _of_site(store: ObjectStore, study: str, site: str, keys: list[str], pinned: _Pinned) -> Evidence:
    above = layout.above("ledger_entry", study=study, site=site)
    places = {key: layout.parse(key, "ledger_entry") for key in keys}
    entries = {place.sequence: key for key, place in places.items() if place}
    with ThreadPoolExecutor(_READERS) as pool:
        bodies = list(pool.map(lambda key: _body(store, key), entries.values()))
    return Evidence(
        study=study,
        site=site,
        bodies=dict(zip(entries, bodies, strict=True)),
        strays=tuple(key.removeprefix(above) for key, place in places.items() if not place),
        certificate_pem=_certificate_pem(store, site),
        anchors=pinned.anchors.get(site, ()),
        unread=pinned.unread,
    )


def _body(store: ObjectStore, key: str) -> bytes:
    """An entry's bytes; none where a site has made it unreadable, which verification then says."""
    try:
        return store.get(key, max_bytes=MAX_ENTRY)
    except StoreUnavailable:
        raise
    except StoreError:
        return b""


def _certificate_pem(store: ObjectStore, site: str) -> str | None:
    """Of a revoked enrolment too: what the site signed before stays signed."""
    try:
        return store.get_record(layout.enrolment(site), Enrolment).certificate_pem
    except StoreUnavailable:
        raise
    except StoreError:  # missing or damaged: either way the signature is said to be unchecked
        return None


def _pinned(store: ObjectStore, study: str) -> _Pinned:
    """What the rounds' selections pin; one that is damaged hides no other."""
    keys = layout.rounds_of(store.keys(layout.above("selection", study=study)), "selection", study)
    with ThreadPoolExecutor(_READERS) as pool:
        selections = list(pool.map(lambda number: _selection(store, study, number, keys[number]), keys))
    found: dict[str, tuple[Anchor, ...]] = {}
    for selection in selections:
        if isinstance(selection, str):
            continue
        for chosen in selection.chosen:
            anchor = Anchor(
                server_round=selection.server_round, sequence=chosen.ledger_sequence, sha256=chosen.ledger_sha256
            )
            found[chosen.site] = (*found.get(chosen.site, ()), anchor)
    return _Pinned(found, tuple(selection for selection in selections if isinstance(selection, str)))


def _selection(store: ObjectStore, study: str, server_round: int, key: str) -> Selection | str:
    """A round's selection, or why it cannot be used."""
    try:
        selection = store.get_record(key, Selection)
    except StoreUnavailable:
        raise
    except StoreError as error:
        return str(error)
    if (selection.study, selection.server_round) != (study, server_round):
        return f"{store.bucket}/{key} is of another round or study: {layout.remedy(key)}"
    return selection


def unread_of(evidence: Iterable[Evidence]) -> tuple[str, ...]:
    """The hub's selections that cannot be read, each once: of what they pin nothing is checked."""
    return tuple(sorted({line for found in evidence for line in found.unread}))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
