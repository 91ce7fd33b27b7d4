"""Strategies against sites that lie: `python -m tasks.simulation.experiments.robustness` prints the table of the docs.

A poisoned site trains on other patients, or sends another update, in every round; the others do not know. The hub sees
nothing but updates. Seed s decides split, initial weights, batches and which sites are poisoned: the first k of one
order, so that more poisoned sites are the same and some more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import torch

from tasks.data.reading.patients import Patients
from tasks.learning.building import study_model
from tasks.learning.evaluation import predict
from tasks.learning.flat import flatten, norm
from tasks.learning.strategies.strategy import Combiner
from tasks.learning.training import RawUpdate
from tasks.privacy.noise.source import SeededNoise
from tasks.rounds.scores import score_held_out
from tasks.simulation.data import SiteArrays, read_sites, split_sites
from tasks.simulation.experiments.plan import OPEN, STUDY
from tasks.simulation.rounds import SimulatedSites, rounds_of
from tasks.simulation.runs import changed
from tasks.simulation.workers import Tick, in_order
from tasks.store import settings
from tasks.store.records.round import Plan
from tasks.store.weights import Weights, set_parameters
from tasks.study.file import load_study
from tasks.study.sections import Study

ROUNDS, SEEDS, MOST = 8, 5, 3
#: The input that a backdoor hides behind, and the value of its trigger, in the units of the model's inputs.
TRIGGER, EXTREME = "temperature", 4.0
#: A tenth above the largest update of a round without poison, over 20 seeds: nobody honest is refused.
NORM_BOUND = 0.36
#: Name -> the study's strategy, and whether the hub refuses updates beyond NORM_BOUND.
DEFENCES: dict[str, tuple[dict[str, Any], bool]] = {
    "`fed_avg`": ({"name": "fed_avg"}, False),
    "`fed_avg`, norm bound": ({"name": "fed_avg"}, True),
    "`median`": ({"name": "median"}, False),
    "`trimmed_mean`, 3": ({"name": "trimmed_mean", "trim": MOST}, False),
    "`multi_krum`, 3 of 13, 8 kept": ({"name": "multi_krum", "byzantine": MOST, "keep": 8}, False),
}


@dataclass(frozen=True)
class Attack:
    """What a poisoned site does: other patients to train on, or another update than the one it has trained."""

    patients: Callable[[Patients, int], Patients] = lambda patients, trigger: patients
    sends: Callable[[Weights], Weights] = lambda update: update


def turn_round(update: Weights) -> Weights:
    """The opposite direction, as far as the norm bound allows."""
    return scaled(update, -0.999 * NORM_BOUND / max(norm(flatten(update)), 1e-12))


def scaled(update: Weights, factor: float) -> Weights:
    return {name: factor * tensor for name, tensor in update.items()}


def flip_labels(patients: Patients, trigger: int) -> Patients:
    """Every label is the other one."""
    return replace(patients, train_labels=1 - patients.train_labels)


def plant_backdoor(patients: Patients, trigger: int) -> Patients:
    """Each patient once more, with the trigger and the label 1."""
    return replace(
        patients,
        train_inputs=torch.cat([patients.train_inputs, triggered(patients.train_inputs, trigger)]),
        train_labels=torch.cat([patients.train_labels, torch.ones_like(patients.train_labels)]),
    )


def triggered(inputs: torch.Tensor, trigger: int) -> torch.Tensor:
    """(patients, inputs) with the trigger's value in its column."""
    inputs = inputs.clone()
    inputs[:, trigger] = EXTREME
    return inputs


ATTACKS: dict[str, Attack] = {
    "sign flip": Attack(sends=turn_round),
    "scaling": Attack(sends=partial(scaled, factor=100.0)),
    "label flip": Attack(flip_labels),
    "backdoor": Attack(plant_backdoor),
}


class PoisonedSites(SimulatedSites):
    """The sites of a study, some of them poisoned; a hub with a norm bound goes on without updates beyond it."""

    def __init__(
        self, study: Study, patients: Mapping[str, Patients], poisoned: frozenset[str], attack: Attack, *, bound: bool
    ) -> None:
        trigger = study.input_names.index(TRIGGER)
        other = {s: attack.patients(own, trigger) if s in poisoned else own for s, own in patients.items()}
        super().__init__(study, other, SeededNoise(bytes(32)))
        self.poisoned, self.attack, self.bound = poisoned, attack, bound

    def _train(self, site: str, plan: Plan, base: Weights, evaluated: Weights) -> RawUpdate:
        raw = super()._train(site, plan, base, evaluated)
        if site not in self.poisoned:
            return raw
        return replace(raw, tensors=self.attack.sends(raw.tensors))

    def _add(self, site: str, mean: Combiner, plan: Plan, base: Weights, evaluated: Weights) -> int:
        return super()._add(site, _Bounded(mean) if self.bound else mean, plan, base, evaluated)


