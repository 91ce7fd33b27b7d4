"""All rounds of a study in one process, with the functions that the scheduled steps call.

One site's update is in memory at a time: what grows with the number of sites is only what the sites themselves keep
between rounds, where the study says so (optimizer state, error feedback).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from tasks.data.reading.patients import Patients
from tasks.learning.averaging import averages, running_mean, weight_of
from tasks.learning.building import checked_model
from tasks.learning.flat import Shape
from tasks.learning.strategies import strategy_of
from tasks.learning.strategies.strategy import At, Combiner, advance
from tasks.learning.tasks import task_of
from tasks.learning.training import RawUpdate
from tasks.privacy.codecs import codec_of
from tasks.privacy.noise.source import NoiseSource
from tasks.privacy.opened import interpret, noised_figures, num_values
from tasks.privacy.sanitizer import contribution, plan_spend, sanitize
from tasks.privacy.sum_statistics import asked_sums
from tasks.rounds.site.local_update import SiteState, local_update
from tasks.rounds.site.personal import personal_model
from tasks.store.plans import of_round, plan_round
from tasks.store.records.model import NoisedFigures
from tasks.store.records.round import Plan
from tasks.store.weights import Weights, parameters, to_bytes
from tasks.study.channels import PLAIN
from tasks.study.codec import Dense
from tasks.study.privacy import NoPrivacy
from tasks.study.sections import Study, Training
from tasks.study.strategy import FED_AVG


@dataclass(frozen=True)
class SimulatedRound:
    """One round's model, iterate and evaluated (they differ once iterates are averaged).

    personal: each site's own model, where the strategy has such.
    num_bytes: tensors that all sites upload in it; under encryption those of the updates before they are encrypted.
    """

    server_round: int
    weights: Weights
    evaluated: Weights
    noised: NoisedFigures | None = None
    num_bytes: int = 0
    personal: Mapping[str, Weights] = field(default_factory=dict)


def simulate(
    study: Study, patients: Mapping[str, Patients], rounds: int, *, noise: NoiseSource
) -> Iterator[SimulatedRound]:
    """Run `rounds` rounds over every site.

    Args:
        study: what to run; its seed decides initial weights and batch order.
        patients: each site's arrays, as `tasks.data.reading.patients` makes them.
        rounds: how many rounds, from the initial model.
        noise: where all sites' noise comes from; `SeededNoise` makes a run that can be repeated.

    Raises:
        ConfigError: no round can be made of the study's model. BudgetExhausted: at the first round that the budget
            does not pay for. PrivacyError: an update is not finite.
    """
    yield from rounds_of(SimulatedSites(study, patients, noise), rounds)


def rounds_of(sites: SimulatedSites, rounds: int) -> Iterator[SimulatedRound]:
    """The rounds of these sites, from the initial model. Raises as `simulate` does."""
    study = sites.study
    weights = evaluated = parameters(sites.model)
    averaged = 0
    for server_round in range(1, rounds + 1):
        weights, quality, num_bytes = sites.one_round(weights, evaluated, server_round)
        if not averages(study.training, server_round, study.rounds.total):
            evaluated = weights
        else:
            evaluated = running_mean(evaluated, averaged, weights) if averaged else weights
            averaged += 1
        personal = sites.personalised(evaluated, server_round)
        yield SimulatedRound(server_round, weights, evaluated, quality, num_bytes, personal)


def pool(patients: Mapping[str, Patients]) -> Patients:
    """All sites' patients in one place, as no federation could have them."""
    each = list(patients.values())
    return Patients(
        torch.cat([p.train_inputs for p in each]),
        torch.cat([p.train_labels for p in each]),
        torch.cat([p.held_out_inputs for p in each]),
        torch.cat([p.held_out_labels for p in each]),
    )


def without_privacy(study: Study, training: Training) -> Study:
    """The same study, trained as `training` says and sharing the mean of raw updates: the yardstick for the others."""
    open_ = NoPrivacy(mechanism="none", i_accept_no_privacy=True)
    uncounted = study.evaluation.model_copy(update={"score_bins": None})
    parts = {
        "privacy": open_,
        "channel": PLAIN,
        "codec": Dense(name="dense"),
        "strategy": FED_AVG,
        "training": training,
        "evaluation": uncounted,
    }
    return study.model_copy(update=parts)


