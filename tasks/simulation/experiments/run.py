"""Run an experiment and write down its numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tasks.errors import ConfigError
from tasks.simulation.data import read_sites, split_sites
from tasks.simulation.experiments import plan
from tasks.simulation.experiments.paired import difference, interval_verdict, summarise
from tasks.simulation.experiments.plan import Experiment
from tasks.simulation.experiments.records import (
    Arm,
    Cohort,
    Curve,
    DifferenceCurve,
    Measured,
    PairedComparison,
    SiteCount,
)
from tasks.simulation.runs import RunResult, Setting, run_many
from tasks.store import settings as deployment
from tasks.study.file import load_study
from tasks.study.sections import Study

#: Rounds that a curve keeps: all up to here, and every so many after it.
_ALL_UP_TO, _THEN_EVERY = 100, 10
#: Seeds' results of one setting, in the order of the seeds.
_Runs = Sequence[RunResult]


def run(
    name: str,
    seeds: Sequence[int] | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """One of `plan.EXPERIMENTS` on the default study: the content of its JSON file, which `Measured` reads.

    Without `seeds` it has as many as the plan says: 0, 1, 2 ...

    Raises:
        ConfigError: no experiment has that name, there are fewer than two seeds, or the study's data are not public.
    """
    if name not in plan.EXPERIMENTS:
        raise ConfigError(f"there is no experiment {name!r}, only: {', '.join(plan.EXPERIMENTS)}")
    experiment = plan.EXPERIMENTS[name]
    own = range(experiment.num_seeds) if seeds is None else seeds
    return measure(experiment, base_study(), own, workers, progress).model_dump(mode="json")


def base_study() -> Study:
    """The study that the experiments change."""
    return load_study(deployment.project_dir() / "studies" / f"{plan.STUDY}.yaml")


def measure(
    experiment: Experiment,
    study: Study,
    seeds: Sequence[int],
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Measured:
    """Run all settings of an experiment on a study, each with every seed, and compare them.

    Raises:
        ConfigError: fewer than two different seeds, or the study's data are not public.
    """
    if len(set(seeds)) < 2 or len(set(seeds)) != len(seeds):
        raise ConfigError(f"experiment {experiment.name} needs two or more different seeds: an interval is over seeds")
    _check_public(study)
    results = run_many(study, experiment.settings, seeds, workers=workers, progress=progress)
    return compare_results(experiment, study, seeds, results)


def compare_results(
    experiment: Experiment, study: Study, seeds: Sequence[int], results: Sequence[RunResult]
) -> Measured:
    """The numbers of an experiment from its runs, every setting's in the order of the seeds."""
    runs = {one.name: [r for r in results if r.setting == one.name] for one in experiment.settings}
    arms = tuple(_arm(one, runs[one.name], experiment.judged_at) for one in experiment.settings)
    best = {arm.setting.name: arm.best_round for arm in arms}
    return Measured(
        experiment=experiment.name,
        title=experiment.title,
        study=study.study,
        study_digest=study.digest,
        seeds=tuple(seeds),
        arms=arms,
        comparisons=tuple(_comparisons(experiment, runs, best)),
        difference_curves=tuple(_difference_curve(runs, arm, against) for arm, against in experiment.pairs),
    )


def _check_public(study: Study) -> None:
    """All sites' held-out patients are scored together here, which no real federation could do, by AUC and log-loss."""
    if study.label.task != "binary":
        raise ConfigError(f"experiments are made for a label of yes or no, and label.task is {study.label.task}")
    if not study.evaluation.data_are_public:
        raise ConfigError(
            f"experiments pool patients of all sites, and evaluation.data_are_public of study {study.study} is false"
        )


def cohort(study: Study) -> Cohort:
    """Patients per client in the study's own split.

    Raises:
        ConfigError: the study's data are not public.
    """
    _check_public(study)
    sites = split_sites(read_sites(study), study.evaluation)
    counts = tuple(
        SiteCount(
            site=site,
            train=len(own.train_labels),
            train_events=int(own.train_labels.sum()),
            held_out=len(own.held_out_labels),
            held_out_events=int(own.held_out_labels.sum()),
        )
        for site, own in sites.items()
    )
    return Cohort(study=study.study, split_seed=study.evaluation.split_seed, sites=counts)


def _arm(setting: Setting, runs: _Runs, judged_at: int) -> Arm:
    at = _judged(runs, judged_at)
    auc, log_loss = _at(runs, "auc", at), _at(runs, "log_loss", at)
    return Arm(
        setting=setting,
        judged_at=at,
        auc=summarise(auc),
        log_loss=summarise(log_loss),
        auc_by_seed={run.seed: round(value, 6) for run, value in zip(runs, auc, strict=True)},
        log_loss_by_seed={run.seed: round(value, 6) for run, value in zip(runs, log_loss, strict=True)},
        epsilon=runs[0].epsilon,
        bytes_per_round=round(sum(run.num_bytes / run.rounds[-1] for run in runs) / len(runs), 1),
        auc_curve=_curve({n: _at(runs, "auc", n) for n in _shown(runs)}),
        log_loss_curve=_curve({n: _at(runs, "log_loss", n) for n in _shown(runs)}),
    )


def _judged(runs: _Runs, wanted: int) -> int:
    """The round that counts: the one asked for, or the setting's last where it has fewer."""
    return min(wanted, runs[0].rounds[-1])


def _at(runs: _Runs, figure: str, server_round: int) -> list[float]:
    """One figure after one round, in the order of the seeds."""
    return [run.of(figure)[run.rounds.index(server_round)] for run in runs]


def _shown(runs: _Runs) -> list[int]:
    """Rounds of a curve."""
    return [n for n in runs[0].rounds if n <= _ALL_UP_TO or n % _THEN_EVERY == 0]


def _curve(values: Mapping[int, Sequence[float]]) -> Curve:
    each = [summarise(found) for found in values.values()]
    return Curve(
        rounds=tuple(values),
        mean=tuple(one.mean for one in each),
        low=tuple(one.low for one in each),
        high=tuple(one.high for one in each),
    )


def _comparisons(experiment: Experiment, runs: Mapping[str, _Runs], best: Mapping[str, int]) -> list[PairedComparison]:
    found = [
        _compare(
            runs, arm, against, _judged(runs[arm], experiment.judged_at), _judged(runs[against], experiment.judged_at)
        )
        for arm, against in experiment.pairs
    ]
    for also in experiment.also_at:
        found += [
            _compare(runs, arm, against, also, also)
            for arm, against in experiment.pairs
            if also in runs[arm][0].rounds and also in runs[against][0].rounds
        ]
    if experiment.at_own_best:
        found += [_compare(runs, arm, against, best[arm], best[against]) for arm, against in experiment.pairs]
    return found


def _compare(runs: Mapping[str, _Runs], arm: str, against: str, arm_round: int, against_round: int) -> PairedComparison:
    paired = difference(_at(runs[arm], "auc", arm_round), _at(runs[against], "auc", against_round))
    return PairedComparison(
        arm=arm,
        against=against,
        arm_round=arm_round,
        against_round=against_round,
        difference=paired,
        verdict=interval_verdict(paired),
    )


def _difference_curve(runs: Mapping[str, _Runs], arm: str, against: str) -> DifferenceCurve:
    both = [n for n in _shown(runs[arm]) if n in set(runs[against][0].rounds)]
    pairs = {
        n: [a - b for a, b in zip(_at(runs[arm], "auc", n), _at(runs[against], "auc", n), strict=True)] for n in both
    }
    return DifferenceCurve(arm=arm, against=against, curve=_curve(pairs))
