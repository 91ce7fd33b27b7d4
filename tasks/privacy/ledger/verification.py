"""Verification of a site's ledger without the store, the network or the site: entries, a certificate, and anchors.

Checked, for every entry: it is readable, in order, of the right site and study, names the exact bytes before it, pays
for a round that no other entry pays for, has the privacy settings of the others, and its total is what its settings
and number come to. The newest entry's signature covers all before it, so it is the one that is checked. Anchors are
digests that the hub pinned when it accepted an update, where no site can write: they show a chain that was cut short
or made anew, with valid signatures, by the site itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import NameOID
from pydantic import BaseModel, ConfigDict

from tasks.privacy.accounting import compose, gdp_delta, gdp_epsilon, pure_delta, pure_epsilon_total
from tasks.privacy.ledger.chain import ChainCheck
from tasks.store.records.ledger import Spend

SignatureCheck = Literal["valid", "wrong", "not checked"]
#: A recorded epsilon may differ from its recomputation by this much, relatively: the accountant rounds up by less.
TOLERANCE = 1e-6
#: As many as a study may have: an entry that claims more is not worth computing, and ten thousand of them are.
MAX_RELEASES = 10_000


class ChainReport(BaseModel):
    """What a ledger says, and what is wrong with it.

    `releases` is the most that entries, their numbers and the anchors speak of, so that a ledger that was cut short
    does not look cheaper. `epsilon` is the total of that many: computed here, not read. `spend` is the newest entry's.
    """

    model_config = ConfigDict(frozen=True)

    study: str | None
    site: str | None
    entries: int
    releases: int
    first_at: datetime | None
    last_at: datetime | None
    head_sha256: str | None
    spend: Spend | None
    epsilon: float | None
    signature: SignatureCheck
    anchors: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify_chain(
    bodies: Iterable[bytes],
    certificate: x509.Certificate | None,
    anchors: Mapping[int, str],
    *,
    study: str | None = None,
    site: str | None = None,
) -> ChainReport:
    """Verify one site's ledger of one study.

    Args:
        bodies: the entries' exact bytes, in the order of their keys.
        certificate: of the site; without one no signature is checked, and the report says so.
        anchors: sequence -> sha256 of the entry, as the hub pinned it.
        study, site: whose ledger it must be; by default the first entry's, and the certificate's.

    Raises:
        nothing: whatever the bytes are, what is wrong with them is in `problems`, each naming the entry.
    """
    key = None if certificate is None else _public_key(certificate)
    check = ChainCheck(study, site or _name(certificate), key)
    taken = [check.take(body) for body in bodies]
    links = [link for link in taken if link is not None]
    signature = _signature(check)
    digests = {link.entry.sequence: link.sha256 for link in links}
    totals = [(link.entry.sequence, text) for link in links for text in _total_problems(link.entry.spend)]
    problems = sorted(check.problems + totals + _anchor_problems(digests, anchors), key=lambda problem: problem[0])
    times = [link.entry.recorded_at for link in links]
    releases = max([len(taken), *digests, *anchors])
    spend = links[-1].entry.spend if links else None
    return ChainReport(
        study=check.study,
        site=check.site,
        entries=len(taken),
        releases=releases,
        first_at=min(times, default=None),
        last_at=max(times, default=None),
        head_sha256=links[-1].sha256 if links else None,
        spend=spend,
        epsilon=total_epsilon(spend, releases) if spend else None,
        signature=signature,
        anchors=len(anchors),
        problems=tuple(f"entry {sequence} {text}" for sequence, text in problems),
    )


def _signature(check: ChainCheck) -> SignatureCheck:
    if check.key is None or check.last is None:
        return "not checked"
    return "valid" if check.check_signature() else "wrong"


def total_epsilon(spend: Spend, releases: int) -> float | None:
    """The total of `releases` releases with these settings; None where nothing is promised or it has no bound."""
    if spend.delta is None or not 0 < releases <= MAX_RELEASES:
        return None
    try:
        if spend.mu is not None:
            return gdp_epsilon(compose(1 / spend.mu, releases), spend.delta)
        if spend.pure_epsilon is not None:
            return pure_epsilon_total(spend.pure_epsilon, releases, spend.delta)
    except (ValueError, ArithmeticError):
        pass
    return None


def _total_problems(spend: Spend) -> list[str]:
    """What is wrong with an entry's total: it must be what its settings and number come to, within the budget."""
    if not spend.promises:
        return [] if spend.epsilon is None else ["has an epsilon, but its mechanism promises nothing"]
    problems = []
    if not _is_total(spend.mu, spend.pure_epsilon, spend.releases, spend.epsilon, spend.delta):
        problems.append(f"says epsilon {spend.epsilon}, which is not what its settings come to")
    if spend.epsilon is None or spend.epsilon_budget is None or spend.epsilon > spend.epsilon_budget:
        problems.append(f"says epsilon {spend.epsilon}, above the budget of {spend.epsilon_budget}")
    return problems


@lru_cache(maxsize=1 << 15)  # all sites of a study come to the same totals
def _is_total(
    mu: float | None, pure_epsilon: float | None, releases: int, epsilon: float | None, delta: float | None
) -> bool:
    """Whether the recorded epsilon is right to TOLERANCE.

    Delta falls as epsilon grows, so two values of delta, just above and just below the recorded epsilon, prove it:
    some twenty times quicker than searching for it again.
    """
    if epsilon is None or delta is None or not 0 < delta < 1 or releases > MAX_RELEASES:
        return False
    try:
        enough = _delta(mu, pure_epsilon, releases, epsilon * (1 + TOLERANCE)) <= delta
        return enough and (epsilon == 0 or _delta(mu, pure_epsilon, releases, epsilon * (1 - TOLERANCE)) > delta)
    except (ValueError, ArithmeticError):
        return False


def _delta(mu: float | None, pure_epsilon: float | None, releases: int, epsilon: float) -> float:
    if mu is not None:
        return gdp_delta(compose(1 / mu, releases), epsilon)
    if pure_epsilon is None:
        raise ValueError("an entry without mu and pure_epsilon promises nothing")
    return pure_delta(pure_epsilon, releases, epsilon)


def _anchor_problems(digests: Mapping[int, str], anchors: Mapping[int, str]) -> list[tuple[int, str]]:
    problems = []
    for sequence, pinned in anchors.items():
        found = digests.get(sequence)
        if found is None:
            problems.append((sequence, "is missing, but the hub accepted an update that it paid for"))
        elif found != pinned:
            problems.append((sequence, "is not the one that the hub pinned when it accepted the update"))
    return problems


def _public_key(certificate: x509.Certificate) -> Ed25519PublicKey | None:
    key = certificate.public_key()
    return key if isinstance(key, Ed25519PublicKey) else None


def _name(certificate: x509.Certificate | None) -> str | None:
    if certificate is None:
        return None
    names = [str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return names[0] if names else None
