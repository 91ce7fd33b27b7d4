"""Poisoned sites do what they say, an unpoisoned run is a plain one, and the table says what was found."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tasks.data.reading.patients import Patients
from tasks.learning.flat import flatten, norm
from tasks.privacy.noise.source import SeededNoise
from tasks.simulation.data import SiteArrays
from tasks.simulation.experiments import robustness
from tasks.simulation.experiments.plan import OPEN
from tasks.simulation.experiments.robustness import (
    ATTACKS,
    DEFENCES,
    NORM_BOUND,
    Attack,
    Outcome,
    PoisonedRun,
    PoisonedSites,
)
from tasks.simulation.rounds import rounds_of, simulate
from tasks.simulation.runs import changed
from tasks.store.settings import PROJECT
from tasks.store.weights import to_bytes
from tasks.study.file import load_study
from tasks.study.sections import Study
from tests.simulation.simulation_samples import FEW, flat

UPDATE = {"a": torch.tensor([3.0, -4.0]), "b": torch.tensor([[0.0]])}


@pytest.fixture(scope="module")
def plain_study() -> Study:
    study = load_study(PROJECT / "studies" / "xanomeline_derm56.yaml")
    return changed(study, OPEN | {"training.weighting": "plain"})


@pytest.fixture
def few(cohorts: list[dict[str, Patients]]) -> dict[str, Patients]:
    return {site: cohorts[0][site] for site in FEW}


def test_the_opposite_is_as_long_as_the_bound_allows() -> None:
    sent = robustness.turn_round(UPDATE)
    assert norm(flatten(sent)) == pytest.approx(NORM_BOUND, rel=2e-3)
    assert norm(flatten(sent)) < NORM_BOUND
    assert torch.allclose(sent["a"] / UPDATE["a"], torch.full((2,), -0.999 * NORM_BOUND / 5))
    assert torch.equal(robustness.turn_round({"a": torch.zeros(2)})["a"], torch.zeros(2)), "of nothing it is nothing"


def test_what_poisons_patients_leaves_those_that_are_held_out(few: dict[str, Patients]) -> None:
    own = few[FEW[0]]
    flipped, planted = robustness.flip_labels(own, 8), robustness.plant_backdoor(own, 8)
    assert torch.equal(flipped.train_labels + own.train_labels, torch.ones_like(own.train_labels))
    count = len(own.train_labels)
    assert torch.equal(planted.train_inputs[:count], own.train_inputs)
    assert torch.equal(planted.train_labels[count:], torch.ones(count))
    assert (planted.train_inputs[count:, 8] == robustness.EXTREME).all()
    assert torch.equal(planted.train_inputs[count:, :8], own.train_inputs[:, :8])
    for made in (flipped, planted):
        assert torch.equal(made.held_out_inputs, own.held_out_inputs)
        assert torch.equal(made.held_out_labels, own.held_out_labels)


@pytest.mark.parametrize("bound", [False, True])
def test_without_poison_it_is_the_simulation_to_the_last_byte(
    plain_study: Study, few: dict[str, Patients], *, bound: bool
) -> None:
    sites = PoisonedSites(plain_study, few, frozenset(), Attack(), bound=bound)
    plain = simulate(plain_study, few, 2, noise=SeededNoise(bytes(32)))
    assert [to_bytes(made.weights) for made in rounds_of(sites, 2)] == [to_bytes(made.weights) for made in plain]


def test_an_update_beyond_the_bound_is_as_a_site_that_is_not_there(
    plain_study: Study, few: dict[str, Patients]
) -> None:
    lie = frozenset({FEW[0]})
    sites = PoisonedSites(plain_study, few, lie, ATTACKS["scaling"], bound=True)
    others = {site: own for site, own in few.items() if site not in lie}
    alone = next(simulate(plain_study, others, 1, noise=SeededNoise(bytes(32))))
    assert to_bytes(next(rounds_of(sites, 1)).weights) == to_bytes(alone.weights)
    unbounded = PoisonedSites(plain_study, few, lie, ATTACKS["scaling"], bound=False)
    assert abs(flat(next(rounds_of(unbounded, 1)).weights)).max() > 3 * abs(flat(alone.weights)).max()


def test_more_poisoned_sites_are_the_same_and_some_more(
    plain_study: Study, arrays: dict[str, SiteArrays], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    class Seen(PoisonedSites):
        def __init__(
            self, study: Study, patients: object, poisoned: frozenset[str], *rest: object, bound: bool
        ) -> None:
            seen.append(poisoned)
            super().__init__(study, patients, poisoned, *rest, bound=bound)  # type: ignore[arg-type]

    monkeypatch.setattr(robustness, "PoisonedSites", Seen)
    monkeypatch.setattr(robustness, "ROUNDS", 1)
    study = load_study(PROJECT / "studies" / "xanomeline_derm56.yaml")
    for poisoned in (0, 1, 2, 3):
        found = robustness.outcome(study, arrays, PoisonedRun("`median`", "label flip", poisoned, 1))
        assert 0 <= found.auc <= 1
        assert 0 <= found.taken_in <= 1
    assert [len(each) for each in seen] == [0, 1, 2, 3]
    assert seen[0] < seen[1] < seen[2] < seen[3]


def test_the_table_has_a_column_a_defence_and_means_over_seeds() -> None:
    jobs = list(robustness.jobs(2))
    assert len(jobs) == len(set(jobs)) == len(DEFENCES) * 2 * (1 + len(ATTACKS) * 3)
    found = {job: Outcome(0.5 + 0.1 * job.seed + 0.01 * job.poisoned, 0.25 * job.poisoned) for job in jobs}
    lines = robustness.table(found).splitlines()
    assert len(lines) == 2 + 1 + len(ATTACKS) * 3
    assert lines[0].startswith("| attack, sites | `fed_avg` | `fed_avg`, norm bound | `median` |")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[2], lines[3], lines[-1])]
    assert [row[:2] for row in cells] == [
        ["none, 0", ".550 (0%)"],
        ["sign flip, 1", ".560"],
        ["backdoor, 3", ".580 (75%)"],
    ]
    assert {len(row) for row in cells} == {1 + len(DEFENCES)}


def test_every_defence_is_a_strategy_that_thirteen_sites_can_have(plain_study: Study) -> None:
    for section, _ in DEFENCES.values():
        own = changed(plain_study, {"strategy": section, "rounds.min_sites": 13})
        assert own.strategy.fewest_sites <= len(own.sites) == 13


def test_an_attack_changes_what_a_site_sends_or_trains_on(plain_study: Study, few: dict[str, Patients]) -> None:
    def first(attack: Attack) -> bytes:
        sites = PoisonedSites(plain_study, few, frozenset({FEW[0]}), attack, bound=False)
        return to_bytes(next(rounds_of(sites, 1)).weights)

    assert len({first(attack) for attack in (Attack(), *ATTACKS.values())}) == 1 + len(ATTACKS)
    assert first(replace(ATTACKS["scaling"], sends=lambda update: update)) == first(Attack())
