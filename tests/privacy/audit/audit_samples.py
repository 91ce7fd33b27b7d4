"""A study to audit, and observers that release what a right or a faulty mechanism would.

They stand in for `tasks.privacy.audit.observe`: Gaussian noise on the exact sum of clipped gradients, at a tenth of the
time, with the faults that an audit must find.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch

from tasks.learning.arrays import Floats
from tasks.privacy.accounting import gdp_epsilon, noise_multiplier_for
from tasks.privacy.audit.adversary import Adversary
from tasks.privacy.audit.effort import Effort
from tasks.privacy.audit.observer import Observers, PatientGroups
from tasks.privacy.audit.patients import Audience, synthetic_patients
from tasks.privacy.audit.promise import promise_of
from tasks.privacy.audit.setting import AuditSetting
from tasks.store.records.ledger import Spend
from tasks.store.settings import PROJECT
from tasks.store.weights import Weights
from tasks.study.file import load_study
from tasks.study.privacy import DistributedDP
from tasks.study.sections import Study

ROUNDS = 10
EPSILON, DELTA, CLIP = 3.0, 1e-5, 1.0
SIGMA = noise_multiplier_for(EPSILON, DELTA, ROUNDS)
MU = 1 / SIGMA
SITES = ("701", "703", "704", "705")
#: Enough to find every fault below, in seconds.
QUICK = Effort(
    site_rounds=40 * ROUNDS * len(SITES), raw_draws=30, reconstruction_trials=6, raw_trials=3, starts=4, iterations=20
)
#: What goes wrong behind the ledger's back.
FAULTS: dict[str, dict[str, Any]] = {
    "noise halved": {"scale": 0.5},
    "noise in half of the coordinates": {"noisy": 0.5},
    "clipping left out": {"clip": False},
}


@cache
def sample_study() -> Study:
    """The default study with four sites, patient-level privacy of the masked sum."""
    study = load_study(PROJECT / "studies" / "xanomeline_derm56.yaml")
    privacy = DistributedDP(
        mechanism="distributed_dp", epsilon=EPSILON, delta=DELTA, clip_norm=CLIP, public_num_examples=211
    )
    sites = {site: study.sites[site] for site in SITES}
    return study.model_copy(update={"privacy": privacy, "sites": sites})


def sample_spend(**changes: Any) -> Spend:
    """One release of the default mechanism."""
    spend = Spend(
        mechanism="distributed_dp",
        unit="patient",
        neighbours="one patient more or less",
        noise_multiplier=SIGMA,
        clip_norm=CLIP,
        mu=MU,
        releases=1,
        epsilon=gdp_epsilon(MU, DELTA),
        delta=DELTA,
        epsilon_budget=EPSILON,
    )
    return spend.model_copy(update=changes)


def sample_patients(study: Study) -> Audience:
    return synthetic_patients(study, 240, seed=1)


def stand_in(study: Study, seed: int, *, scale: float = 1.0, noisy: float = 1.0, clip: bool = True) -> Observers:
    """Observers of a release with `scale` times the right noise, in a share `noisy` of the coordinates."""
    adversary, rng = Adversary(study), np.random.default_rng(seed)

    def raw(weights: Weights, groups: PatientGroups, server_round: int) -> Floats:
        inputs = torch.cat([group[0] for group in groups.values()])
        labels = torch.cat([group[1] for group in groups.values()])
        with torch.no_grad():
            rows = adversary.contributions(weights, inputs, labels)
            if not clip:
                directions = rows / rows.norm(dim=1, keepdim=True)
                rows = directions * torch.from_numpy(adversary.lengths(weights, inputs, labels))[:, None]
        total: Floats = rows.sum(dim=0).numpy()
        return total

    def released(weights: Weights, groups: PatientGroups, server_round: int) -> Floats:
        total = raw(weights, groups, server_round)
        noise = rng.standard_normal(total.size) * SIGMA * CLIP * scale
        noise[int(noisy * total.size) :] = 0
        return total + noise

    return Observers(raw, released)


def sample_setting(seed: int, **fault: Any) -> AuditSetting:
    """What the attacks share, over all rounds."""
    return replace(_setting(), observers=stand_in(sample_study(), seed, **fault))


@cache
def _setting() -> AuditSetting:
    study = sample_study()
    adversary, audience, spend = Adversary(study), sample_patients(study), sample_spend()
    return AuditSetting(
        adversary=adversary,
        observers=stand_in(study, 0),
        layered=None,
        audience=audience,
        models=tuple(adversary.models(audience.group, ROUNDS)),
        spend=spend,
        promise=promise_of(spend),
        effort=QUICK,
    )