class SimulatedSites:
    """Every site of a study, with what each keeps between rounds: optimizer and strategy state, error feedback.

    And what the hub keeps for the study's strategy.
    """

    def __init__(self, study: Study, patients: Mapping[str, Patients], noise: NoiseSource) -> None:
        self.study, self.patients, self.noise = study, patients, noise
        self.model, self.task = checked_model(study), task_of(study.label)
        self.strategy = strategy_of(study.strategy)
        self.state: Weights | None = None
        self.states: dict[str, SiteState] = {}
        self.personal: dict[str, Weights] = {}
        self.residuals: dict[str, Weights] = {}
        initial = parameters(self.model)
        self._shape = Shape.of(initial)
        plan = plan_round(study, tuple(patients), initial, initial, 1)
        plan = plan.model_copy(update={"num_sums": asked_sums(study)})
        if plan.channel.sums == "reals":  # as updates in the open: encryption changes the 8th digit only
            plan = plan.model_copy(update={"channel": PLAIN})
        self._plan, self._names = plan, sorted(patients)

    def one_round(
        self, base: Weights, evaluated: Weights, server_round: int
    ) -> tuple[Weights, NoisedFigures | None, int]:
        """The next global weights, noised figures of `evaluated` where the study asks for them, and bytes uploaded."""
        plan = self._plan.model_copy(update=of_round(base, evaluated, server_round))
        if plan.channel.exact:
            return self._masked(plan, base, evaluated)
        mean, num_bytes = self.strategy.combiner(base), 0
        for site in self._names:
            num_bytes += self._add(site, mean, plan, base, evaluated)
        return self._advanced(base, mean.mean(), server_round), None, num_bytes

    def _advanced(self, base: Weights, mean: Weights, server_round: int) -> Weights:
        weights, self.state = advance(self.strategy, base, mean, self.state, At(server_round))
        return weights

    def personalised(self, weights: Weights, server_round: int) -> dict[str, Weights]:
        """Each site's own model after a round with these global weights; none where the strategy has no such."""
        if self.study.strategy.keeps_layers:
            return {site: self.strategy.local(weights, state.control) for site, state in self.states.items()}
        if not self.study.strategy.personal:
            return {}
        plan = self._plan.model_copy(update={"server_round": server_round})
        for site, patients in self.patients.items():
            own = self.personal.get(site)
            self.personal[site] = personal_model(self.task, self.model, patients, plan, weights, own)
        return dict(self.personal)

    def _add(self, site: str, mean: Combiner, plan: Plan, base: Weights, evaluated: Weights) -> int:
        """One site's part of the mean, and its length in bytes; nothing else of it is left."""
        raw = self._train(site, plan, base, evaluated)
        body = self._release(site, raw, plan, base)
        update = codec_of(plan, mean.shape).read(body, site)
        mean.add(update, weight_of(plan.training.weighting, raw.num_examples, raw.local_iterations))
        return len(body)

    def _train(self, site: str, plan: Plan, base: Weights, evaluated: Weights) -> RawUpdate:
        state = self.states.get(site, SiteState())._replace(hub=self.state)
        raw = local_update(self.task, self.model, self.patients[site], plan, base, evaluated, state)
        self.states[site] = SiteState(raw.optimizer_state, raw.control)
        return raw

    def _release(self, site: str, raw: RawUpdate, plan: Plan, base: Weights) -> bytearray:
        sent = self.strategy.sent(base)
        release = sanitize(
            raw, sent, plan, releases=plan.server_round, noise=self.noise, carried=self.residuals.get(site)
        )
        if release.residual is not None:
            self.residuals[site] = release.residual
        return bytearray(release.body)

    def _masked(self, plan: Plan, base: Weights, evaluated: Weights) -> tuple[Weights, NoisedFigures | None, int]:
        """Masks cancel to the last bit, so a simulation adds the contributions without them."""
        plan_spend(plan, plan.server_round)
        total = np.zeros(num_values(plan, self._shape), dtype=np.int64)
        weights = [self._contribute(site, total, plan, base, evaluated) for site in self._names]
        opened = interpret(total, plan, base, weights)
        masked = to_bytes({"masked": torch.from_numpy(total.view(np.uint64))})
        return (
            self._advanced(base, opened.delta, plan.server_round),
            noised_figures(opened, self.task, plan, len(weights)),
            len(weights) * len(masked),
        )

    def _contribute(
        self, site: str, total: npt.NDArray[np.int64], plan: Plan, base: Weights, evaluated: Weights
    ) -> float:
        """Add one site's part of the masked sum; gives its weight."""
        raw = self._train(site, plan, base, evaluated)
        total += contribution(raw, base, plan, sites=len(self._names), noise=self.noise).values
        return weight_of(plan.training.weighting, raw.num_examples, raw.local_iterations)
