"""Strategies in whole simulated rounds: what they do to training, to poisoned sites, and to what is kept."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tasks.data.reading.patients import Patients
from tasks.learning.flat import flatten
from tasks.simulation.baselines import pooled
from tasks.simulation.rounds import simulate
from tasks.store.weights import to_bytes
from tasks.study.sections import Study
from tests.simulation.simulation_samples import FEW, NONE, flat, initial, last_round, noise, study_with


def with_strategy(study: Study, name: str, **settings: Any) -> Study:
    rounds = {"min_sites": len(FEW)}
    training = {"lr": 0.1, "batch_size": 8, "local_iterations": 4, "weighting": "plain", "average_iterates": "none"}
    open_ = study_with(study, privacy=NONE, channel="plain", rounds=rounds, training=training)
    content = open_.model_dump(by_alias=True, exclude_unset=True)
    return Study.model_validate(content | {"strategy": {"name": name} | settings})


@pytest.fixture
def few(cohorts: list[dict[str, Patients]]) -> dict[str, Patients]:
    return {site: cohorts[0][site] for site in FEW}


def steps(study: Study, patients: dict[str, Patients], rounds: int = 3) -> list[np.ndarray]:
    return [flat(made.weights) for made in simulate(study, patients, rounds, noise=noise(0))]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("fed_avg_m", {"momentum": 0.0}),
        ("fed_prox", {"mu": 1e-12}),
        ("trimmed_mean", {"trim": 0}),
    ],
)
def test_with_nothing_to_do_it_is_the_mean(
    study: Study, few: dict[str, Patients], name: str, settings: dict[str, Any]
) -> None:
    plain = steps(with_strategy(study, "fed_avg"), few)
    np.testing.assert_allclose(steps(with_strategy(study, name, **settings), few), plain, atol=1e-5)


def test_a_strong_proximal_term_holds_sites_at_their_base(study: Study, few: dict[str, Patients]) -> None:
    start = flat(initial(study))
    lengths = [
        np.linalg.norm(steps(with_strategy(study, "fed_prox", mu=mu), few, 1)[0] - start) for mu in (0.001, 1.0, 8.0)
    ]
    assert lengths[0] > lengths[1] > lengths[2]


def test_one_local_step_is_the_same_with_a_proximal_term(study: Study, few: dict[str, Patients]) -> None:
    """Which is why such a study is refused: the term's gradient is zero at the base."""
    other = with_strategy(study, "fed_prox", mu=100)
    single = other.model_copy(update={"training": other.training.model_copy(update={"local_iterations": 1})})
    plain = single.model_copy(update={"strategy": with_strategy(study, "fed_avg").strategy})
    np.testing.assert_array_equal(steps(single, few), steps(plain, few))


def test_the_first_round_of_scaffold_is_that_of_the_mean_and_the_second_is_not(
    study: Study, few: dict[str, Patients]
) -> None:
    """With all control variates at zero there is nothing to correct."""
    plain, corrected = (steps(with_strategy(study, name), few, 2) for name in ("fed_avg", "scaffold"))
    np.testing.assert_allclose(corrected[0], plain[0], atol=1e-6)
    assert np.abs(corrected[1] - plain[1]).max() > 1e-4


def test_scaffold_finds_the_common_optimum_where_the_mean_of_long_local_trainings_does_not(
    study: Study, few: dict[str, Patients]
) -> None:
    """Sites with labels turned at two of five differ much; the optimum is where single full-batch steps end."""
    turned = {
        site: replace(own, train_labels=1 - own.train_labels) if site in FEW[:2] else own for site, own in few.items()
    }
    many = {"lr": 0.3, "batch_size": "full", "local_iterations": 10, "l2": 0.1}

    def distance(name: str) -> float:
        own = with_strategy(study, name)
        long = own.model_copy(update={"training": own.training.model_copy(update=many)})
        single = own.model_copy(
            update={
                "training": own.training.model_copy(update=many | {"local_iterations": 1}),
                "strategy": with_strategy(study, "fed_avg").strategy,
            }
        )
        best = flat(last_round(single, turned, 200).weights)
        return float(np.linalg.norm(flat(last_round(long, turned, 60).weights) - best))

    assert distance("scaffold") < 0.2 * distance("fed_avg")


def test_it_sends_two_vectors(study: Study, few: dict[str, Patients]) -> None:
    plain, corrected = (
        next(simulate(with_strategy(study, name), few, 1, noise=noise(0))) for name in ("fed_avg", "scaffold")
    )
    values = 4 * len(flat(plain.weights)) * len(few)
    assert corrected.num_bytes - plain.num_bytes >= values
    assert set(corrected.weights) == set(plain.weights)


@pytest.mark.parametrize("name", ["fed_avg_m", "fed_adam", "fed_yogi", "fed_adagrad"])
def test_two_simulations_of_a_study_do_not_share_what_the_hub_keeps(
    study: Study, few: dict[str, Patients], name: str
) -> None:
    own = with_strategy(study, name)
    first, second = ([to_bytes(made.weights) for made in simulate(own, few, 3, noise=noise(0))] for _ in range(2))
    assert first == second
    assert len(set(first)) == 3


def test_baselines_take_the_mean_whatever_the_study_s_strategy(study: Study, few: dict[str, Patients]) -> None:
    krum, plain = with_strategy(study, "krum", byzantine=1), with_strategy(study, "fed_avg")
    found = [next(pooled(each, few, 1)).weights for each in (krum, plain)]
    assert torch.equal(flatten(found[0]), flatten(found[1]))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("median", {}),
        ("trimmed_mean", {"trim": 1}),
        ("krum", {"byzantine": 1}),
        ("multi_krum", {"byzantine": 1, "keep": 2}),
    ],
)
def test_a_site_whose_labels_are_turned_moves_a_robust_model_less_than_the_mean(
    study: Study, cohorts: list[dict[str, Patients]], name: str, settings: dict[str, Any]
) -> None:
    few = {site: cohorts[0][site] for site in FEW}
    bad = few[FEW[0]]
    turned = few | {FEW[0]: replace(bad, train_inputs=bad.train_inputs * 4, train_labels=1 - bad.train_labels)}

    def moved(own: Study) -> float:
        return float(np.linalg.norm(flat(last_round(own, few, 3).weights) - flat(last_round(own, turned, 3).weights)))

    assert moved(with_strategy(study, name, **settings)) < moved(with_strategy(study, "fed_avg"))
