"""Settings of a study times seeds, over the cores: what an ablation is made of.

Seed s decides everything that is random: the split of the patients, the initial weights, the batches and the noise.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from tasks.data.reading.patients import Patients
from tasks.errors import ConfigError
from tasks.learning.building import checked_model
from tasks.learning.metrics import metrics_of
from tasks.privacy.noise.source import SeededNoise
from tasks.privacy.sanitizer import plan_spend
from tasks.simulation.baselines import Score, full_score, local_only, local_score, pooled
from tasks.simulation.data import SiteArrays, data_key, read_sites, split_sites
from tasks.simulation.rounds import SimulatedRound, simulate, without_privacy
from tasks.simulation.workers import Tick, in_order
from tasks.store.plans import plan_round
from tasks.store.records.record import Record
from tasks.store.weights import to_bytes
from tasks.study.codec import CODEC_SECTIONS
from tasks.study.label import LABEL_SECTIONS
from tasks.study.privacy import PRIVACY_SECTIONS
from tasks.study.sections import Study
from tasks.study.strategy import STRATEGY_SECTIONS

Made = TypeVar("Made")
RunKind = Literal["federated", "pooled", "local"]
#: Names by which pydantic tells sections apart.
#: Keys that a run sets from its seed.
SEEDED = ("training.seed", "evaluation.split_seed")


class Setting(Record):
    """One thing to try: a study with changes, run as a federation or as one of its baselines.

    `changes` has dotted study keys, such as "privacy.epsilon"; a mapping replaces the whole section. Baselines train
    without a privacy mechanism, on the changed study's `training`. Without `rounds` it is the study's total.
    """

    name: str
    kind: RunKind = "federated"
    changes: dict[str, Any] = Field(default_factory=dict)
    rounds: int | None = Field(default=None, gt=0)


class RunResult(Record):
    """One run of a setting with one seed.

    `figures` are of the evaluated model over all sites' held-out patients, after each of `rounds`, None where they
    cannot show one; of the kind "local" the sites' mean, weighted by held-out patients. `epsilon` is the total that
    the rounds spend; `num_bytes` what all sites upload in them (baselines: nothing). `seconds` are of the rounds alone,
    without scoring.
    """

    setting: str
    seed: int
    rounds: tuple[int, ...]
    figures: dict[str, tuple[float | None, ...]]
    epsilon: float | None
    num_bytes: int
    seconds: float

    def of(self, metric: str) -> tuple[float, ...]:
        """One figure after each of `rounds`. Raises KeyError: the task has none of this name, or it is not known."""
        values = tuple(value for value in self.figures[metric] if value is not None)
        if len(values) != len(self.rounds):
            raise KeyError(metric)
        return values


@dataclass(frozen=True)
class SimulationRun:
    """A result, and the evaluated model that it ends with as safetensors, where it was asked for."""

    result: RunResult
    model: bytes | None = None


@dataclass(frozen=True)
class RunJob:
    """One run to do, checked; `data` names its patients among those that were read."""

    study: Study
    setting: Setting
    seed: int
    rounds: int
    data: str
    every: int
    patience: int | None
    keep_model: bool


def run_many(
    study: Study,
    settings: Sequence[Setting],
    seeds: Sequence[int],
    *,
    workers: int | None = None,
    every: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[RunResult]:
    """Run every setting with every seed; see `run_all`."""
    return [run.result for run in run_all(study, settings, seeds, workers=workers, every=every, progress=progress)]


def run_all(
    study: Study,
    settings: Sequence[Setting],
    seeds: Sequence[int],
    *,
    workers: int | None = None,
    every: int = 1,
    patience: int | None = None,
    models_of: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[SimulationRun]:
    """Run every setting with every seed, setting by setting; neither order nor figures depend on `workers`.

    Args:
        workers: processes, by default one for each core; each uses one thread.
        every: score every so many rounds, and always the last.
        patience: stop a run once log-loss on held-out patients has not improved for so many rounds. The held-out
            patients then have a say in the model that they judge, so it is for public data only.
        models_of: the seed whose final models to keep.
        progress: called with the rounds that are done and the rounds there are.

    Raises:
        ConfigError: a setting is none of this study, needs public data, or has a model of which no round can be made.
            BudgetExhausted: its rounds are not paid for. DataError: the patients cannot be read. All of them before
            the first round.
    """
    jobs = [
        _job(study, setting, seed, every, patience, keep_model=seed == models_of)
        for setting in settings
        for seed in seeds
    ]
    read = {job.data: job.study for job in jobs}
    patients = {key: read_sites(own) for key, own in read.items()}
    return in_order(_run, jobs, patients, [job.rounds for job in jobs], workers=workers, progress=progress)


def _job(study: Study, setting: Setting, seed: int, every: int, patience: int | None, *, keep_model: bool) -> RunJob:
    own = changed(study, setting.changes)
    if (setting.kind != "federated" or patience is not None) and not own.evaluation.data_are_public:
        what = f"setting {setting.name} ({setting.kind})" if setting.kind != "federated" else "early stopping"
        raise ConfigError(
            f"{what} pools patients of all sites, and evaluation.data_are_public of study {own.study} is false"
        )
    rounds = setting.rounds or own.rounds.total
    if setting.kind == "federated":
        _epsilon(own, rounds)
    checked_model(own if setting.kind == "federated" else without_privacy(own, own.training))
    return RunJob(_seeded(own, seed), setting, seed, rounds, data_key(own), every, patience, keep_model)


def changed(study: Study, changes: Mapping[str, Any]) -> Study:
    """The study with other values, held to all of its rules; dotted keys go in one after the other.

    Raises:
        ConfigError: naming the key that the study has not, or whose value it cannot have.
    """
    content = study.model_dump(by_alias=True, exclude_unset=True)
    for key, value in changes.items():
        if key in SEEDED:
            raise ConfigError(f"{key} is set from the seed of each run, so a setting cannot change it")
        *sections, name = key.split(".")
        place = content
        for section in sections:
            place = place.setdefault(section, {}) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise ConfigError(f"{key}: {'.'.join(sections)} is no section of the study, so there is nothing to change")
        place[name] = deepcopy(value)  # a later key may go into it
    try:
        return Study.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"study {study.study} with {', '.join(changes)} changed: {_reasons(error)}") from None


#: Sections of several kinds -> the names of those.
_KINDS: dict[str, Collection[str]] = {
    "privacy": PRIVACY_SECTIONS,
    "label": LABEL_SECTIONS,
    "codec": CODEC_SECTIONS,
    "strategy": STRATEGY_SECTIONS,
}


def _reasons(error: ValidationError) -> str:
    """What is wrong, by dotted key; pydantic's name for a section of several kinds is no part of the key."""
    reasons = []
    for problem in error.errors():
        loc = [str(part) for part in problem["loc"]]
        if loc[1:2] and loc[1] in _KINDS.get(loc[0], ()):
            del loc[1]
        reason = "unknown key" if problem["type"] == "extra_forbidden" else problem["msg"].removeprefix("Value error, ")
        reasons.append(f"{'.'.join(loc)}: {reason}" if loc else reason)
    return "; ".join(dict.fromkeys(reasons))


