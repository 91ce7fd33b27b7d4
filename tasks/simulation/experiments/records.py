"""What an experiment leaves behind: one JSON file, from which figures, page and metrics are made."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from tasks.errors import ConfigError
from tasks.simulation.experiments.paired import IntervalVerdict, PairedMean, difference
from tasks.simulation.runs import Setting
from tasks.store.records.record import Record


class Curve(Record):
    """A figure over rounds: mean over the seeds and its 95% interval."""

    rounds: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


class Arm(Record):
    """One setting over all seeds. Figures are of all sites' held-out patients together, at `judged_at`."""

    setting: Setting
    judged_at: int = Field(description="after this round")
    auc: PairedMean
    log_loss: PairedMean
    auc_by_seed: dict[int, float]
    log_loss_by_seed: dict[int, float]
    epsilon: float | None = Field(description="total spent when all rounds are over")
    bytes_per_round: float = Field(description="uploaded by all sites, mean over rounds and seeds")
    auc_curve: Curve
    log_loss_curve: Curve

    @property
    def best_round(self) -> int:
        """After which mean held-out log-loss is lowest. It is chosen on the patients that it is measured on."""
        curve = self.log_loss_curve
        return curve.rounds[curve.mean.index(min(curve.mean))]

    def log_loss_minus(self, reference: Arm) -> PairedMean:
        """The difference of log-loss, paired by seed: above zero, this one's probabilities are worse.

        Raises:
            ValueError: the two have other seeds.
        """
        if self.log_loss_by_seed.keys() != reference.log_loss_by_seed.keys():
            raise ValueError(f"{self.setting.name} and {reference.setting.name} have other seeds")
        return difference(*([arm.log_loss_by_seed[s] for s in self.log_loss_by_seed] for arm in (self, reference)))

    def has_learnt(self, server_round: int) -> bool:
        """Whether the whole interval of AUC lies above .5, which is what a coin has.

        Raises:
            ValueError: the curve leaves out that round.
        """
        return self.auc_curve.low[self.auc_curve.rounds.index(server_round)] > 0.5


class PairedComparison(Record):
    """AUC of `arm` minus that of `against`, paired by seed, after round `arm_round` of the one and `against_round`."""

    arm: str
    against: str
    arm_round: int
    against_round: int
    difference: PairedMean
    verdict: IntervalVerdict


class DifferenceCurve(Record):
    """The paired difference over all rounds that both settings have."""

    arm: str
    against: str
    curve: Curve


class Measured(Record):
    """One experiment's numbers. There is no time in it: the same study and seeds give the same file."""

    experiment: str
    title: str
    study: str
    study_digest: str
    seeds: tuple[int, ...]
    arms: tuple[Arm, ...]
    comparisons: tuple[PairedComparison, ...] = Field(description="judged rounds first, then the others asked for")
    difference_curves: tuple[DifferenceCurve, ...] = ()

    def arm(self, name: str) -> Arm:
        """The setting of that name.

        Raises:
            ConfigError: there is none.
        """
        by_name = {arm.setting.name: arm for arm in self.arms}
        if name not in by_name:
            raise ConfigError(f"experiment {self.experiment} has no setting {name!r}, only: {', '.join(by_name)}")
        return by_name[name]

    def judged(self) -> list[PairedComparison]:
        """The comparisons that count: one for each pair, at the judged rounds."""
        first: dict[tuple[str, str], PairedComparison] = {}
        for found in self.comparisons:
            first.setdefault((found.arm, found.against), found)
        return list(first.values())

    def is_at_own_best(self, found: PairedComparison) -> bool:
        """Whether each side is compared after its own best round, beside what is judged."""
        rounds = (self.arm(found.arm).best_round, self.arm(found.against).best_round)
        return found not in self.judged() and (found.arm_round, found.against_round) == rounds

    def neither_has_learnt(self, found: PairedComparison) -> bool:
        """Whether both sides may be no better than a coin: a difference between them means nothing."""
        sides = ((found.arm, found.arm_round), (found.against, found.against_round))
        return not any(self.arm(name).has_learnt(server_round) for name, server_round in sides)

    def comparison(self, arm: str, against: str) -> PairedComparison:
        """The difference at the judged rounds.

        Raises:
            ConfigError: the two were not compared.
        """
        for found in self.judged():
            if (found.arm, found.against) == (arm, against):
                return found
        raise ConfigError(f"experiment {self.experiment} does not compare {arm!r} with {against!r}: run it again")


class SiteCount(Record):
    """Patients of one client in the split of one seed, and how many of them had the event."""

    site: str
    train: int
    train_events: int
    held_out: int
    held_out_events: int


class Cohort(Record):
    """Who takes part. Only of public data: counts of a few patients would otherwise give them away."""

    study: str
    split_seed: int
    sites: tuple[SiteCount, ...]

    @property
    def num_train(self) -> int:
        return sum(site.train for site in self.sites)

    @property
    def num_held_out(self) -> int:
        return sum(site.held_out for site in self.sites)


Numbers = Mapping[str, Measured]
