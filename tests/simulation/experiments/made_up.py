"""Made-up runs of every experiment: AUC by a rule, so that tests decide what the page has to say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tasks.simulation.experiments import run
from tasks.simulation.experiments.plan import EXPERIMENTS, Experiment
from tasks.simulation.experiments.records import Cohort, Measured, SiteCount
from tasks.simulation.runs import RunResult
from tasks.study.sections import Study

SEEDS = tuple(range(20))
#: What a setting adds to the seed's AUC of .6.
Effect = Callable[[str, str], float]
SITES = ("701", "703", "pool")


def results(experiment: Experiment, effect: Effect, jitter: float = 0.002) -> list[RunResult]:
    """Runs of every setting: the seed's level, the setting's effect and a little noise of each run's own."""
    made = []
    for place, setting in enumerate(experiment.settings):
        last = setting.rounds or 20
        rounds = tuple(n for n in range(1, last + 1) if n <= 20 or n % 100 == 0)
        for seed in SEEDS:
            rng = np.random.default_rng([seed, place])
            level = 0.6 + 0.05 * np.sin(seed) + effect(experiment.name, setting.name)
            auc = tuple(float(x) for x in level + jitter * rng.standard_normal(len(rounds)))
            made.append(
                RunResult(
                    setting=setting.name,
                    seed=seed,
                    rounds=rounds,
                    auc=auc,
                    log_loss=tuple(1 - x for x in auc),
                    epsilon=None,
                    num_bytes=100 * last,
                    seconds=0.1,
                )
            )
    return made


def numbers(study: Study, effect: Effect, jitter: float = 0.002) -> dict[str, Measured]:
    """Every experiment of the plan."""
    return {
        name: run.compare_results(one, study, SEEDS, results(one, effect, jitter)) for name, one in EXPERIMENTS.items()
    }


def cohort() -> Cohort:
    """Three clients."""
    counts = (
        SiteCount(site=s, train=10 + i, train_events=4, held_out=3, held_out_events=i) for i, s in enumerate(SITES)
    )
    return Cohort(study="xanomeline_derm56", split_seed=0, sites=tuple(counts))
