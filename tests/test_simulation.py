"""Whole trainings on the real data: what federation costs, what privacy costs, and the same bytes twice.

Held-out sets are small (43 patients; sd of one AUC over seeds about .075), so figures are means over at least 20 seeds,
each with a split of its own, and comparisons are paired.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import BaseModel
from scipy.stats import chi2

from tasks.data.tables import read_tables
from tasks.errors import BudgetExhausted
from tasks.evaluation import auc_of_counts, count_scores
from tasks.features import build_inputs
from tasks.models import build_model
from tasks.privacy.accounting import noise_multiplier_for
from tasks.privacy.noise import SeededNoise
from tasks.reference import YARDSTICK, YARDSTICK_ROUNDS
from tasks.settings import PROJECT
from tasks.simulation import SimulatedRound, pool, score, simulate, without_privacy
from tasks.site.prepared import Patients, prepare_patients
from tasks.study import Aggregation, Study, Training
from tasks.study_file import load_study
from tasks.study_privacy import (
    PRIVACY_SECTIONS,
    Compression,
    DistributedDP,
    GaussianUpdate,
    LocalDP,
    NoPrivacy,
    Privacy,
    SparseVector,
)
from tasks.tensors import Weights, parameters, set_parameters, sha256, to_bytes
from tasks.training import RawUpdate, train_local

SEEDS = range(20)
PAIRED_SEEDS = 60
Tables = dict[str, pd.DataFrame]
#: Sites with enough patients to train on, for what does not need all of them.
FEW = ("701", "704", "708", "710", "716")
BUDGET = {"epsilon": 3, "delta": 1e-5}
PATIENT = BUDGET | {"clip_norm": 1, "public_num_examples": 211}
NONE = NoPrivacy(mechanism="none", i_accept_no_privacy=True)
TOP = Compression(mechanism="top", fraction=0.1, i_accept_no_privacy=True)
LOCAL = LocalDP.model_validate({"mechanism": "local_dp"} | PATIENT)
DISTRIBUTED = DistributedDP.model_validate({"mechanism": "distributed_dp"} | PATIENT)
GAUSSIAN = GaussianUpdate.model_validate({"mechanism": "gaussian_update", "clip_norm": 0.5} | BUDGET)
SVT = SparseVector.model_validate({"mechanism": "svt", "fraction": 0.1, "gamma": 0.1, "tau": 0.01} | BUDGET)
#: Two epochs in small batches, which differ in number from site to site.
EPOCHS = {"lr": 0.1, "batch_size": 8, "local_epochs": 2, "weighting": "plain"}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study(PROJECT / "studies" / "xanomeline_derm56.yaml")


@pytest.fixture(scope="module")
def sites(study: Study) -> dict[str, tuple[Tables, pd.DataFrame]]:
    """Each site's tables and inputs, read once: only the split changes with the seed."""
    found = {}
    for site in study.sites:
        tables = read_tables(PROJECT / study.data.root / site, study.data.tables, PROJECT / "expectations")
        found[site] = (tables, build_inputs(tables, study))
    return found


@pytest.fixture(scope="module")
def cohorts(study: Study, sites: dict[str, tuple[Tables, pd.DataFrame]]) -> list[dict[str, Patients]]:
    """One split of all sites per seed."""
    return [
        {site: prepare_patients(*own, seeded(study, seed), site) for site, own in sites.items()}
        for seed in range(PAIRED_SEEDS)
    ]


def changed(study: Study, *, evaluation: dict[str, int] | None = None, **parts: Any) -> Study:
    """The study with other parts, held to its rules; it counts no held-out patients unless `evaluation` says so."""
    content = study.model_dump(by_alias=True, exclude_unset=True)
    content["evaluation"].pop("score_bins", None)
    content["evaluation"] |= evaluation or {}
    for name, part in parts.items():
        whole = part.model_dump(exclude_unset=True) if isinstance(part, BaseModel) else part
        content[name] = {**content[name], **part} if isinstance(part, dict) else whole
    return Study.model_validate(content)


