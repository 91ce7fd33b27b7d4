"""What a study has spent, site by site, as `pharmafed privacy spend` prints it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict
from rich.table import Table
from rich.text import Text

from tasks.privacy.ledger.evidence import collect, unread_of
from tasks.privacy.ledger.verification import ChainReport
from tasks.report import words
from tasks.store.objects import ObjectStore
from tasks.store.records.ledger import Spend, Unit
from tasks.study.sections import Study


class SiteSpend(BaseModel):
    """One site's row. Epsilons of different sites are about different patients, or sites: they are never added."""

    model_config = ConfigDict(frozen=True)

    site: str
    releases: int
    total_rounds: int
    rounds_left: int
    unit: Unit | None
    epsilon: float | None
    epsilon_budget: float | None
    delta: float | None
    last_recorded: datetime | None
    problems: tuple[str, ...]


class StudySpend(BaseModel):
    """All sites of a study, what is promised, and how long the budget lasts."""

    model_config = ConfigDict(frozen=True)

    study: str
    mechanism: str
    sites: tuple[SiteSpend, ...]
    promise: str
    outlook: str
    unread: tuple[str, ...] = ()

    @property
    def broken(self) -> tuple[SiteSpend, ...]:
        """Sites whose ledger is not what it should be."""
        return tuple(row for row in self.sites if row.problems)


def read_spend(store: ObjectStore, study: Study, now: datetime) -> StudySpend:
    """Read and verify every ledger of a study, with the hub's credential.

    Raises:
        StoreUnavailable, StoreError: as the store says.
    """
    evidence = collect(store, study.study, study.sites)
    reports = [found.verify() for found in evidence.values()]
    rows = tuple(_row(report, study) for report in reports)
    return StudySpend(
        study=study.study,
        mechanism=study.privacy.mechanism,
        sites=rows,
        promise=_promise(reports),
        outlook=_outlook(study, rows, now),
        unread=unread_of(evidence.values()),
    )


def spend_table(spend: StudySpend) -> Table:
    """A row a site."""
    columns = ("site", "releases", "protects", "epsilon so far", "delta", "rounds left", "ledger", "last recorded")
    table = Table(*columns, title=f"Privacy spend of {spend.study}")
    for row in spend.sites:
        table.add_row(
            row.site,
            f"{row.releases} of {row.total_rounds}",
            row.unit or words.NONE,
            f"{words.spend(row.epsilon)} of {words.spend(row.epsilon_budget)}",
            words.NONE if row.delta is None else f"{row.delta:g}",
            str(row.rounds_left),
            _state(row.problems),
            f"{row.last_recorded:%Y-%m-%d %H:%M}" if row.last_recorded else words.NONE,
        )
    return table


def chain_table(reports: Iterable[ChainReport], title: str) -> Table:
    """A row a site: what was verified, and whether it holds."""
    table = Table("site", "entries", "epsilon", "signature", "anchors", "first", "last", "ledger", title=title)
    for report in reports:
        times = [f"{at:%Y-%m-%d}" if at else words.NONE for at in (report.first_at, report.last_at)]
        figures = (str(report.entries), words.spend(report.epsilon), report.signature, str(report.anchors))
        table.add_row(report.site or words.NONE, *figures, *times, _state(report.problems))
    return table


def _state(problems: tuple[str, ...]) -> Text:
    if not problems:
        return Text("ok")
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return Text(f"BROKEN: {problems[0]}{more}", style="red")


def _row(report: ChainReport, study: Study) -> SiteSpend:
    spend, privacy = report.spend, study.privacy
    budget = spend.epsilon_budget if spend else getattr(privacy, "epsilon", None)
    return SiteSpend(
        site=str(report.site),
        releases=report.releases,
        total_rounds=study.rounds.total,
        rounds_left=max(0, study.rounds.total - report.releases),
        unit=spend.unit if spend else None,
        epsilon=report.epsilon if spend or budget is None else 0.0,
        epsilon_budget=budget,
        delta=spend.delta if spend else getattr(privacy, "delta", None),
        last_recorded=report.last_at,
        problems=report.problems,
    )


def _promise(reports: list[ChainReport]) -> str:
    """One sentence, from the newest entry: it says what was really promised, whatever the study file says by now."""
    newest = max((r for r in reports if r.spend and r.last_at), key=lambda r: (r.last_at, r.site), default=None)
    if newest is None or newest.spend is None:
        return "Nothing has been released yet."
    spend: Spend = newest.spend
    if not spend.promises:
        return f"Nothing is promised: {spend.mechanism} protects nobody ({spend.neighbours})."
    trust = f"; it rests on this: {spend.trust}" if spend.trust else ""
    return (
        f"Each epsilon is the total of a site's releases so far, at its delta, and protects one {spend.unit}: "
        f"neighbours are {spend.neighbours}{trust}."
    )


def _outlook(study: Study, rows: tuple[SiteSpend, ...], now: datetime) -> str:
    """How many rounds can still find a quorum of sites with budget."""
    if not study.privacy.promises:
        return "No budget limits the rounds."
    left = sorted((row.rounds_left for row in rows if row.site in study.sites), reverse=True)
    rounds = left[study.rounds.min_sites - 1]
    if rounds == 0:
        last = max((row.last_recorded for row in rows if row.last_recorded), default=None)
        return f"The budget is spent{f' since {last:%Y-%m-%d}' if last else ''}: no more rounds of this study."
    return f"{words.count(rounds, 'more round')}; nightly, the last on {now + timedelta(days=rounds):%Y-%m-%d}."
