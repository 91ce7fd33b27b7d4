"""Who is told when a round fails, misses its quorum or nears the end of its budget, or when a model has drifted.

A deployment names its channels in PHARMAFED_NOTIFY_URLS, as Apprise spells them and separated by spaces, for example
`mailtos://user:password@example.org?to=hub@example.org json://chat.example.org/hook`. Without any, the log is told.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Literal

from tasks.errors import ExamError, PharmafedError
from tasks.store.records.report import RoundMetrics

log = logging.getLogger(__name__)

#: With this share of the rounds left, the budget counts as nearly spent.
NEARLY_SPENT = 0.1


@dataclass(frozen=True)
class Notice:
    """One message. `text` never quotes a record: it is made of our own errors and counts."""

    kind: Literal["failure", "round left out", "quorum missed", "partial round", "budget nearly spent", "drift"]
    study: str  # or the DAG or exam that it is about
    text: str

    @property
    def title(self) -> str:
        """One line: what happened, and in what."""
        return f"pharmafed: {self.kind} in {self.study}"


def reason_of(error: BaseException | None) -> str:
    """What a notice says of an error: our own words. Of any other error its type, of a model's provider no word.

    An error that quotes a provider carries a note without the quotation (see `tasks.exam.asking.collect`).
    """
    if not isinstance(error, PharmafedError):
        return type(error).__name__
    notes: list[str] = getattr(error, "__notes__", [])
    return notes[0] if isinstance(error, ExamError) and notes else str(error)


def notify(notice: Notice) -> None:
    """Send to every configured channel. One that fails is logged by its number; nothing is raised, no address told."""
    log.warning("%s: %s", notice.title, notice.text)
    for number, url in enumerate(os.environ.get("PHARMAFED_NOTIFY_URLS", "").split(), 1):
        try:
            problem = _send(url, notice)
        except Exception as error:  # of a channel's own code, whose words may hold its password
            problem = f"broke ({type(error).__name__})"
        if problem:
            log.error("channel %d of PHARMAFED_NOTIFY_URLS %s: not told of %s", number, problem, notice.title)


def _send(url: str, notice: Notice) -> str:
    """What went wrong, or nothing. The library's own log is left out: it quotes addresses with their passwords."""
    from apprise import Apprise

    logging.getLogger("apprise").setLevel(logging.CRITICAL)
    channel = Apprise()
    if not channel.add(url):
        return "is no address that Apprise knows"
    return "" if channel.notify(title=notice.title, body=notice.text) else "did not take the notice"


def notices_of(metrics: RoundMetrics) -> list[Notice]:
    """What a closed round gives reason to say."""
    notices = []
    if metrics.status == "failed":
        notices.append(Notice("quorum missed", metrics.study, f"round {metrics.server_round}: {metrics.message}"))
    if metrics.status == "partial":
        notices.append(Notice("partial round", metrics.study, f"round {metrics.server_round}: {metrics.message}"))
    used = max((row.releases for row in metrics.sites), default=0)
    left = metrics.total_rounds - used
    if metrics.promises and used and left <= NEARLY_SPENT * metrics.total_rounds:
        text = f"{left} of {metrics.total_rounds} rounds left{_epsilon(metrics)}"
        notices.append(Notice("budget nearly spent", metrics.study, text))
    return notices


def _epsilon(metrics: RoundMetrics) -> str:
    """What is spent; nothing of a mechanism that promises none."""
    if metrics.epsilon is None or metrics.epsilon_budget is None:
        return ""
    return f"; epsilon {metrics.epsilon:.2f} of {metrics.epsilon_budget:g}"