def flat(weights: Weights) -> np.ndarray:
    return np.concatenate([weights[name].numpy().ravel() for name in sorted(weights)])


def _initial(study: Study) -> Weights:
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
    auc, _ = score(study, last_round(study, trained_on, rounds, seed).evaluated, judged_on)
    assert auc is not None
    return auc


def told(what: str, values: list[float]) -> tuple[float, float]:
    """Mean and standard error, printed (`pytest -s`)."""
    mean, se = float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
    print(f"{what}: {mean:+.4f} ± {se:.4f} over {len(values)} seeds")
    return mean, se


@pytest.mark.slow
def test_federation_costs_nothing_without_privacy(study: Study, cohorts: list[dict[str, Patients]]) -> None:
    """At the number of epochs of the project's own yardstick; after it, pooled training overfits first.

    The standard error is .004: were there no difference, |mean| > .01 would come about for 2% of choices of the seeds;
    a loss of .02 would be found for 99%.
    """
    federated, pooled = [], []
    for seed, patients in enumerate(cohorts):
        open_study = without_privacy(study, YARDSTICK.model_copy(update={"seed": seed}))
        federated.append(auc_of(open_study, patients, patients, YARDSTICK_ROUNDS, seed))
        pooled.append(auc_of(open_study, {"pool": pool(patients)}, patients, YARDSTICK_ROUNDS, seed))
    told("AUC, FedAvg", federated)
    told("AUC, pooled", pooled)
    mean, se = told("AUC, FedAvg minus pooled", list(np.subtract(federated, pooled)))
    assert len(federated) == PAIRED_SEEDS
    assert abs(mean) <= 0.01
    assert se < 0.005, "so the comparison could have found a difference"
    assert np.mean(pooled) > 0.68


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mechanism", "epsilon", "least"),
    [
        ("distributed_dp", 1, 0.66),
        ("distributed_dp", 3, 0.67),
        ("distributed_dp", 8, 0.675),
        ("local_dp", 3, 0.65),
    ],
)
def test_patient_level_privacy_still_learns(
    study: Study, cohorts: list[dict[str, Patients]], mechanism: str, epsilon: float, least: float
) -> None:
    """What ships, and its fallback without masks."""
    privacy = (study.privacy if mechanism == "distributed_dp" else LOCAL).model_copy(update={"epsilon": epsilon})
    study = changed(study, privacy=privacy, aggregation="plain" if mechanism == "local_dp" else "masks")
    assert (study.privacy.mechanism, study.rounds.total) == (mechanism, 20)
    private = [
        auc_of(seeded(study, seed), patients, patients, 20, seed)
        for seed, patients in zip(SEEDS, cohorts, strict=False)
    ]
    mean, _ = told(f"AUC, {mechanism} at a total epsilon of {epsilon:g}", private)
    assert len(private) == 20
    assert mean >= least


#: Noise of the step of a round with K sites, as a multiple of sigma * C: (privacy, aggregation, formula).
NOISES: dict[str, tuple[Privacy, Aggregation, Callable[[Study, int], float]]] = {
    "local_dp": (LOCAL, "plain", lambda study, k: study.training.lr / 211 * np.sqrt(k)),
    "distributed_dp": (DISTRIBUTED, "masks", lambda study, k: study.training.lr / 211 * np.sqrt(k / (k - 2))),
    "gaussian_update": (GAUSSIAN, "plain", lambda study, k: 1 / np.sqrt(k)),
    "gaussian_update behind masks": (GAUSSIAN, "masks", lambda study, k: np.sqrt(k / (k - 2)) / k),
}


