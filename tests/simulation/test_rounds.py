"""What a simulation keeps between rounds, and that it is the same bytes twice."""

from __future__ import annotations

import hashlib
import weakref

import numpy as np
import pytest
import torch

from tasks.data.reading.patients import Patients
from tasks.learning.building import build_model
from tasks.learning.tasks import task_of
from tasks.learning.training import RawUpdate
from tasks.privacy.train_local import train_local
from tasks.rounds.site.local_update import local_update
from tasks.simulation import rounds as simulated
from tasks.simulation.reference import YARDSTICK
from tasks.simulation.rounds import pool, simulate, without_privacy
from tasks.store.weights import Weights, set_parameters, to_bytes
from tasks.study.sections import Study, Training
from tests.simulation.simulation_samples import EPOCHS, FEW, NONE, TOP, flat, initial, noise, study_with


def trained(study: Study, patients: Patients, weights: Weights, number: int, state: Weights | None = None) -> RawUpdate:
    """A site's raw update in round `number`, by hand."""
    model = build_model(study.model.path, len(study.inputs), study.model.options, seed=0)
    set_parameters(model, weights)
    arrays = (patients.train_inputs, patients.train_labels)
    return train_local(
        task_of(study.label), model, *arrays, study.training, study.privacy, seed=number, optimizer_state=state
    )


@pytest.mark.parametrize("error_feedback", [False, True])
def test_what_was_not_sent_is_added_to_the_next_round_where_the_study_says_so(
    study: Study, cohorts: list[dict[str, Patients]], error_feedback: bool
) -> None:
    """Three rounds of two sites, each of which sends the two largest of 23 components: by hand, in numpy."""
    few = {site: cohorts[0][site] for site in FEW[:2]}
    codec = TOP.model_copy(update={"error_feedback": error_feedback})
    sparse = study_with(study, privacy=NONE, codec=codec, channel="plain", training=Training.model_validate(EPOCHS))
    weights = initial(sparse)
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
    adam = study_with(study, privacy=NONE, channel="plain", training=training)
    weights = initial(adam)
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


@pytest.mark.parametrize("channel", ["plain", "masks"])
def test_one_update_is_in_memory_at_a_time(
    study: Study, cohorts: list[dict[str, Patients]], channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many sites there are: a site's raw update is gone before the next site trains."""
    updates: list[weakref.ref[RawUpdate]] = []
    most, trainings = 0, 0

    def watched(*arguments: object) -> RawUpdate:
        nonlocal most, trainings
        most, trainings = max(most, sum(update() is not None for update in updates)), trainings + 1
        raw = local_update(*arguments)
        updates.append(weakref.ref(raw))
        return raw

    monkeypatch.setattr(simulated, "local_update", watched)
    many = {f"{site}-{copy}": own for site, own in cohorts[0].items() for copy in range(5)}
    open_study = study_with(study, privacy=NONE, channel=channel, training=Training.model_validate(EPOCHS))
    assert len(list(simulate(open_study, many, 2, noise=noise(0)))) == 2
    assert trainings == 2 * 65
    assert most == 0
