"""Ledger entries as bytes, and what makes a list of them one chain: each is signed and names the bytes before it."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tasks.store.identity import sign
from tasks.store.objects import to_json
from tasks.store.records.ledger import LedgerEntry, Spend

#: What the first entry names as the one before it.
FIRST = "0" * 64
#: An entry has about 1 kB; the largest that is valid has 11 (`record_size.max_bytes`).
MAX_ENTRY = 1 << 14


@dataclass(frozen=True)
class Link:
    """An entry, and the exact bytes that the next one names."""

    entry: LedgerEntry
    body: bytes
    sha256: str

    @classmethod
    def parse(cls, body: bytes) -> Link:
        """Read an entry. Raises ValueError when it is none."""
        return cls(LedgerEntry.model_validate_json(body), body, _digest(body))

    @classmethod
    def seal(cls, entry: LedgerEntry, secrets_dir: Path) -> Link:
        """Sign an entry with the key of the site whose secrets lie in `secrets_dir`. Raises ConfigError: no key."""
        unsigned = entry.model_copy(update={"signature": ""})
        signed = entry.model_copy(update={"signature": sign(secrets_dir, to_json(unsigned))})
        body = to_json(signed)
        return cls(signed, body, _digest(body))

    def is_signed_by(self, key: Ed25519PublicKey) -> bool:
        """Whether the signature is this key's, over these very bytes without it.

        The bytes are cut, not written anew, so that a later version of `LedgerEntry` still verifies old entries.
        """
        end = f'"signature": "{self.entry.signature}"\n}}\n'.encode()
        if not self.body.endswith(end):
            return False
        unsigned = self.body.removesuffix(end) + b'"signature": ""\n}\n'
        try:
            key.verify(base64.b64decode(self.entry.signature, validate=True), unsigned)
        except (InvalidSignature, ValueError):
            return False
        return True


def terms(spend: Spend) -> tuple[object, ...]:
    """What all releases of a study share: its total is computed from their number.

    What promises nothing is one, whatever it is called: codecs were mechanisms once (`tasks.study.codec`).
    """
    mechanism = spend.mechanism if spend.promises else "none"
    return mechanism, spend.unit, spend.mu, spend.pure_epsilon, spend.delta, spend.epsilon_budget


@dataclass
class ChainCheck:
    """Takes a ledger's entries in order and collects what is wrong: (sequence, what is wrong with that entry).

    After a gap or an unreadable entry it goes on, so that one broken place is one problem and not one an entry.
    """

    study: str | None = None
    site: str | None = None
    key: Ed25519PublicKey | None = None
    problems: list[tuple[int, str]] = field(default_factory=list)
    last: Link | None = None
    _expected: int = 1
    _previous: str | None = FIRST
    _rounds: dict[int, int] = field(default_factory=dict)

    def add(self, link: Link) -> None:
        """Check the next entry against those before it."""
        entry = link.entry
        misplaced = entry.sequence < self._expected
        self._check_order(entry.sequence)
        self._check_previous(link)
        self._check_owner(entry)
        self._check_spend(entry)
        self._expected = max(self._expected, entry.sequence + 1)
        self._previous, self.last = None if misplaced else link.sha256, link

    def take(self, body: bytes) -> Link | None:
        """Check the next entry as bytes; None where they are none. The next one should name them all the same."""
        try:
            link = Link.parse(body)
        except ValueError:
            self._problem(self._expected, "cannot be read")
            self._expected += 1
            self._previous, self.last = _digest(body), None
            return None
        self.add(link)
        return link

    def check_signature(self) -> bool:
        """Check the newest entry's signature, which covers every entry before it. Whether it is the site's."""
        if self.key is None or self.last is None or self.last.is_signed_by(self.key):
            return self.key is not None and self.last is not None
        self._problem(self.last.entry.sequence, "is not signed with the site's key")
        return False

    def _problem(self, sequence: int, text: str) -> None:
        self.problems.append((sequence, text))

    def _check_order(self, sequence: int) -> None:
        if sequence == self._expected:
            return
        if sequence < self._expected:
            self._problem(sequence, f"stands where entry {self._expected} should")
        elif sequence == self._expected + 1:
            self._problem(self._expected, "is missing")
        else:
            self._problem(self._expected, f"is missing, and so are all up to {sequence - 1}")
        self._previous = None

    def _check_previous(self, link: Link) -> None:
        entry = link.entry
        if self._previous is None or entry.previous == self._previous:
            return
        if self.last is None:
            self._problem(entry.sequence, "does not name what stands before it")
            return
        before = self.last.entry.sequence
        text = f"was made after another entry {before} than the one here"
        if self.key is not None:
            text += f", which is {'' if self.last.is_signed_by(self.key) else 'not '}signed by the site"
        self._problem(entry.sequence, text)

    def _check_owner(self, entry: LedgerEntry) -> None:
        self.study = self.study or entry.study
        self.site = self.site or entry.site
        if (entry.study, entry.site) != (self.study, self.site):
            self._problem(
                entry.sequence, f"is of site {entry.site} in {entry.study}, not of site {self.site} in {self.study}"
            )

    def _check_spend(self, entry: LedgerEntry) -> None:
        if entry.spend.releases != entry.sequence:
            self._problem(entry.sequence, f"counts {entry.spend.releases} releases")
        first = self._rounds.setdefault(entry.server_round, entry.sequence)
        if first != entry.sequence:
            self._problem(entry.sequence, f"is for round {entry.server_round}, which entry {first} has paid for")
        if self.last is not None and terms(entry.spend) != terms(self.last.entry.spend):
            self._problem(entry.sequence, "has other privacy settings than the entry before it")


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