@pytest.mark.parametrize("case", NOISES)
def test_the_noise_of_a_round_is_what_the_budget_asks_for(
    study: Study, cohorts: list[dict[str, Patients]], case: str
) -> None:
    """End to end, over 40 noise seeds: a two-sided chi-square test with a false-alarm rate of 1e-6.

    A scale of 0.8 or 1.25 is rejected; with five sites that is less than what one lost and one colluding site take.
    """
    privacy, aggregation, formula = NOISES[case]
    private = changed(study, privacy=privacy, aggregation=aggregation)
    few = {site: cohorts[0][site] for site in FEW}
    runs = []
    for seed in range(40):
        (first,) = simulate(private, few, 1, noise=noise(seed))
        runs.append(torch.cat([w.double().flatten() for w in first.weights.values()]).numpy())
    weights = np.array(runs)
    assert weights.shape == (40, 23)
    assert not isinstance(privacy, NoPrivacy | Compression | SparseVector)
    sigma = noise_multiplier_for(privacy.epsilon, privacy.delta, private.rounds.total) * privacy.clip_norm
    sd = formula(private, len(few)) * sigma
    degrees = 39 * 23
    statistic = np.square((weights - weights.mean(axis=0)) / sd).sum()
    for scale, fits in ((0.8, False), (1.0, True), (1.25, False)):
        tail = min(chi2.cdf(statistic / scale**2, degrees), chi2.sf(statistic / scale**2, degrees))
        assert (2 * tail > 1e-6) == fits, scale


# what each mechanism does to a simulation


MECHANISMS: dict[str, tuple[Privacy, Aggregation]] = {
    "none": (NONE, "plain"),
    "none behind masks": (NONE, "masks"),
    "top": (TOP, "plain"),
    "random": (TOP.model_copy(update={"mechanism": "random", "error_feedback": True}), "plain"),
    "local_dp": (LOCAL, "plain"),
    "distributed_dp": (DISTRIBUTED, "masks"),
    "gaussian_update": (GAUSSIAN, "plain"),
    "gaussian_update behind masks": (GAUSSIAN, "masks"),
    "svt": (SVT, "plain"),
}


@pytest.mark.parametrize("case", MECHANISMS)
def test_two_rounds_of_every_mechanism(study: Study, cohorts: list[dict[str, Patients]], case: str) -> None:
    privacy, aggregation = MECHANISMS[case]
    few = {site: cohorts[0][site] for site in FEW}
    bins = {"score_bins": 5} if case == "distributed_dp" else {}
    private = changed(study, privacy=privacy, aggregation=aggregation, evaluation=bins)
    rounds = list(simulate(private, few, 2, noise=noise(0)))
    assert [r.server_round for r in rounds] == [1, 2]
    before = _initial(private)
    for r in rounds:
        assert r.weights.keys() == before.keys()
        assert all(torch.isfinite(w).all() and w.dtype == torch.float32 for w in r.weights.values())
        step = flat(r.weights) - flat(before)
        assert 0 < np.count_nonzero(step) <= (len(few) * 2 if case in ("top", "random", "svt") else 23)
        assert (r.private_auc is not None) == (case == "distributed_dp")
        before = r.weights


def test_every_mechanism_is_simulated() -> None:
    assert {privacy.mechanism for privacy, _ in MECHANISMS.values()} == set(PRIVACY_SECTIONS)


@pytest.mark.parametrize("weighting", ["plain", "iterations", "samples"])
def test_masks_change_nothing_of_a_sum(study: Study, cohorts: list[dict[str, Patients]], weighting: str) -> None:
    few = {site: cohorts[0][site] for site in FEW}
    training = Training.model_validate(EPOCHS | {"weighting": weighting})
    plain, masked = (
        list(simulate(changed(study, privacy=NONE, aggregation=a, training=training), few, 3, noise=noise(0)))
        for a in ("plain", "masks")
    )
    assert len(plain) == 3
    for one, other in zip(plain, masked, strict=True):
        np.testing.assert_allclose(flat(one.weights), flat(other.weights), rtol=0, atol=1e-6)
    assert np.abs(flat(plain[2].weights) - flat(plain[0].weights)).max() > 1e-3


