"""A simulation makes the very bytes that hub and sites make, from their tables to the model that is evaluated.

The scheduled steps run on a real object store, with masks where the study has them, and draw from one seeded noise that
a second one repeats for the simulation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tasks.privacy.noise.source import SeededNoise
from tasks.rounds.site import steps
from tasks.simulation.data import read_sites, split_sites
from tasks.simulation.rounds import SimulatedRound, simulate
from tasks.store import layout
from tasks.store.records.model import ModelCard
from tasks.store.weights import sha256, to_bytes
from tasks.study.file import load_study
from tests.rounds.hub.federation import NOCOMP, Federation
from tests.rounds.hub.masked_rounds import FIVE, MASKED

KEY = bytes(range(32))
ROUNDS = 3
#: What each site keeps between rounds, and noise without masks: of the second study's network and training.
KINDS: dict[str, dict[str, Any]] = {
    "optimizer kept": {"training": {"optimizer_state": "keep"}},
    "random, error feedback": {
        "privacy": {"mechanism": "random", "fraction": 0.4, "error_feedback": True, "i_accept_no_privacy": True}
    },
    "scaffold": {
        "strategy": {"name": "scaffold", "server_lr": 0.9},
        "training": {"optimizer": "sgd", "lr": 0.05, "weighting": "plain"},
    },
    "fed_adam, iterates averaged": {
        "strategy": {"name": "fed_adam"},
        "training": {"average_iterates": "second_half"},
        "rounds": {"total": ROUNDS},
    },
    "int8, coins and error feedback": {"codec": {"name": "int8", "block": 16, "rounding": "stochastic"}},
    "svt": {
        "privacy": {"mechanism": "svt", "epsilon": 3, "delta": 1e-5, "fraction": 0.1, "gamma": 0.1, "tau": 0.01},
        "rounds": {"total": ROUNDS},
    },
}


@pytest.fixture(autouse=True)
def _one_noise(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All sites draw from one source, one after the other; and no test leaves torch with another number of threads."""
    noise, threads = SeededNoise(KEY), torch.get_num_threads()
    monkeypatch.setattr(steps, "SystemNoise", lambda: noise)
    yield
    torch.set_num_threads(threads)


def simulated(fed: Federation, study: str, key: bytes = KEY) -> list[SimulatedRound]:
    torch.set_num_threads(1)
    own = fed.hub(study).study
    patients = split_sites(read_sites(own, fed.project), own.evaluation)
    return list(simulate(own, patients, ROUNDS, noise=SeededNoise(key)))


def run_round(fed: Federation, study: str, number: int) -> tuple[bytes, ModelCard, int]:
    """A round's model, its card and the bytes that were uploaded in it."""
    plan = fed.open(study, f"night-{number}")
    masked = plan.channel.name == "masks"
    assert (fed.masked_round if masked else fed.run_sites)(study, number) == {}
    selection = fed.aggregate(study, number)
    assert len(selection.chosen) == len(plan.sites)
    fed.close(study, number)
    card = fed.store().get_record(layout.card(study, number), ModelCard)
    return fed.store().get(layout.model(study, number)), card, sum(chosen.num_bytes for chosen in selection.chosen)


def compare(fed: Federation, study: str) -> list[SimulatedRound]:
    scheduled = [run_round(fed, study, number) for number in range(1, ROUNDS + 1)]
    found = simulated(fed, study)
    assert len(found) == ROUNDS
    for made, (model, card, num_bytes) in zip(found, scheduled, strict=True):
        assert to_bytes(made.weights) == model, f"round {made.server_round}"
        assert sha256(to_bytes(made.evaluated)) == card.evaluated_model.sha256
        assert made.noised == card.noised
        assert made.num_bytes == num_bytes
    assert len({model for model, *_ in scheduled}) == ROUNDS
    return found


def test_three_rounds_of_the_second_study(fed: Federation) -> None:
    """A neural network, Adam in batches of 8, weighted by iterations, at three of its sites."""
    compare(fed, fed.new_study(base=NOCOMP, sites=FIVE[:3]))


@pytest.mark.parametrize("case", KINDS)
def test_three_plain_rounds(fed: Federation, case: str) -> None:
    """On the first study's label: its data are checked already."""
    second = load_study(fed.project / "studies" / f"{NOCOMP}.yaml")
    parts = {"model": second.model.model_dump(), "privacy": second.privacy.model_dump()} | KINDS[case]
    own = second.training.model_dump(exclude_unset=True)
    parts["training"] = {"local_iterations": None, "average_iterates": "none"} | own | KINDS[case].get("training", {})
    compare(fed, fed.new_study(sites=FIVE[:3], **parts))


def test_three_masked_rounds(fed: Federation) -> None:
    """The default study: shares of noise, masks, noised counts, and iterates averaged in the second half."""
    parts = MASKED | {"rounds": {"total": ROUNDS, "min_sites": 4}}
    parts["privacy"] = MASKED["privacy"] | {"epsilon": 100}  # so loud that the counts are worth an AUC
    study = fed.new_study(sites=FIVE, **parts)
    found = compare(fed, study)
    assert to_bytes(found[2].evaluated) != to_bytes(found[2].weights)
    assert any(made.noised for made in found)
    other = simulated(fed, study, KEY[::-1])
    assert to_bytes(other[0].weights) != to_bytes(found[0].weights), "with another noise"
