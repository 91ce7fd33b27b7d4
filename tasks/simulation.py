"""All rounds of a study in one process, with the functions that the scheduled steps call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import torch
from torch import nn

from tasks.aggregation import Shape, StreamingMean, add_to, running_mean, weight_of
from tasks.evaluation import auc, log_loss
from tasks.models import build_model
from tasks.privacy.sanitizer import sanitize
from tasks.records import ModelRef, Plan
from tasks.site.prepared import Patients
from tasks.study import NoPrivacy, Study, Training
from tasks.tensors import Weights, parameters, set_parameters, sha256, to_bytes
from tasks.training import train_local


@dataclass(frozen=True)
class SimulatedRound:
    """One round's model, iterate and evaluated (they differ once iterates are averaged)."""

    server_round: int
    weights: Weights
    evaluated: Weights


def simulate(study: Study, patients: Mapping[str, Patients], rounds: int, *, secret: bytes) -> Iterator[SimulatedRound]:
    """Run `rounds` rounds over every site.

    Args:
        study: what to run; its seed decides initial weights and batch order.
        patients: each site's arrays, as `tasks.site.prepared` makes them.
        rounds: how many rounds, from the initial model.
        secret: 32 bytes that stand for every site's noise key, so that a run can be repeated.
    """
    model = _new_model(study)
    weights = evaluated = parameters(model)
    averaged = 0
    for server_round in range(1, rounds + 1):
        weights = _one_round(study, model, weights, patients, server_round, secret)
        in_second_half = 2 * server_round > study.rounds.total
        if study.training.average_iterates == "none" or not in_second_half:
            evaluated = weights
        else:
            evaluated = running_mean(evaluated, averaged, weights) if averaged else weights
            averaged += 1
        yield SimulatedRound(server_round, weights, evaluated)


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
    return study.model_copy(update={"privacy": open_, "training": training})


def _one_round(
    study: Study, model: nn.Module, base: Weights, patients: Mapping[str, Patients], server_round: int, secret: bytes
) -> Weights:
    plan = _plan(study, tuple(patients), base, server_round)
    mean = StreamingMean(Shape.of(base))
    for site in sorted(patients):
        set_parameters(model, base)
        raw = train_local(
            model,
            patients[site].train_inputs,
            patients[site].train_labels,
            study.training,
            study.privacy,
            seed=study.training.seed * 1_000_003 + server_round,
        )
        release = sanitize(raw, base, plan, site=site, releases=server_round, secret=secret)
        flat = torch.cat([tensor.flatten() for tensor in release.tensors.values()])
        mean.add(flat, weight_of(study.training.weighting, raw.num_examples, raw.local_iterations))
    return add_to(base, mean.mean())


def _plan(study: Study, sites: tuple[str, ...], base: Weights, server_round: int) -> Plan:
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
        base_model=ModelRef(server_round=server_round - 1, key="", sha256=sha256(to_bytes(base))),
        training=study.training,
        privacy=study.privacy,
        evaluation=study.evaluation,
        total_rounds=study.rounds.total,
    )


def _new_model(study: Study) -> nn.Module:
    return build_model(study.model.path, len(study.inputs), study.model.options, seed=study.training.seed)