def trained(study: Study, patients: Patients, weights: Weights, number: int, state: Weights | None = None) -> RawUpdate:
    """A site's raw update in round `number`, by hand."""
    model = build_model(study.model.path, len(study.inputs), study.model.options, seed=0)
    set_parameters(model, weights)
    arrays = (patients.train_inputs, patients.train_labels)
    return train_local(model, *arrays, study.training, study.privacy, seed=number, optimizer_state=state)


@pytest.mark.parametrize("error_feedback", [False, True])
def test_what_was_not_sent_is_added_to_the_next_round_where_the_study_says_so(
    study: Study, cohorts: list[dict[str, Patients]], error_feedback: bool
) -> None:
    """Three rounds of two sites, each of which sends the two largest of 23 components: by hand, in numpy."""
    few = {site: cohorts[0][site] for site in FEW[:2]}
    privacy = TOP.model_copy(update={"error_feedback": error_feedback})
    sparse = changed(study, privacy=privacy, aggregation="plain", training=Training.model_validate(EPOCHS))
    weights = _initial(sparse)
    kept = {site: np.zeros(23, dtype=np.float32) for site in few}
    without = 0
    for r in simulate(sparse, few, 3, noise=noise(0)):
        sent = {}
        for site, patients in few.items():
            fresh = flat(trained(sparse, patients, weights, r.server_round).tensors)
            update = fresh + kept[site]
            largest = np.argsort(-np.abs(update))[:2]
            without += set(largest) != set(np.argsort(-np.abs(fresh))[:2])
            sent[site] = np.where(np.isin(np.arange(23), largest), update, 0)
            kept[site] = (update - sent[site]) * error_feedback
        expected = flat(weights) + np.mean(list(sent.values()), axis=0)
        np.testing.assert_allclose(flat(r.weights), expected, rtol=1e-5, atol=1e-6)
        weights = r.weights
    assert (without > 0) == error_feedback, "what is carried over changes what is sent"


@pytest.mark.parametrize("kept", ["keep", "restart"])
def test_each_site_goes_on_with_its_own_optimizer_where_the_study_keeps_it(
    study: Study, cohorts: list[dict[str, Patients]], kept: str
) -> None:
    few = {site: cohorts[0][site] for site in FEW[:2]}
    training = Training.model_validate(EPOCHS | {"optimizer": "adam", "lr": 0.02, "optimizer_state": kept})
    adam = changed(study, privacy=NONE, aggregation="plain", training=training)
    weights = _initial(adam)
    states: dict[str, Weights | None] = dict.fromkeys(few)
    difference = 0.0
    for r in simulate(adam, few, 3, noise=noise(0)):
        raws = {site: trained(adam, p, weights, r.server_round, states[site]) for site, p in few.items()}
        if r.server_round == 2:
            restarted = [flat(trained(adam, p, weights, r.server_round).tensors) for p in few.values()]
            going_on = [flat(raw.tensors) for raw in raws.values()]
            difference = float(np.abs(np.mean(going_on, axis=0) - np.mean(restarted, axis=0)).max())
        states = {site: raw.optimizer_state for site, raw in raws.items()}
        expected = flat(weights) + np.mean([flat(raw.tensors) for raw in raws.values()], axis=0)
        np.testing.assert_allclose(flat(r.weights), expected, rtol=1e-5, atol=1e-6)
        weights = r.weights
    assert (difference > 1e-3) == (kept == "keep")


