"""What a step at a site needs: the study, the plan, the site's own folders and its own credential."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tasks import layout, settings
from tasks.errors import ConfigError, ObjectMissing
from tasks.records import Enrolment, Plan
from tasks.storage import ObjectStore, site_store
from tasks.study import Study
from tasks.study_file import load_study


@dataclass(frozen=True)
class SiteContext:
    """One site's view of one study."""

    site: str
    study: Study
    connection: ObjectStore | None
    project: Path
    work_dir: Path
    secrets_dir: Path

    @classmethod
    def load(cls, study: str, site: str, *, connect: bool = True) -> SiteContext:
        """From this machine's deployment; with `connect=False` for the site's files alone.

        Raises:
            ConfigError: the study has no such site, or nothing is set up to connect to.
        """
        project = settings.project_dir()
        config = load_study(project / "studies" / f"{study}.yaml")
        if site not in config.sites:
            raise ConfigError(f"study {study} has no site {site}; it has: {', '.join(config.sites)}")
        connection = site_store(site) if connect else None
        return cls(site, config, connection, project, settings.site_work(site), settings.site_secrets(site))

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

    def plan(self, server_round: int) -> Plan:
        """Read the round's plan and check that this site runs the same study file as the hub.

        Raises:
            ConfigError: the study file here differs from the one that the plan was made from.
        """
        try:
            plan = self.store.get_record(layout.plan(self.study.study, server_round), Plan)
        except ObjectMissing:
            raise ConfigError(f"round {server_round} of {self.study.study} has no plan: it was never opened") from None
        if plan.study_digest != self.study.digest:
            raise ConfigError(
                f"studies/{self.study.study}.yaml at site {self.site} is not the file that round {server_round} was "
                "opened with: bring both to the same version"
            )
        _refuse_other_terms(plan, self.study, self.site)
        return plan

    def token(self) -> str:
        """The token that the hub gave at enrolment. Raises ConfigError."""
        return self.store.get_record(layout.enrolment(self.site), Enrolment).token


def hides_in_fewer(plan: Plan, study: Study) -> bool:
    """Whether a masked sum would hide an update among fewer sites than the study's quorum."""
    return plan.aggregation != "plain" and min(plan.min_sites, len(plan.sites)) < study.rounds.min_sites


def _refuse_other_terms(plan: Plan, study: Study, site: str) -> None:
    """The site trains and protects its update by its own study file: a plan cannot talk it out of its privacy.

    Raises:
        ConfigError: naming what the plan would change.
    """
    terms = {
        "privacy": (plan.privacy, study.privacy),
        "aggregation": (plan.aggregation, study.aggregation),
        "sites": (sorted(plan.sites), sorted(set(plan.sites) & set(study.sites))),
        "quorum": (hides_in_fewer(plan, study), False),
        "training": (plan.training, study.training),
        "evaluation": (plan.evaluation, study.evaluation),
        "total_rounds": (plan.total_rounds, study.rounds.total),
    }
    changed = [name for name, (planned, own) in terms.items() if planned != own]
    if changed:
        raise ConfigError(
            f"round {plan.server_round} of {study.study} is planned with another {', '.join(changed)} than "
            f"studies/{study.study}.yaml at site {site}: the site does not follow it"
        )
