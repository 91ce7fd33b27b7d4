"""Enrolling every site of a deployment whose sites' secrets lie on the hub's machine, as in the demo."""

from __future__ import annotations

import secrets
from pathlib import Path

from tasks.privacy.secure_sum.protocol import publish_sealing_key
from tasks.store import layout
from tasks.store.identity import enrol, ensure_authority, ensure_hub_identity, ensure_site_identity, load_key, sign
from tasks.store.objects import ObjectStore
from tasks.store.records.site import Enrolment
from tasks.store.version import require_layout


def enrol_local_sites(store: ObjectStore, home: Path, sites: list[str]) -> list[Enrolment]:
    """Make and enrol every site, and publish the key to which other sites seal their shares for it.

    Raises:
        ConfigError: the store was filled by a version with another layout; nothing is made.
    """
    require_layout(store)
    authority = ensure_authority(home / "secrets" / "ca")
    ensure_hub_identity(home / "secrets" / "hub", authority)
    enrolments = []
    for site in sites:
        folder = home / "secrets" / "sites" / site
        ensure_site_identity(folder, site, authority)
        challenge = secrets.token_bytes(32)
        proof = load_key(folder / "signing_key.pem").sign(challenge)
        certificate = (folder / "certificate.pem").read_bytes()
        enrolments.append(enrol(store, site, certificate, challenge, proof, authority[1]))
        _publish_sealing_key(store, folder, site, certificate.decode())
    return enrolments


def _publish_sealing_key(store: ObjectStore, folder: Path, site: str, certificate_pem: str) -> None:
    private = (folder / "sealing.key").read_bytes()
    record = publish_sealing_key(site, private, certificate_pem, lambda message: sign(folder, message))
    store.create_record(layout.sealing_key(site), record)
