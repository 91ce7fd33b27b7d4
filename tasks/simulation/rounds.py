"""All rounds of a study in one process, with the functions that the scheduled steps call.

One site's update is in memory at a time: what grows with the number of sites is only what the sites themselves keep
between rounds, where the study says so (optimizer state, error feedback).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tasks.data.patients import Patients
from tasks.learning.averaging import Shape, StreamingMean, add_to, averages, read_update, running_mean, weight_of
from tasks.learning.building import build_model, checked_model
from tasks.learning.evaluation import auc, log_loss, predict
from tasks.learning.training import RawUpdate
from tasks.privacy.noise.source import NoiseSource
from tasks.privacy.opened import interpret, num_values, private_auc
from tasks.privacy.sanitizer import contribution, plan_spend, sanitize
from tasks.rounds.site.local_update import local_update
from tasks.store.records import ModelRef, Plan, PrivateAuc
from tasks.store.weights import Weights, parameters, set_parameters, sha256, to_bytes
from tasks.study.privacy import NoPrivacy
from tasks.study.sections import Study, Training


@dataclass(frozen=True)
class SimulatedRound:
    """One round's model, iterate and evaluated (they differ once iterates are averaged).

    num_bytes: tensors that all sites upload in it; under encryption those of the updates before they are encrypted.
    """

    server_round: int
    weights: Weights
    evaluated: Weights
    private_auc: PrivateAuc | None = None
    num_bytes: int = 0


def simulate(
    study: Study, patients: Mapping[str, Patients], rounds: int, *, noise: NoiseSource
) -> Iterator[SimulatedRound]:
    """Run `rounds` rounds over every site.

    Args:
        study: what to run; its seed decides initial weights and batch order.
        patients: each site's arrays, as `tasks.data.patients` makes them.
        rounds: how many rounds, from the initial model.
        noise: where all sites' noise comes from; `SeededNoise` makes a run that can be repeated.

    Raises:
        ConfigError: no round can be made of the study's model. BudgetExhausted: at the first round that the budget
            does not pay for. PrivacyError: an update is not finite.
    """
    sites = SimulatedSites(study, patients, noise)
    weights = evaluated = parameters(sites.model)
    averaged = 0
    for server_round in range(1, rounds + 1):
        weights, quality, num_bytes = sites.one_round(weights, evaluated, server_round)
        if not averages(study.training, server_round, study.rounds.total):
            evaluated = weights
        else:
            evaluated = running_mean(evaluated, averaged, weights) if averaged else weights
            averaged += 1
        yield SimulatedRound(server_round, weights, evaluated, quality, num_bytes)


def score(study: Study, weights: Weights, patients: Mapping[str, Patients]) -> tuple[float | None, float | None]:
    """AUC and log-loss over the held-out patients of all sites together. Raises DataError: a logit is not finite."""
    model = _new_model(study)
    set_parameters(model, weights)
    logits = np.concatenate([predict(model, p.held_out_inputs) for p in patients.values()])
    labels = np.concatenate([p.held_out_labels.numpy() for p in patients.values()])
    return auc(logits, labels), log_loss(logits, labels)


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
    """The same study, trained as `training` says and sharing raw updates: the yardstick for the others."""
    open_ = NoPrivacy(mechanism="none", i_accept_no_privacy=True)
    uncounted = study.evaluation.model_copy(update={"score_bins": None})
    return study.model_copy(
        update={"privacy": open_, "aggregation": "plain", "training": training, "evaluation": uncounted}
    )


class SimulatedSites:
    """Every site of a study, with what each keeps between rounds: optimizer state and error feedback."""

    def __init__(self, study: Study, patients: Mapping[str, Patients], noise: NoiseSource) -> None:
        self.study, self.patients, self.noise = study, patients, noise
        self.model = checked_model(study)
        self.states: dict[str, Weights] = {}
        self.residuals: dict[str, torch.Tensor] = {}
        initial = parameters(self.model)
        self._shape = Shape.of(initial)
        plan = plan_round(study, tuple(patients), initial, initial, 1)
        if plan.aggregation == "ckks":  # encryption changes the 8th digit only
            plan = plan.model_copy(update={"aggregation": "plain"})
        self._plan, self._names = plan, sorted(patients)

    def one_round(self, base: Weights, evaluated: Weights, server_round: int) -> tuple[Weights, PrivateAuc | None, int]:
        """The next global weights, the private AUC of `evaluated` where the study asks for one, and bytes uploaded."""
        plan = self._plan.model_copy(update=_of_round(base, evaluated, server_round))
        if plan.aggregation == "masks":
            return self._masked(plan, base, evaluated)
        mean, num_bytes = StreamingMean(self._shape), 0
        for site in self._names:
            num_bytes += self._add(site, mean, plan, base, evaluated)
        return add_to(base, mean.mean()), None, num_bytes

    def _add(self, site: str, mean: StreamingMean, plan: Plan, base: Weights, evaluated: Weights) -> int:
        """One site's part of the mean, and its length in bytes; nothing else of it is left."""
        raw = self._train(site, plan, base, evaluated)
        body = self._release(site, raw, plan, base)
        update = read_update(body, plan, mean.shape, site)
        mean.add(update, weight_of(plan.training.weighting, raw.num_examples, raw.local_iterations))
        return len(body)

    def _train(self, site: str, plan: Plan, base: Weights, evaluated: Weights) -> RawUpdate:
        raw = local_update(self.model, self.patients[site], plan, base, evaluated, self.states.get(site))
        if raw.optimizer_state is not None:
            self.states[site] = raw.optimizer_state
        return raw

    def _release(self, site: str, raw: RawUpdate, plan: Plan, base: Weights) -> bytearray:
        release = sanitize(
            raw, base, plan, releases=plan.server_round, noise=self.noise, carried=self.residuals.get(site)
        )
        if release.residual is not None:
            self.residuals[site] = release.residual
        return bytearray(release.body)

    def _masked(self, plan: Plan, base: Weights, evaluated: Weights) -> tuple[Weights, PrivateAuc | None, int]:
        """Masks cancel to the last bit, so a simulation adds the contributions without them."""
        plan_spend(plan, plan.server_round)
        total = np.zeros(num_values(plan, self._shape), dtype=np.int64)
        weights = [self._contribute(site, total, plan, base, evaluated) for site in self._names]
        opened = interpret(total, plan, base, weights)
        masked = to_bytes({"masked": torch.from_numpy(total.view(np.uint64))})
        return add_to(base, opened.delta), private_auc(opened, plan, len(weights)), len(weights) * len(masked)

    def _contribute(
        self, site: str, total: npt.NDArray[np.int64], plan: Plan, base: Weights, evaluated: Weights
    ) -> float:
        """Add one site's part of the masked sum; gives its weight."""
        raw = self._train(site, plan, base, evaluated)
        total += contribution(raw, base, plan, sites=len(self._names), noise=self.noise).values
        return weight_of(plan.training.weighting, raw.num_examples, raw.local_iterations)


