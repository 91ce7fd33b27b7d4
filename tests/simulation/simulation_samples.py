"""The study, mechanisms and helpers that the tests of the simulation share."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from pydantic import BaseModel

from tasks.data.reading.patients import Patients
from tasks.learning.building import build_model
from tasks.privacy.noise.source import SeededNoise
from tasks.rounds.scores import score_held_out
from tasks.simulation.rounds import SimulatedRound, simulate
from tasks.store.weights import Weights, parameters
from tasks.study.codec import Top
from tasks.study.privacy import DistributedDP, GaussianUpdate, LocalDP, NoPrivacy, SparseVector
from tasks.study.sections import Study

#: Splits that there are: paired comparisons of small differences take all of them.
PAIRED_SEEDS = 60
#: Sites with enough patients to train on, for what does not need all of them.
FEW = ("701", "704", "708", "710", "716")
BUDGET = {"epsilon": 3, "delta": 1e-5}
PATIENT = BUDGET | {"clip_norm": 1, "public_num_examples": 211}
NONE = NoPrivacy(mechanism="none", i_accept_no_privacy=True)
TOP = Top(name="top", fraction=0.1)
LOCAL = LocalDP.model_validate({"mechanism": "local_dp"} | PATIENT)
DISTRIBUTED = DistributedDP.model_validate({"mechanism": "distributed_dp"} | PATIENT)
GAUSSIAN = GaussianUpdate.model_validate({"mechanism": "gaussian_update", "clip_norm": 0.5} | BUDGET)
SVT = SparseVector.model_validate({"mechanism": "svt", "fraction": 0.1, "gamma": 0.1, "tau": 0.01} | BUDGET)
#: Two epochs in small batches, which differ in number from site to site.
EPOCHS = {"lr": 0.1, "batch_size": 8, "local_epochs": 2, "weighting": "plain"}


def study_with(study: Study, *, evaluation: dict[str, int] | None = None, **parts: Any) -> Study:
    """The study with other parts, held to its rules; it counts no held-out patients unless `evaluation` says so."""
    content = study.model_dump(by_alias=True, exclude_unset=True)
    content["evaluation"].pop("score_bins", None)
    content["evaluation"] |= evaluation or {}
    for name, part in parts.items():
        whole = part.model_dump(exclude_unset=True) if isinstance(part, BaseModel) else part
        content[name] = {**content.get(name, {}), **part} if isinstance(part, dict) else whole
    return Study.model_validate(content)


def flat(weights: Weights) -> np.ndarray:
    return np.concatenate([weights[name].numpy().ravel() for name in sorted(weights)])


def initial(study: Study) -> Weights:
    return parameters(build_model(study.model.path, len(study.inputs), study.model.options, seed=study.training.seed))


def seeded(study: Study, seed: int) -> Study:
    """The study with another split, other batches and other initial weights."""
    return study.model_copy(
        update={
            "evaluation": study.evaluation.model_copy(update={"split_seed": seed}),
            "training": study.training.model_copy(update={"seed": seed}),
        }
    )


def noise(seed: int) -> SeededNoise:
    return SeededNoise(hashlib.sha256(f"simulated noise {seed}".encode()).digest())


def last_round(study: Study, patients: dict[str, Patients], rounds: int, seed: int = 0) -> SimulatedRound:
    *_, last = simulate(study, patients, rounds, noise=noise(seed))
    return last


def auc_of(
    study: Study, trained_on: dict[str, Patients], judged_on: dict[str, Patients], rounds: int, seed: int
) -> float:
    return score_held_out(study, last_round(study, trained_on, rounds, seed).evaluated, judged_on)["auc"]


def told(what: str, values: list[float]) -> tuple[float, float]:
    """Mean and standard error, printed (`pytest -s`)."""
    mean, se = float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
    print(f"{what}: {mean:+.4f} ± {se:.4f} over {len(values)} seeds")
    return mean, se
