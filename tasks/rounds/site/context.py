"""What a step at a site needs: the study, the plan, the site's own folders and its own credential."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cryptography import x509

from tasks.errors import ConfigError, ObjectMissing, PrivacyError
from tasks.rounds.site.global_models import CardReader
from tasks.rounds.site.plans import PlanBook, checked_plan, plan_digest
from tasks.store import layout, settings
from tasks.store.hub_signature import check_hub_signature
from tasks.store.objects import ObjectStore, site_store
from tasks.store.record_size import max_bytes
from tasks.store.records.round import Plan, Settled
from tasks.store.records.site import Enrolment
from tasks.study.file import load_study
from tasks.study.sections import Study


class PlannedRound(NamedTuple):
    """A plan that the site follows, and the sha256 of its bytes as stored."""

    plan: Plan
    sha256: str


@dataclass(frozen=True)
class SiteContext:
    """One site's view of one study."""

    site: str
    study: Study
    connection: ObjectStore | None
    project: Path
    work_dir: Path
    secrets_dir: Path
    run_id: str = ""

    @classmethod
    def load(cls, study: str, site: str, *, connect: bool = True, run_id: str = "") -> SiteContext:
        """From this machine's deployment; with `connect=False` for the site's files alone.

        `run_id` is the Airflow run that the site works for.

        Raises:
            ConfigError: the study has no such site, or nothing is set up to connect to.
        """
        project = settings.project_dir()
        config = load_study(project / "studies" / f"{study}.yaml")
        if site not in config.sites:
            raise ConfigError(f"study {study} has no site {site}; it has: {', '.join(config.sites)}")
        connection = site_store(site) if connect else None
        work, secrets = settings.site_work(site), settings.site_secrets(site)
        return cls(site, config, connection, project, work, secrets, run_id)

    @property
    def store(self) -> ObjectStore:
        """The object store, with the site's credential. Raises ConfigError for a context that was not connected."""
        if self.connection is None:
            raise ConfigError(f"site {self.site}: this step works on the site's files alone")
        return self.connection

    @property
    def data_dir(self) -> Path:
        """The site's own CSV files."""
        return self.project / self.study.data.root / self.site

    @property
    def suites_dir(self) -> Path:
        """The expectation suites of the study."""
        return self.project / self.study.data.suites

    @property
    def pin_file(self) -> Path | None:
        """The DVC pin that the data must match, if the study pins its data."""
        return self.project / self.study.data.pin if self.study.data.pin else None

    def round_dir(self, server_round: int) -> Path:
        """The site's scratch folder of one round; raw updates lie here and never leave."""
        path = self.work_dir / "rounds" / self.study.study / f"{server_round:04d}"
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path

    def plan(self, server_round: int) -> PlannedRound:
        """Read the round's plan, check it, and follow it and no other of this number from now on.

        Raises:
            ConfigError: the study file here differs from the one that the plan was made from, or its terms do.
            PrivacyError: see `tasks.rounds.site.plans`.
        """
        try:
            body = self.store.get(layout.plan(self.study.study, server_round), max_bytes=max_bytes(Plan))
        except ObjectMissing:
            raise ConfigError(f"round {server_round} of {self.study.study} has no plan: it was never opened") from None
        plan = checked_plan(body, self.study, server_round, self.site, self.authority)
        digest = plan_digest(body)
        self.plan_book.follow(plan, digest)
        return PlannedRound(plan, digest)

    def settled(self, server_round: int) -> Settled | None:
        """What the hub says, and has signed, of a round that takes no more updates; None while it does.

        Raises:
            PrivacyError: it is not the hub's, or about another round.
        """
        for place in (layout.closed, layout.selected):
            key = place(self.study.study, server_round)
            try:
                settled = self.store.get_record(key, Settled)
            except ObjectMissing:
                continue
            check_hub_signature(settled, self.authority, key)
            if (settled.study, settled.server_round) != (self.study.study, server_round):
                raise PrivacyError(f"{key} is about another round: site {self.site} does not follow it")
            return settled
        return None

    @property
    def plan_book(self) -> PlanBook:
        """Which plans of the study the site has followed."""
        return PlanBook(self.work_dir, self.study.study, self.site)

    @property
    def cards(self) -> CardReader:
        """The cards of the study's models."""
        return CardReader(self.store, self.study.study, self.authority, self.plan_book)

    @property
    def authority(self) -> x509.Certificate:
        """The consortium's certificate authority, as the site got it at enrolment. Raises ConfigError."""
        path = self.secrets_dir / "authority.pem"
        try:
            return x509.load_pem_x509_certificate(path.read_bytes())
        except (FileNotFoundError, ValueError):
            raise ConfigError(
                f"site {self.site} has no authority.pem in {self.secrets_dir}: enrol the site again"
            ) from None

    def token(self) -> str:
        """The token that the hub gave at enrolment. Raises ConfigError."""
        return self.store.get_record(layout.enrolment(self.site), Enrolment).token