def test_the_private_auc_is_of_the_model_that_the_round_started_from(
    study: Study, cohorts: list[dict[str, Patients]]
) -> None:
    """At an epsilon of 100 the counts are nearly exact: the figure is within 5 of its own standard errors."""
    loud = DISTRIBUTED.model_copy(update={"epsilon": 100})
    training = {"lr": 10.0, "average_iterates": "none"}
    parts: dict[str, Any] = {"privacy": loud, "aggregation": "masks", "rounds": {"total": 3}, "training": training}
    private = changed(study, evaluation={"score_bins": 5}, **parts)
    before = _initial(private)
    for r in simulate(private, cohorts[0], 3, noise=noise(0)):
        assert r.private_auc is not None
        assert r.private_auc.model_sha256 == sha256(to_bytes(before))
        model = build_model(private.model.path, len(private.inputs), private.model.options, seed=0)
        set_parameters(model, before)
        counts = sum(count_scores(model, p.held_out_inputs, p.held_out_labels, 5) for p in cohorts[0].values())
        exact = auc_of_counts(np.asarray(counts, dtype=float), 0.0)
        assert exact is not None
        assert r.private_auc.standard_error < 0.1
        assert abs(r.private_auc.auc - exact[0]) <= 5 * r.private_auc.standard_error
        assert r.private_auc.num_examples == pytest.approx(43, abs=10)
        before = r.evaluated
    assert exact[0] > 0.55, "the models differ from the first, which knows nothing"


@pytest.mark.parametrize("privacy", [LOCAL, GAUSSIAN, SVT], ids=lambda privacy: privacy.mechanism)
def test_a_simulation_ends_with_the_budget(study: Study, cohorts: list[dict[str, Patients]], privacy: Privacy) -> None:
    few = {site: cohorts[0][site] for site in FEW[:1]}
    short = changed(study, privacy=privacy, aggregation="plain", rounds={"total": 2})
    made = simulate(short, few, 3, noise=noise(0))
    assert [next(made).server_round, next(made).server_round] == [1, 2]
    with pytest.raises(BudgetExhausted, match="release 3 is refused"):
        next(made)


def digests(study: Study, patients: dict[str, Patients], rounds: int, seed: int = 0) -> list[str]:
    made = simulate(study, patients, rounds, noise=noise(seed))
    return [hashlib.sha256(to_bytes(r.weights) + to_bytes(r.evaluated)).hexdigest() for r in made]


def test_a_simulation_can_be_repeated(study: Study, cohorts: list[dict[str, Patients]]) -> None:
    first = digests(study, cohorts[0], 3)
    assert digests(study, cohorts[0], 3) == first
    assert len(set(first)) == 3
    assert digests(study, cohorts[0], 3, seed=1)[0] != first[0], "another noise key"
    assert digests(study, cohorts[1], 3)[0] != first[0], "other patients"


def test_the_order_of_sites_does_not_matter(study: Study, cohorts: list[dict[str, Patients]]) -> None:
    backwards = dict(reversed(cohorts[0].items()))
    assert list(backwards) != list(cohorts[0])
    open_study = without_privacy(study, YARDSTICK)
    assert digests(open_study, backwards, 2) == digests(open_study, cohorts[0], 2)


def test_iterates_are_averaged_over_the_second_half(study: Study, cohorts: list[dict[str, Patients]]) -> None:
    short = study.model_copy(update={"rounds": study.rounds.model_copy(update={"total": 6})})
    rounds = list(simulate(short, cohorts[0], 6, noise=noise(0)))
    assert [r.server_round for r in rounds] == [1, 2, 3, 4, 5, 6]
    for early in rounds[:4]:
        assert to_bytes(early.evaluated) == to_bytes(early.weights)
    for name in rounds[0].weights:
        mean = torch.stack([r.weights[name] for r in rounds[3:]]).mean(dim=0)
        torch.testing.assert_close(rounds[5].evaluated[name], mean, rtol=1e-5, atol=1e-6)
        assert not torch.equal(rounds[5].weights[name], rounds[5].evaluated[name])


def test_pooling_keeps_every_patient(cohorts: list[dict[str, Patients]]) -> None:
    together = pool(cohorts[0])
    assert (len(together.train_labels), len(together.held_out_labels)) == (211, 43)
    assert float(together.train_labels.sum()) == sum(float(p.train_labels.sum()) for p in cohorts[0].values())
