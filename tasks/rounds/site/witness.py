"""What a site knows of the others' ledgers, and they of its own.

In every masked round each site says, signed, that it takes part and how long its ledger is. The others keep the newest
such word of each site and show it in their next key message. A site whose own ledger was set back, in its folder and in
the store, so learns from any honest member of the roster that it has forgotten something, whatever the hub says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pydantic import Field

from tasks.errors import PrivacyError
from tasks.foreign.bounds import MAX_SITES
from tasks.privacy.ledger.ledger import SiteLedger
from tasks.privacy.secure_sum.checks import check_signature
from tasks.privacy.secure_sum.records import KeyMessage, Presence
from tasks.store.files import alone, write_private
from tasks.store.objects import to_json
from tasks.store.records.ledger import Spend
from tasks.store.records.record import Record
from tasks.study.names import SiteName


class Words(Record):
    """The newest word of each site in a study, its own among them."""

    words: dict[SiteName, Presence] = Field(default_factory=dict, max_length=MAX_SITES)


class Witness:
    """One site's memory of all sites' words, in one study; it lies in `witness/<study>/words.json`.

    Raises (all methods):
        PrivacyError: the memory is damaged.
    """

    def __init__(self, folder: Path, study: str) -> None:
        self.path, self.study = folder / "witness" / study / "words.json", study

    def words(self) -> dict[str, Presence]:
        """The newest word of each site that is known, this one included."""
        try:
            return Words.model_validate_json(self.path.read_bytes()).words
        except FileNotFoundError:
            return {}
        except ValueError:
            raise PrivacyError(f"{self.path} is damaged: put it back, or remove it") from None

    def keep(self, words: Iterable[Presence | None]) -> None:
        """Keep the words that are newer than what is known of their sites. The caller has verified them."""
        with alone(self.path.parent):
            known = self.words()
            newer = {w.site: w for w in words if w and (w.site not in known or _is_older(known[w.site], w))}
            if newer:
                write_private(self.path, to_json(Words(words=dict(sorted((known | newer).items())))))


def require_not_set_back(ledger: SiteLedger, messages: Mapping[str, KeyMessage], pay: Callable[[int], Spend]) -> None:
    """Check the ledger against this site's own earlier words, as the other members show them.

    A word that the site remembers itself proves nothing: it stands in its own key message.

    Args:
        messages: of a roster that the site is on, each verified. pay: the spend of the site's entry of a number.

    Raises:
        PrivacyError: the ledger is shorter than the site has said before. BudgetExhausted: a round that it has
            forgotten cannot be paid for.
    """
    own = messages[ledger.site]
    shown = {who: word for who, message in messages.items() if (word := message.witnessed.get(ledger.site))}
    words = {who: word for who, word in shown.items() if _is_own(word, own)}
    if not words:
        return
    who = max(sorted(words), key=lambda name: words[name].server_round)
    remembered = own.witnessed.get(ledger.site)
    if remembered is not None and not _is_older(remembered, words[who]):
        return
    entries = max(word.ledger_entries for word in words.values())
    ledger.require_witnessed(words[who].server_round, entries, pay, who)


def _is_older(word: Presence, other: Presence) -> bool:
    return word.server_round < other.server_round


def _is_own(word: Presence, own: KeyMessage) -> bool:
    """Whether the word is of the sender of `own`, from an earlier round: what others make up does not count."""
    if (word.study, word.site) != (own.study, own.site) or word.server_round >= own.server_round:
        return False
    try:
        check_signature(word, own.certificate_pem)
    except PrivacyError:
        return False
    return True
