"""A consortium in memory: an authority, certified sites with sealing keys, and rounds of secure sums among them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from cryptography import x509

from tasks.privacy.secure_sum import sealing
from tasks.privacy.secure_sum.checks import verify_key_message
from tasks.privacy.secure_sum.opening import UnmaskedSum, freeze_survivors, make_roster, open_sum
from tasks.privacy.secure_sum.protocol import (
    answer,
    join_roster,
    make_round_keys,
    mask,
    open_sealing_keys,
    publish_sealing_key,
)
from tasks.privacy.secure_sum.records import KeyMessage, Roster, RoundKeys, Survivors, UnmaskAnswer
from tasks.store.identity import ensure_authority, ensure_site_identity, sign
from tasks.store.objects import to_json

#: sha256 of the plan that everybody follows.
PLAN = "a" * 64
STUDY = "cardio"


@dataclass
class Site:
    """What one site holds for good."""

    certificate_pem: str
    sign: Callable[[bytes], str]
    sealing_private: bytes = field(default_factory=sealing.new_private_key)


class Federation:
    """Certified sites, by name, in a folder of their own."""

    def __init__(self, home: Path, names: Iterable[str]) -> None:
        authority = ensure_authority(home / "ca")
        self.authority: x509.Certificate = authority[1]
        self.sites: dict[str, Site] = {}
        for name in names:
            ensure_site_identity(home / name, name, authority)
            self.sites[name] = Site((home / name / "certificate.pem").read_text(), partial(sign, home / name))

    def sealing_keys(self) -> dict[str, bytes]:
        """What every site reads of the others."""
        records = {
            name: publish_sealing_key(name, site.sealing_private, site.certificate_pem, site.sign)
            for name, site in self.sites.items()
        }
        return open_sealing_keys(records, self.authority)

    def keys_for(self, name: str, threshold: int, server_round: int = 1) -> tuple[RoundKeys, KeyMessage]:
        """Fresh round keys of one site."""
        site = self.sites[name]
        return make_round_keys(
            STUDY,
            server_round,
            name,
            self.sealing_keys(),
            threshold,
            site.certificate_pem,
            site.sign,
            plan_sha256=PLAN,
        )

    def start(
        self, threshold: int, tolerated_dropouts: int, live: Iterable[str] | None = None, server_round: int = 1
    ) -> Round:
        """A round up to the point where every live site has joined the roster."""
        names = list(self.sites if live is None else live)
        made = {name: self.keys_for(name, threshold, server_round) for name in names}
        messages = {name: message for name, (_, message) in made.items()}
        missing = {name: "no key message" for name in self.sites if name not in names}
        roster = make_roster(messages, run_id="run-1", missing=missing, tolerated_dropouts=tolerated_dropouts)
        for message in messages.values():
            verify_key_message(message, to_json(message), roster, self.authority)
        keys = {
            name: join_roster(
                own, roster, messages, self.sites[name].sealing_private, tolerated_dropouts=tolerated_dropouts
            )
            for name, (own, _) in made.items()
        }
        return Round(self, roster, messages, keys)


@dataclass
class Round:
    """A round whose roster is frozen and joined."""

    federation: Federation
    roster: Roster
    messages: dict[str, KeyMessage]
    keys: dict[str, RoundKeys]

    def upload(self, site: str, values: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
        """What the site sends."""
        return mask(values, self.keys[site], self.roster, self.messages)

    def answer(self, site: str, survivors: Survivors, earlier: UnmaskAnswer | None = None) -> UnmaskAnswer:
        """What the survivor sends."""
        own = self.federation.sites[site]
        return answer(
            self.roster, survivors, self.messages, self.keys[site], own.sealing_private, own.sign, earlier=earlier
        )

    def survivors(self, sites: Iterable[str]) -> Survivors:
        """Whose uploads the hub has."""
        return freeze_survivors(self.roster, sites)

    def open(
        self,
        values: Mapping[str, npt.NDArray[np.int64]],
        survivors: Survivors,
        answers: Mapping[str, UnmaskAnswer] | None = None,
    ) -> UnmaskedSum:
        """Sum the survivors' uploads and open the sum."""
        if answers is None:
            answers = {site: self.answer(site, survivors) for site in survivors.sites}
        total = sum_uploads(self.upload(site, values[site]) for site in survivors.sites)
        return open_sum(total, self.roster, survivors, self.messages, answers)


def sum_uploads(uploads: Iterable[npt.NDArray[np.uint64]]) -> npt.NDArray[np.uint64]:
    """Their sum modulo 2^64."""
    return np.sum(list(uploads), axis=0, dtype=np.uint64)
