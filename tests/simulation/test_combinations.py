"""Every mechanism with every channel, weighting, length of training, averaging and kind of model.

And every strategy with every mechanism, channel, weighting and length. Each combination is refused in words that name a
key of the study when it is read, or its model is before a patient is looked at; or it makes rounds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple, get_args

import pytest
import torch
from pydantic import ValidationError

from tasks.data.reading.patients import Patients
from tasks.errors import ConfigError
from tasks.learning.building import checked_model
from tasks.privacy.noise.source import SeededNoise
from tasks.simulation.rounds import simulate
from tasks.store.weights import parameters
from tasks.study import channels
from tasks.study.codec import CODEC_SECTIONS
from tasks.study.privacy import PRIVACY_SECTIONS
from tasks.study.sections import Study, Training
from tasks.study.strategy import STRATEGY_SECTIONS

BUDGET = {"epsilon": 3, "delta": 1e-5}
PATIENTS = BUDGET | {"clip_norm": 1.0, "public_num_examples": 60}
MECHANISMS: dict[str, dict[str, Any]] = {
    "none": {"i_accept_no_privacy": True},
    "local_dp": PATIENTS,
    "distributed_dp": PATIENTS,
    "gaussian_update": BUDGET | {"clip_norm": 1.0},
    "svt": BUDGET | {"fraction": 0.4, "gamma": 0.1, "tau": 0.01},
}
CHANNELS = ("plain", "masks", "ckks")
WEIGHTINGS = ("plain", "iterations", "samples")
LENGTHS: dict[str, dict[str, Any]] = {
    "one step": {"local_iterations": 1},
    "iterations": {"local_iterations": 3, "batch_size": 4},
    "epochs": {"local_epochs": 2, "batch_size": 4},
}
AVERAGES = ("none", "second_half")
MODELS = {"logistic": "tasks.models:LogisticRegression", "with a mode": "tests.own_models:Drops"}
SITES = ("a", "b", "c", "d")
#: What is meant to go together, said here a second time: mechanism -> channels, weightings, lengths, models.
MEANT: dict[str, tuple[set[str], set[str], set[str], set[str]]] = {
    "none": (set(CHANNELS), set(WEIGHTINGS), set(LENGTHS), set(MODELS)),
    "local_dp": ({"plain"}, {"plain", "iterations"}, {"one step"}, {"logistic"}),
    "distributed_dp": ({"masks"}, {"plain", "iterations"}, {"one step"}, {"logistic"}),
    "gaussian_update": (set(CHANNELS), {"plain"}, set(LENGTHS), set(MODELS)),
    "svt": ({"plain"}, {"plain", "iterations"}, set(LENGTHS), set(MODELS)),
}
STRATEGIES: dict[str, dict[str, Any]] = {
    "fed_avg": {},
    "fed_prox": {"mu": 0.1},
    "fed_avg_m": {},
    "fed_adam": {},
    "fed_yogi": {},
    "fed_adagrad": {},
    "median": {},
    "trimmed_mean": {"trim": 1},
    "krum": {"byzantine": 0},
    "multi_krum": {"byzantine": 0, "keep": 2},
    "scaffold": {},
    "fed_bn": {"layers": ["linear.bias"]},
    "fine_tune": {},
    "ditto": {"mu": 0.1},
}
_ANY = (set(MECHANISMS), set(CHANNELS), set(WEIGHTINGS), set(LENGTHS))
_EACH = ({"none", "gaussian_update"}, {"plain"}, {"plain"}, set(LENGTHS))
#: The same of strategies: mechanisms, channels, weightings, lengths.
STRATEGIES_MEANT: dict[str, tuple[set[str], set[str], set[str], set[str]]] = {
    **dict.fromkeys(("fed_avg", "fed_avg_m", "fed_adam", "fed_yogi", "fed_adagrad", "fine_tune", "ditto"), _ANY),
    **dict.fromkeys(("median", "trimmed_mean", "krum", "multi_krum"), _EACH),
    "fed_bn": ({"none", "top", "random", "gaussian_update", "svt"}, {"plain"}, set(WEIGHTINGS), set(LENGTHS)),
    "fed_prox": (*_ANY[:3], {"iterations", "epochs"}),
    "scaffold": ({"none"}, {"plain"}, {"plain"}, {"iterations", "epochs"}),
}
#: How a refusal begins: with the key at fault; and it says what there would have to be.
REFUSED = re.compile(
    r"Value error, (channel|training\.(weighting|batch_size|local_iterations)) must be [\w ]+ "
    r"with privacy\.mechanism (?P<mechanism>\w+)"
)


#: The same where a mechanism has nothing against it.
REFUSED_STRATEGY = re.compile(
    r"Value error, (strategy\.name must be [\w ]+ (with channel \w+ and privacy\.mechanism \w+|"
    r"with (channel|privacy\.mechanism) \w+|where a site takes one local step): (?P<first>\w+) |"
    r"training\.weighting must be plain with strategy\.name (?P<second>\w+): )"
)
#: Every codec, and what is meant of it: whether it may go where the hub learns a sum.
CODECS: dict[str, tuple[dict[str, Any], bool]] = {
    "dense": ({}, True),
    "sparse": ({}, False),
    "float16": ({}, False),
    "int8": ({"block": 16, "rounding": "stochastic"}, False),
    "top": ({"fraction": 0.4, "error_feedback": True}, False),
    "random": ({"fraction": 0.4}, False),
}


class Case(NamedTuple):
    mechanism: str
    channel: str
    weighting: str
    length: str
    average: str = "none"
    model: str = "logistic"
    strategy: str = "fed_avg"
    codec: str = "dense"

    @property
    def meant(self) -> bool:
        channels, weightings, lengths, models = MEANT[self.mechanism]
        fits = self.channel in channels and self.weighting in weightings
        return fits and self.length in lengths and self.model in models and self.strategy_meant

    @property
    def strategy_meant(self) -> bool:
        mechanisms, channels, weightings, lengths = STRATEGIES_MEANT[self.strategy]
        fits = self.mechanism in mechanisms and self.channel in channels
        return fits and self.weighting in weightings and self.length in lengths

    def read(self) -> Study:
        return Study.model_validate(
            {
                "study": "combined",
                "title": "t",
                "description": "d",
                "owner": "o",
                "data": {"tables": ["adsl"]},
                "sites": {site: [site] for site in SITES},
                "label": {"name": "y", "table": "adsl", "positive_when": [{"column": "Y", "is": 1}]},
                "inputs": [
                    {"name": name, "table": "adsl", "column": name.upper(), "centre": 0, "scale": 1}
                    for name in ("u", "v")
                ],
                "model": {"path": MODELS[self.model]},
                "training": {"lr": 0.3, "weighting": self.weighting, "average_iterates": self.average}
                | LENGTHS[self.length],
                "privacy": {"mechanism": self.mechanism} | MECHANISMS[self.mechanism],
                "channel": self.channel,
                "codec": {"name": self.codec} | CODECS[self.codec][0],
                "rounds": {"total": 2, "min_sites": 4, "deadline_seconds": 60},
                "strategy": {"name": self.strategy} | STRATEGIES[self.strategy],
                "evaluation": {"holdout_fraction": 0.2},
            }
        )


CASES = [Case(*values) for values in product(MECHANISMS, CHANNELS, WEIGHTINGS, LENGTHS, AVERAGES, MODELS)]
BY_STRATEGY = {
    name: [Case(*values, strategy=name) for values in product(MECHANISMS, CHANNELS, WEIGHTINGS, LENGTHS)]
    for name in STRATEGIES
}


@pytest.fixture(autouse=True)
def _own_models(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PHARMAFED_MODEL_PACKAGES", "tests")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def refusal(case: Case) -> str | None:
    """What is said of a combination before a round; None where nothing is."""
    try:
        study = case.read()
    except ValidationError as error:
        (problem,) = error.errors()
        return str(problem["msg"])
    try:
        checked_model(study)
    except ConfigError as error:
        return str(error)
    return None


def test_the_product_is_whole() -> None:
    assert set(MECHANISMS) == set(PRIVACY_SECTIONS) == set(MEANT)
    assert set(CHANNELS) == set(channels.CHANNELS)
    assert set(STRATEGIES) == set(STRATEGY_SECTIONS) == set(STRATEGIES_MEANT)
    assert set(WEIGHTINGS) == set(get_args(Training.model_fields["weighting"].annotation))
    assert len(CASES) == len(set(CASES)) == 5 * 3 * 3 * 3 * 2 * 2
    counted = {name: sum(case.meant for case in CASES if case.mechanism == name) for name in MECHANISMS}
    assert counted == {
        "none": 108,
        "local_dp": 4,
        "distributed_dp": 4,
        "gaussian_update": 36,
        "svt": 24,
    }


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_what_is_not_meant_to_go_together_is_refused_by_its_key(mechanism: str) -> None:
    own = [case for case in CASES if case.mechanism == mechanism]
    assert len(own) == 108
    for case in own:
        said = refusal(case)
        assert (said is None) == case.meant, case
        if said is None:
            continue
        if (told := REFUSED.match(said)) is not None:
            assert told["mechanism"] == mechanism
        else:
            assert said.startswith("model.path 'tests.own_models:Drops'"), said
            assert f"mechanism {mechanism}" in said


@pytest.mark.parametrize("codec", CODECS)
def test_every_mechanism_and_channel_with_every_codec(codec: str) -> None:
    """It makes rounds, or is refused by the key of the codec."""
    assert set(CODECS) == set(CODEC_SECTIONS)
    pairs = [(name, channel) for name, (channels, *_) in MEANT.items() for channel in sorted(channels)]
    assert len(pairs) == 9
    patients = cohort()
    for mechanism, channel in pairs:
        case = Case(mechanism, channel, "plain", "one step", "none", "logistic", codec=codec)
        if channel != "plain" and not CODECS[codec][1]:
            says = f"codec.name must be dense with channel {channel}: encodings of {codec} do not add"
            assert refusal(case) == f"Value error, {says}"
            continue
        made = list(simulate(case.read(), patients, 2, noise=SeededNoise(bytes(32))))
        assert len(made) == 2
        assert all(torch.isfinite(weight).all() for one in made for weight in one.weights.values()), case


def cohort() -> dict[str, Patients]:
    """Sites of different size, so that a weighting that is forgotten shows."""
    generator, made = torch.Generator().manual_seed(3), {}
    for place, site in enumerate(SITES):
        size = 8 + 2 * place
        x = torch.randn(size + 4, 2, generator=generator)
        y = (torch.arange(size + 4) % 2).float()
        made[site] = Patients(x[:size], y[:size], x[size:], y[size:])
    return made


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_what_goes_together_makes_rounds(mechanism: str) -> None:
    """Two of them, through the simulation: under encryption it leaves the encryption out."""
    own, patients = [case for case in CASES if case.mechanism == mechanism and case.meant], cohort()
    assert own
    for case in own:
        study = case.read()
        made = list(simulate(study, patients, 2, noise=SeededNoise(bytes(32))))
        assert len(made) == 2, case
        for one in made:
            assert all(torch.isfinite(weight).all() for weight in one.weights.values()), case
        assert any(
            not torch.equal(made[1].weights[name], start) for name, start in parameters(checked_model(study)).items()
        )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_a_strategy_is_not_meant_to_go_with_is_refused_by_its_key(strategy: str) -> None:
    for case in BY_STRATEGY[strategy]:
        said = refusal(case)
        assert (said is None) == case.meant, (case, said)
        if said is not None and REFUSED.match(said) is None:
            told = REFUSED_STRATEGY.match(said)
            assert told, said
            assert strategy in (told["first"], told["second"])


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "fed_avg"])
def test_what_a_strategy_goes_with_makes_rounds(strategy: str) -> None:
    """Each mechanism, channel, weighting and length that it goes with comes at least once; not each with each."""
    patients, seen, made = cohort(), set[str](), 0
    for case in BY_STRATEGY[strategy]:
        if not case.meant or set(case) <= seen:
            continue
        seen |= set(case)
        *_, last = simulate(case.read(), patients, 2, noise=SeededNoise(bytes(32)))
        assert all(torch.isfinite(weight).all() for weight in last.weights.values()), case
        assert any(
            not torch.equal(last.weights[name], start) for name, start in parameters(checked_model(case.read())).items()
        )
        made += 1
    assert made >= 2