def plan_round(study: Study, sites: tuple[str, ...], base: Weights, evaluated: Weights, server_round: int) -> Plan:
    """The plan that the hub would write for a round over these sites, as far as a site's functions read it."""
    now = datetime.now(UTC)
    return Plan(
        study=study.study,
        study_digest=study.digest,
        run_id="simulation",
        opened_at=now,
        deadline=now,
        sites=sites,
        min_sites=len(sites),
        strict=True,
        training=study.training,
        privacy=study.privacy,
        aggregation=study.aggregation,
        evaluation=study.evaluation,
        total_rounds=study.rounds.total,
        **_of_round(base, evaluated, server_round),
    )


def _of_round(base: Weights, evaluated: Weights, server_round: int) -> dict[str, Any]:
    """What of a plan differs from round to round."""
    base_model = _ref(base, server_round - 1)
    return {
        "server_round": server_round,
        "base_model": base_model,
        "evaluated_model": base_model if evaluated is base else _ref(evaluated, server_round - 1),
    }


def _ref(weights: Weights, server_round: int) -> ModelRef:
    return ModelRef(server_round=server_round, key="", sha256=sha256(to_bytes(weights)))


def _new_model(study: Study) -> nn.Module:
    """The study's model, where its class has been looked at already, if need be for another mechanism."""
    return build_model(study.model.path, len(study.inputs), study.model.options, seed=study.training.seed)
