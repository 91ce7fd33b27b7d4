"""Whole trainings on the real data: what federation costs, what privacy costs, and the same bytes twice.

Held-out sets are small (43 patients; sd of one AUC over seeds about .075), so figures are means over at least 20 seeds,
each with a split of its own, and comparisons are paired.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import chi2

from tasks.data.tables import read_tables
from tasks.features import build_inputs
from tasks.privacy.local_dp import LocalDPMechanism
from tasks.reference import YARDSTICK, YARDSTICK_ROUNDS
from tasks.settings import PROJECT
from tasks.simulation import SimulatedRound, pool, score, simulate, without_privacy
from tasks.site.prepared import Patients, prepare_patients
from tasks.study import LocalDP, Study, load_study
from tasks.tensors import to_bytes

SEEDS = range(20)
PAIRED_SEEDS = 60
Tables = dict[str, pd.DataFrame]


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


def seeded(study: Study, seed: int) -> Study:
    """The study with another split, other batches and other initial weights."""
    return study.model_copy(
        update={
            "evaluation": study.evaluation.model_copy(update={"split_seed": seed}),
            "training": study.training.model_copy(update={"seed": seed}),
        }
    )


def secret(seed: int) -> bytes:
    return hashlib.sha256(f"simulated noise key {seed}".encode()).digest()


def last_round(study: Study, patients: dict[str, Patients], rounds: int, seed: int = 0) -> SimulatedRound:
    *_, last = simulate(study, patients, rounds, secret=secret(seed))
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
def test_local_dp_at_epsilon_3_still_learns(study: Study, cohorts: list[dict[str, Patients]]) -> None:
    assert isinstance(study.privacy, LocalDP)
    assert (study.privacy.epsilon, study.rounds.total) == (3, 20)
    private = [
        auc_of(seeded(study, seed), patients, patients, 20, seed)
        for seed, patients in zip(SEEDS, cohorts, strict=False)
    ]
    mean, _ = told("AUC, local_dp at a total epsilon of 3", private)
    assert len(private) == 20
    assert mean >= 0.65


def test_the_noise_of_a_round_is_what_the_budget_asks_for(study: Study, cohorts: list[dict[str, Patients]]) -> None:
    """End to end, over 40 noise keys: a two-sided chi-square test with a false-alarm rate of 1e-6.

    Each of K sites adds sd sigma * C to its sum, and the step is lr / N times all of it. A scale of 0.8 or 1.25 is
    rejected.
    """
    assert isinstance(study.privacy, LocalDP)
    runs = []
    for seed in range(40):
        (first,) = simulate(study, cohorts[0], 1, secret=secret(seed))
        runs.append(torch.cat([w.double().flatten() for w in first.weights.values()]).numpy())
    weights = np.array(runs)
    assert weights.shape == (40, 23)
    sigma = LocalDPMechanism(study.privacy, study.rounds.total).noise_multiplier * study.privacy.clip_norm
    sd = study.training.lr / study.privacy.public_num_examples * np.sqrt(len(study.sites)) * sigma
    degrees = 39 * 23
    statistic = np.square((weights - weights.mean(axis=0)) / sd).sum()
    for scale, fits in ((0.8, False), (1.0, True), (1.25, False)):
        tail = min(chi2.cdf(statistic / scale**2, degrees), chi2.sf(statistic / scale**2, degrees))
        assert (2 * tail > 1e-6) == fits, scale


def digests(study: Study, patients: dict[str, Patients], rounds: int, seed: int = 0) -> list[str]:
    made = simulate(study, patients, rounds, secret=secret(seed))
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
    rounds = list(simulate(short, cohorts[0], 6, secret=secret(0)))
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
