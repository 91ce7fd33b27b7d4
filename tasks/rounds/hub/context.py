"""What a step at the hub needs: the study and the hub's credential."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from torch import nn

from tasks.errors import ConfigError, ObjectMissing, RoundRefused, StoreError, StoreUnavailable
from tasks.learning.building import checked_model
from tasks.store import layout, settings
from tasks.store.objects import ObjectStore, hub_store
from tasks.store.record_size import max_bytes
from tasks.store.records.model import Pointer
from tasks.store.records.report import RoundMetrics
from tasks.store.records.round import Plan, RunRecord
from tasks.store.records.site import Enrolment
from tasks.study.file import load_study
from tasks.study.sections import Study


class ClosedRounds(NamedTuple):
    """A study's closed rounds, in order; and of each record that cannot be read, which, why and what helps."""

    rounds: list[RoundMetrics]
    damaged: list[str]


@dataclass(frozen=True)
class HubContext:
    """The hub's view of one study."""

    study: Study
    store: ObjectStore
    run_id: str = ""

    @classmethod
    def load(cls, study: str, run_id: str = "") -> HubContext:
        """From this machine's deployment, for the Airflow run that works on a round. Raises ConfigError."""
        return cls(load_study(settings.project_dir() / "studies" / f"{study}.yaml"), hub_store(), run_id)

    @property
    def name(self) -> str:
        """The study's name."""
        return self.study.study

    @property
    def secrets_dir(self) -> Path:
        """Where the key lies with which the hub signs plans and cards."""
        return settings.hub_secrets()

    @property
    def authority(self) -> x509.Certificate:
        """The consortium's certificate authority. Raises ConfigError."""
        path = settings.home() / "secrets" / "ca" / "certificate.pem"
        try:
            return x509.load_pem_x509_certificate(path.read_bytes())
        except FileNotFoundError:
            raise ConfigError(f"no authority's certificate at {path}: run `pharmafed up`") from None

    def plan(self, server_round: int) -> Plan:
        """Read a round's plan. Raises ObjectMissing."""
        return self.store.get_record(layout.plan(self.name, server_round), Plan)

    def open_plan(self, server_round: int) -> Plan:
        """Read the plan of a round to work on. Raises RoundRefused: it is closed, and made no model."""
        metrics = self.closed_round(server_round)
        if metrics is not None and metrics.status == "failed":
            raise RoundRefused(
                f"round {server_round} of {self.name} is closed: {metrics.message}. The next round takes a new run"
            )
        return self.plan(server_round)

    def closed_round(self, server_round: int) -> RoundMetrics | None:
        """A round's record; None while it is open."""
        try:
            return self.store.get_record(layout.round_metrics(self.name, server_round), RoundMetrics)
        except ObjectMissing:
            return None

    def closed_by(self, run_id: str) -> RoundMetrics | None:
        """The record of the round that an Airflow run has closed; None while it has not. Reads no other record."""
        try:
            number = self.store.get_record(layout.run(self.name, run_id), RunRecord).server_round
        except ObjectMissing:
            return None
        metrics = self.closed_round(number)
        return metrics if metrics is not None and metrics.run_id == run_id else None

    def pointer(self) -> tuple[Pointer | None, str | None]:
        """`latest.json` and the tag for compare-and-swap; (None, None) before the first model.

        Raises:
            StoreError: it is damaged, or another study's; `tasks.rounds.hub.repair` makes it anew.
        """
        key = layout.latest(self.name)
        try:
            body, etag = self.store.get_with_etag(key, max_bytes=max_bytes(Pointer) + 1)
        except ObjectMissing:
            return None, None
        try:
            pointer = Pointer.model_validate_json(body)
        except ValueError as error:
            raise self.store.damaged(key, Pointer, error) from None
        if pointer.study != self.name:
            raise StoreError(f"{self.store.bucket}/{key} is of another study: {layout.remedy(key)}")
        return pointer, etag

    def enrolments(self) -> dict[str, Enrolment]:
        """The active enrolments of the study's sites; a site whose own is damaged has none."""
        found = {site: self.enrolment(site) for site in self.study.sites}
        return {site: enrolment for site, enrolment in found.items() if isinstance(enrolment, Enrolment)}

    def enrolment(self, site: str) -> Enrolment | str:
        """A site's active enrolment, or why it has none. Raises StoreUnavailable."""
        try:
            enrolment = self.store.get_record(layout.enrolment(site), Enrolment)
        except ObjectMissing:
            return "not enrolled"
        except StoreUnavailable:
            raise
        except StoreError as error:
            return f"not enrolled: {error}"
        return enrolment if enrolment.active else "not enrolled"

    def closed_rounds(self) -> list[RoundMetrics]:
        """Every closed round of the study whose record can be read, in order."""
        return self.records().rounds

    def records(self) -> ClosedRounds:
        """The records of all closed rounds; one that is damaged hides no other. Raises StoreUnavailable."""
        found = ClosedRounds([], [])
        for number, key in self.objects("round_metrics").items():
            try:
                metrics = self.store.get_record(key, RoundMetrics)
            except StoreUnavailable:
                raise
            except StoreError as error:
                found.damaged.append(str(error))
                continue
            if (metrics.study, metrics.server_round) == (self.name, number):
                found.rounds.append(metrics)
            else:
                found.damaged.append(f"{self.store.bucket}/{key} is of another round or study: {layout.remedy(key)}")
        return found

    def last_opened(self) -> int:
        """The number of the newest round that has a plan; 0 before the first."""
        return max(self.objects("plan"), default=0)

    def objects(self, kind: str) -> dict[int, str]:
        """Round -> key of each round's object of this kind (see `layout.KEYS`), in order."""
        return layout.rounds_of(self.store.keys(layout.above(kind, study=self.name)), kind, self.name)

    def initial_model(self) -> nn.Module:
        """The study's model with its seeded first weights. Raises ConfigError: no round can be made of it."""
        return checked_model(self.study)
