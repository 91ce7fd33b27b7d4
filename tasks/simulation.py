"""All rounds of a study in one process, with the functions that the scheduled steps call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import torch
from torch import nn

from tasks.aggregation import Shape, StreamingMean, add_to, read_update, running_mean, weight_of
from tasks.evaluation import auc, log_loss
from tasks.masked_sum import interpret, num_values, private_auc
from tasks.models import build_model
from tasks.privacy.noise import NoiseSource
from tasks.privacy.sanitizer import contribution, plan_spend, sanitize
from tasks.records import ModelRef, Plan, PrivateAuc
from tasks.site.local_update import local_update
from tasks.site.prepared import Patients
from tasks.study import Study, Training
from tasks.study_privacy import NoPrivacy
from tasks.tensors import Weights, parameters, set_parameters, sha256, to_bytes
from tasks.training import RawUpdate


@dataclass(frozen=True)
class SimulatedRound:
    """One round's model, iterate and evaluated (they differ once iterates are averaged)."""

    server_round: int
    weights: Weights
    evaluated: Weights
    private_auc: PrivateAuc | None = None


def simulate(
    study: Study, patients: Mapping[str, Patients], rounds: int, *, noise: NoiseSource
) -> Iterator[SimulatedRound]:
    """Run `rounds` rounds over every site.

    Args:
        study: what to run; its seed decides initial weights and batch order.
        patients: each site's arrays, as `tasks.site.prepared` makes them.
        rounds: how many rounds, from the initial model.
        noise: where all sites' noise comes from; `SeededNoise` makes a run that can be repeated.
    """
    sites = SimulatedSites(study, patients, noise)
    weights = evaluated = parameters(_new_model(study))
    averaged = 0
    for server_round in range(1, rounds + 1):
        weights, private_auc = sites.one_round(weights, evaluated, server_round)
        in_second_half = 2 * server_round > study.rounds.total
        if study.training.average_iterates == "none" or not in_second_half:
            evaluated = weights
        else:
            evaluated = running_mean(evaluated, averaged, weights) if averaged else weights
            averaged += 1
        yield SimulatedRound(server_round, weights, evaluated, private_auc)


def score(study: Study, weights: Weights, patients: Mapping[str, Patients]) -> tuple[float | None, float | None]:
    """AUC and log-loss over the held-out patients of all sites together."""
    model = _new_model(study)
    set_parameters(model, weights)
    with torch.no_grad():
        logits = np.concatenate([model(p.held_out_inputs).double().numpy() for p in patients.values()])
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
        self.model = _new_model(study)
        self.states: dict[str, Weights | None] = {}
        self.residuals: dict[str, torch.Tensor | None] = {}

    def one_round(self, base: Weights, evaluated: Weights, server_round: int) -> tuple[Weights, PrivateAuc | None]:
        """The next global weights, and the private AUC of `evaluated` where the study asks for one."""
        plan = plan_round(self.study, tuple(self.patients), base, evaluated, server_round)
        raws = {site: self._train(site, plan, base, evaluated) for site in sorted(self.patients)}
        if plan.aggregation == "masks":
            return self._masked(raws, base, plan)
        mean = StreamingMean(Shape.of(base))
        plan = plan.model_copy(update={"aggregation": "plain"})  # encryption changes the 8th digit only
        for site, raw in raws.items():
            release = sanitize(
                raw, base, plan, releases=server_round, noise=self.noise, carried=self.residuals.get(site)
            )
            self.residuals[site] = release.residual
            update = read_update(bytearray(release.body), plan, mean.shape, site)
            mean.add(update, weight_of(plan.training.weighting, raw.num_examples, raw.local_iterations))
        return add_to(base, mean.mean()), None

    def _train(self, site: str, plan: Plan, base: Weights, evaluated: Weights) -> RawUpdate:
        state = self.states.get(site) if plan.training.optimizer_state == "keep" else None
        raw = local_update(self.model, self.patients[site], plan, base, evaluated, state)
        self.states[site] = raw.optimizer_state
        return raw

    def _masked(self, raws: dict[str, RawUpdate], base: Weights, plan: Plan) -> tuple[Weights, PrivateAuc | None]:
        """Masks cancel to the last bit, so a simulation adds the contributions without them."""
        plan_spend(plan, plan.server_round)
        total = np.zeros(num_values(plan, Shape.of(base)), dtype=np.int64)
        for raw in raws.values():
            total += contribution(raw, base, plan, sites=len(raws), noise=self.noise).values
        weights = [weight_of(plan.training.weighting, r.num_examples, r.local_iterations) for r in raws.values()]
        opened = interpret(total, plan, base, weights)
        return add_to(base, opened.delta), private_auc(opened, plan, len(raws))


def plan_round(study: Study, sites: tuple[str, ...], base: Weights, evaluated: Weights, server_round: int) -> Plan:
    """The plan that the hub would write for a round over these sites, as far as a site's functions read it."""
    now = datetime.now(UTC)
    return Plan(
        study=study.study,
        study_digest=study.digest,
        server_round=server_round,
        run_id="simulation",
        opened_at=now,
        deadline=now,
        sites=sites,
        min_sites=len(sites),
        strict=True,
        base_model=_ref(base, server_round - 1),
        evaluated_model=_ref(evaluated, server_round - 1),
        training=study.training,
        privacy=study.privacy,
        aggregation=study.aggregation,
        evaluation=study.evaluation,
        total_rounds=study.rounds.total,
    )


def _ref(weights: Weights, server_round: int) -> ModelRef:
    return ModelRef(server_round=server_round, key="", sha256=sha256(to_bytes(weights)))


def _new_model(study: Study) -> nn.Module:
    return build_model(study.model.path, len(study.inputs), study.model.options, seed=study.training.seed)