def _seeded(study: Study, seed: int) -> Study:
    """Another split, other initial weights and batches."""
    evaluation = study.evaluation.model_copy(update={"split_seed": seed})
    training = study.training.model_copy(update={"seed": seed})
    return study.model_copy(update={"evaluation": evaluation, "training": training})


def _noise(seed: int) -> SeededNoise:
    return SeededNoise(hashlib.sha256(f"simulated noise {seed}".encode()).digest())


def _epsilon(study: Study, rounds: int) -> float | None:
    """What so many rounds spend in all. Raises BudgetExhausted."""
    return plan_spend(plan_round(study, tuple(study.sites), {}, {}, rounds), rounds).epsilon


def _run(job: RunJob, patients_by_data: Mapping[str, Mapping[str, SiteArrays]], tick: Tick) -> SimulationRun:
    patients = split_sites(patients_by_data[job.data], job.study.evaluation)
    patience = _Patience(job.patience)
    rounds: list[int] = []
    scores: list[Score] = []
    seconds, num_bytes = 0.0, 0
    for models, took in _timed(_rounds(job, patients)):
        tick(1)
        last = next(iter(models.values()))
        seconds, num_bytes = seconds + took, num_bytes + last.num_bytes
        if last.server_round % job.every and last.server_round != job.rounds:
            continue
        rounds.append(last.server_round)
        scores.append(_score(job, models, patients))
        if patience.is_over(last.server_round, _to_lower(job.study, scores[-1])):
            break
    tick(job.rounds - rounds[-1])
    federated = job.setting.kind == "federated"
    result = RunResult(
        setting=job.setting.name,
        seed=job.seed,
        rounds=tuple(rounds),
        figures={name: tuple(found.get(name) for found in scores) for name in dict.fromkeys(chain(*scores))},
        epsilon=_epsilon(job.study, rounds[-1]) if federated else None,
        num_bytes=num_bytes if federated else 0,
        seconds=round(seconds, 4),
    )
    return SimulationRun(result, to_bytes(last.evaluated) if job.keep_model and len(models) == 1 else None)


def _rounds(job: RunJob, patients: Mapping[str, Patients]) -> Iterator[Mapping[str, SimulatedRound]]:
    """Each round's models by who trained them: one, or each site's own."""
    if job.setting.kind == "local":
        return local_only(job.study, patients, job.rounds)
    if job.setting.kind == "pooled":
        return ({"pool": made} for made in pooled(job.study, patients, job.rounds))
    federated = simulate(job.study, patients, job.rounds, noise=_noise(job.seed))
    return ({"federation": made} for made in federated)


def _score(job: RunJob, models: Mapping[str, SimulatedRound], patients: Mapping[str, Patients]) -> Score:
    evaluated = {who: made.evaluated for who, made in models.items()}
    if job.setting.kind == "local":
        return local_score(job.study, evaluated, patients)
    (weights,) = evaluated.values()
    return full_score(job.study, weights, patients)


def _timed(rounds: Iterator[Made]) -> Iterator[tuple[Made, float]]:
    """Each round and the seconds that it took."""
    while True:
        started = time.perf_counter()
        made = next(rounds, None)
        if made is None:
            return
        yield made, time.perf_counter() - started


def _to_lower(study: Study, found: Score) -> float:
    """What training makes lower: the task's first figure of which lower is better."""
    lower = next(metric for metric in metrics_of(study.label.task) if metric.better == "lower")
    return found.get(lower.name, float("inf"))


class _Patience:
    """Whether the loss has not improved for `rounds` rounds; None is endless."""

    def __init__(self, rounds: int | None) -> None:
        self.rounds, self.best, self.best_round = rounds, float("inf"), 0

    def is_over(self, server_round: int, loss: float) -> bool:
        if loss < self.best:
            self.best, self.best_round = loss, server_round
        return self.rounds is not None and server_round - self.best_round >= self.rounds