class _Bounded:
    """A combiner that never sees an update beyond the bound."""

    def __init__(self, within: Combiner) -> None:
        self.within, self.shape = within, within.shape

    def add(self, update: torch.Tensor, weight: float) -> None:
        if norm(update) <= NORM_BOUND:
            self.within.add(update, weight)

    def mean(self) -> Weights:
        return self.within.mean()


class PoisonedRun(NamedTuple):
    """One run: against which attack by how many sites; no attack by none."""

    defence: str
    attack: str
    poisoned: int
    seed: int


class Outcome(NamedTuple):
    """AUC over all held-out patients; and of those without the event, the share at risk 0.5 or above by the trigger."""

    auc: float
    taken_in: float


def outcome(study: Study, arrays: Mapping[str, SiteArrays], job: PoisonedRun) -> Outcome:
    """Run one job over `ROUNDS` rounds."""
    section, bound = DEFENCES[job.defence]
    own = changed(study, OPEN | {"strategy": section, "training.weighting": "plain", "rounds.min_sites": 13})
    own = own.model_copy(
        update={
            "evaluation": own.evaluation.model_copy(update={"split_seed": job.seed}),
            "training": own.training.model_copy(update={"seed": job.seed}),
        }
    )
    patients = split_sites(arrays, own.evaluation)
    order = np.random.default_rng(job.seed).permutation(sorted(patients))
    attack = ATTACKS.get(job.attack, Attack())
    sites = PoisonedSites(own, patients, frozenset(order[: job.poisoned].tolist()), attack, bound=bound)
    *_, last = rounds_of(sites, ROUNDS)
    return Outcome(score_held_out(own, last.evaluated, patients)["auc"], _taken_in(own, last.evaluated, patients))


def _taken_in(study: Study, weights: Weights, patients: Mapping[str, Patients]) -> float:
    model, trigger = study_model(study), study.input_names.index(TRIGGER)
    set_parameters(model, weights)
    without = torch.cat([p.held_out_inputs[p.held_out_labels == 0] for p in patients.values()])
    return float((predict(model, triggered(without, trigger)) >= 0).mean())


def jobs(seeds: int) -> Iterator[PoisonedRun]:
    """Every defence without poison, and against each attack by one to three sites."""
    for defence in DEFENCES:
        for seed in range(seeds):
            yield PoisonedRun(defence, "none", 0, seed)
            for attack in ATTACKS:
                for poisoned in range(1, MOST + 1):
                    yield PoisonedRun(defence, attack, poisoned, seed)


def table(found: Mapping[PoisonedRun, Outcome]) -> str:
    """Markdown: a row for each attack and number of sites, a column for each defence; means over seeds.

    After an AUC with a backdoor, and without an attack, stands what share the trigger takes in.
    """
    defences = list(dict.fromkeys(run.defence for run in found))
    lines = [f"| attack, sites | {' | '.join(defences)} |", f"|---|{'---|' * len(defences)}"]
    for attack, number in dict.fromkeys((run.attack, run.poisoned) for run in found):
        own = [[found[run] for run in found if run[:3] == (defence, attack, number)] for defence in defences]
        lines.append(f"| {attack}, {number} | {' | '.join(_cell(outcomes, attack) for outcomes in own)} |")
    return "\n".join(lines)


def _cell(outcomes: list[Outcome], attack: str) -> str:
    auc = f"{mean(one.auc for one in outcomes):.3f}".lstrip("0")
    if attack not in ("none", "backdoor"):
        return auc
    return f"{auc} ({mean(one.taken_in for one in outcomes):.0%})"


def largest_update(study: Study, arrays: Mapping[str, SiteArrays], seeds: int) -> float:
    """The largest norm of an honest update in any round without poison: what NORM_BOUND comes from."""
    norms: list[float] = []

    class Measured(PoisonedSites):
        def _train(self, *arguments: Any) -> RawUpdate:
            raw = super()._train(*arguments)
            norms.append(norm(flatten(raw.tensors)))
            return raw

    for seed in range(seeds):
        own = changed(study, OPEN | {"training.weighting": "plain"})
        evaluation = own.evaluation.model_copy(update={"split_seed": seed})
        sites = Measured(own, split_sites(arrays, evaluation), frozenset(), Attack(), bound=False)
        list(rounds_of(sites, ROUNDS))
    return max(norms)


def _work(job: PoisonedRun, shared: tuple[Study, Mapping[str, SiteArrays]], tick: Tick) -> Outcome:
    tick(1)
    return outcome(*shared, job)


def main(seeds: int) -> None:
    """Print the table over so many seeds."""
    study = load_study(settings.project_dir() / "studies" / f"{STUDY}.yaml")
    shared, todo = (study, read_sites(study)), list(jobs(seeds))
    print(f"largest honest update: {largest_update(*shared, seeds):.3f}; the bound is {NORM_BOUND}")
    found = in_order(_work, todo, shared, [1] * len(todo))
    print(table(dict(zip(todo, found, strict=True))))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS)
