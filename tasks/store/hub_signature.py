"""The hub's signature on what sites follow: a round's plan and its end, and the card of every model.

It keeps out whoever can write to the object store and has not the hub's key. A hub that lies signs too: what a site
does not take from any hub, signed or not, stands in `tasks.rounds.site.plans` and `tasks.rounds.site.global_models`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from cryptography import x509

from tasks.errors import ConfigError, PrivacyError
from tasks.store.identity import HUB_NAME, sign, validate_certificate, verifies
from tasks.store.objects import to_json
from tasks.store.records.model import ModelCard
from tasks.store.records.round import Plan, Settled

HubRecord = TypeVar("HubRecord", Plan, ModelCard, Settled)


def sign_as_hub(record: HubRecord, folder: Path) -> HubRecord:
    """The record with the certificate and signature of the hub whose key lies in `folder`.

    Raises:
        ConfigError: there is no key or certificate.
    """
    try:
        certificate_pem = (folder / "certificate.pem").read_text()
    except FileNotFoundError:
        raise ConfigError(f"the hub has no certificate in {folder}: run `pharmafed up`") from None
    unsigned = record.model_copy(update={"certificate_pem": certificate_pem, "signature": ""})
    return unsigned.model_copy(update={"signature": sign(folder, _signed_bytes(unsigned))})


def check_hub_signature(record: Plan | ModelCard | Settled, authority: x509.Certificate, what: str) -> None:
    """Check that the authority certifies the hub that signed the record.

    Raises:
        PrivacyError: it is not signed, or by somebody else; `what` names it.
    """
    try:
        certificate = validate_certificate(record.certificate_pem.encode(), HUB_NAME, authority)
    except ConfigError as error:
        raise PrivacyError(f"{what} is not certified as the hub's: {error}") from None
    unsigned = record.model_copy(update={"signature": ""})
    if not verifies(certificate, record.signature, _signed_bytes(unsigned)):
        raise PrivacyError(f"{what} is not signed by the hub: the site does not follow it")


def _signed_bytes(record: Plan | ModelCard | Settled) -> bytes:
    return f"pharmafed {type(record).__name__}\n".encode() + to_json(record)
