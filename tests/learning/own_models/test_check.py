"""Models of one's own: each is right, or refused in one sentence that names it and its layer."""

from __future__ import annotations

import pytest
import torch

from tasks.errors import ConfigError
from tasks.learning.building import build_model, checked_model
from tasks.learning.own_models.check import require_fitting_model
from tasks.learning.seeding import seeded
from tasks.models import LogisticRegression
from tasks.store.settings import PROJECT
from tasks.study.file import load_study
from tasks.study.sections import Study
from tests import own_models
from tests.learning.binary_task import BINARY
from tests.simulation.simulation_samples import LOCAL, NONE, study_with

LIMITS = (4.0,) * 5


@pytest.fixture(scope="module")
def derm() -> Study:
    return load_study(PROJECT / "studies" / "xanomeline_derm56.yaml")


def look(name: str, clipped_by: str | None = None, limits: tuple[float, ...] = LIMITS) -> None:
    model_class = getattr(own_models, name)

    def build() -> torch.nn.Module:
        with seeded(3):
            return model_class(len(limits))

    require_fitting_model(build, BINARY, limits, f"own:{name}", clipped_by)


BOTH = "Norms Frozen Tied Unused Transposed Strided WeightNorm StatisticsOfOthers StartsAtZero Table "
BOTH += "Convolution NobodyBreaksIt Prior Attends KeepsAGlobalInABuffer"


@pytest.mark.parametrize("mechanism", [None, "distributed_dp"])
@pytest.mark.parametrize("name", BOTH.split())
def test_what_rounds_can_be_made_of_is_taken(name: str, mechanism: str | None) -> None:
    look(name, mechanism)


@pytest.mark.parametrize("name", ["Drops", "Recurrent", "Everything", "AttendsAndDrops"])
def test_without_clipping_of_patients_a_model_may_draw(name: str) -> None:
    look(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Column", r"gives \(2, 1\) for a batch of 2, and \(2,\) is needed: squeeze the last dimension"),
        ("Scalar", r"gives \(\) for a batch of 1, and \(1,\) is needed: squeeze the last dimension only"),
        ("TwoClasses", r"gives \(2, 2\) for a batch of 2, and \(2,\) is needed: give one logit"),
        ("Pair", "gives tuple, and a float32 tensor"),
        ("Doubles", "gives torch.float64, and a float32 tensor"),
        (
            "BatchNorm",
            r"training changes mid\.1\.running_mean of layer mid\.1 \(BatchNorm1d\).*GroupNorm or nn.LayerNorm",
        ),
        ("BatchNormWithoutStatistics", r"layer mid \(BatchNorm1d\) fails for a batch of 1.*: take nn.GroupNorm"),
        ("MixesRows", r"layer mid \(Softmax\) lets a patient's logit depend on who is beside it"),
        ("AttendsOverPatients", "lets a patient's logit depend on who is beside it"),
        ("BatchMean", "its forward lets a patient's logit depend on who is beside it"),
        ("SpectralNorm", r"training changes first\.parametrizations\.weight\.0\._u of layer"),
        ("AlwaysDrops", "its forward gives the same patients other values each time in eval mode"),
        ("DropsWhereItPleases", "draws from a generator of its own when it trains"),
        ("CountsCalls", "other values each time in eval mode"),
        ("LooksAtTheClock", "other values each time in eval mode"),
        ("RemembersPatients", r"a call in eval mode changes seen of RemembersPatients.*nothing about patients"),
        ("RemembersInTraining", r"training changes first\.weight of layer first \(Linear\)"),
        ("WritesIntoInputs", "writes into its inputs"),
        ("Probability", "its forward gives values from 0 to 1, as probabilities are.*leave out the sigmoid"),
        ("ProbabilityByLayer", r"layer 2 \(Sigmoid\) gives values from 0 to 1"),
        ("LogProbability", "gives values of one sign"),
        ("EndsInRelu", "gives values of one sign"),
        ("UnitVector", "gives NaN or infinity for inputs that the study's clip and gain allow"),
        ("ShortTable", r"layer table \(Embedding\) fails for .*: IndexError"),
        ("Lazy", r"first\.weight of layer first \(LazyLinear\) has no size before the first call"),
        ("Half", r"last\.bias of layer last \(Linear\) is torch.float16, and weights travel as float32"),
        ("Complex", "phase of Complex is torch.complex64"),
        ("Elsewhere", r"last\.weight of layer last \(Linear\) lies on meta"),
        ("AllFrozen", "has 0 trainable parameters"),
        ("TiedByMemory", r"lies in the memory of .*: share the nn.Parameter itself"),
        ("NeverInitialised", "more of NeverInitialised starts at NaN"),
        ("FrozenAtRandom", r"first\.weight of layer first \(Linear\) differs each time the model is built"),
        ("DrawnByNumpy", r"first\.weight of layer first \(Linear\) differs each time.*torch's global generator"),
        ("Detached", "gives logits without a gradient"),
        ("FreezesWhenCalled", "freezes or adds parameters when it is trained"),
        ("FreezesInTraining", "freezes or adds parameters when it is trained"),
        ("MixesAtTheEnd", "its forward lets a patient's logit depend"),
        ("Root", r"has a gradient of NaN or infinity at variance of Root .* a small step from them: a root"),
        ("LongName", "cannot be sent: its name is too long or odd"),
    ],
)
def test_what_they_cannot_be_made_of_is_refused_in_one_sentence(name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as error:
        look(name)
    assert str(error.value).startswith(f"model.path 'own:{name}'")
    assert "\n" not in str(error.value)


_BESIDE = "its forward lets a patient's logit depend on who is beside it in the batch"
_LOOSE = "is or holds a tensor or array that is neither parameter nor buffer"


@pytest.mark.parametrize("mechanism", [None, "distributed_dp"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Centred", f"{_BESIDE} in training"),
        ("CentredWithGradients", f"{_BESIDE} in training"),
        ("CentredAmongMany", f"{_BESIDE}:"),
        ("CentredAmongManyInTraining", f"{_BESIDE} in training"),
        ("CentredBesideDropout", f"{_BESIDE} in training"),
        ("ScalesWithNumber", f"{_BESIDE}:"),
        ("SeesTheOneBefore", f"{_BESIDE} in training"),
        ("NoiseAmongMany", "its forward gives the same patients other values each time in eval mode"),
        ("FailsAmongMany", "its forward fails for a batch of 300"),
        ("KeepsRows", "a call in eval mode changes seen of KeepsRows.*nothing about patients"),
        ("KeepsRowsInAList", "a call in eval mode changes seen of KeepsRowsInAList"),
        ("KeepsRowsInItsClass", "a call in eval mode changes seen of KeepsRowsInItsClass"),
        ("KeepsRowsInAGlobal", "a call in eval mode changes _SEEN of KeepsRowsInAGlobal"),
        ("KeepsRowsInAHook", r"a call in eval mode changes first\._forward_hooks of layer first"),
        ("CentresOnTheFirst", "a call in eval mode changes mean of CentresOnTheFirst"),
        ("Warms", "a call in eval mode changes calls of Warms"),
        ("OwnGenerator", "a call in eval mode changes rng of OwnGenerator"),
        ("Projects", f"matrix of Projects {_LOOSE}"),
        ("ProjectsByArray", f"matrix of ProjectsByArray {_LOOSE}"),
        ("ProjectsByDict", f"parts of ProjectsByDict {_LOOSE}"),
        ("ProjectsByNumbers", "gives other logits each time it is built"),
        ("ListsItsLayers", f"more of ListsItsLayers {_LOOSE}.*nn.ModuleList"),
        ("ShiftsByAGlobal", f"_SHIFT of ShiftsByAGlobal {_LOOSE}"),
        ("Length", r"has a gradient of NaN or infinity at first\.weight of layer first \(Linear\)"),
        ("LengthByNumber", "has a gradient of NaN or infinity"),
    ],
)
def test_what_shows_only_among_many_in_training_or_elsewhere_is_refused(
    name: str, reason: str, mechanism: str | None
) -> None:
    with pytest.raises(ConfigError, match=reason) as error:
        look(name, mechanism)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("BranchesInEval", "cannot be computed patient by patient in eval mode, as mechanism local_dp needs"),
        ("Drops", r"layer mid\.1 \(Dropout\) has no gradient of one patient, and mechanism local_dp.*: leave it out"),
        ("Everything", r"layer mid\.2 \(Dropout\) has no gradient of one patient"),
        ("Recurrent", r"layer read \(GRU\) has no gradient of one patient.*take what torch.func can differentiate"),
        ("AttendsAndDrops", r"layer attend.* has no gradient of one patient.*with a dropout of 0"),
        ("Hooked", "has another gradient in training than mechanism local_dp would clip"),
        ("Single", "computes in torch.float32 what mechanism local_dp needs in float64"),
        ("BatchNorm", r"layer mid\.1 \(BatchNorm1d\).*take nn.GroupNorm"),
    ],
)
def test_where_patients_are_clipped_each_needs_a_gradient(name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as error:
        look(name, "local_dp")
    assert "\n" not in str(error.value)
    if name != "BatchNorm":
        look(name)


@pytest.mark.parametrize("mechanism", [None, "distributed_dp"])
@pytest.mark.parametrize("path", ["LogisticRegression", "MLP"])
@pytest.mark.parametrize("num_inputs", [1, 22])
def test_our_own_are_fit(path: str, num_inputs: int, mechanism: str | None) -> None:
    """`checked_model` relies on it."""
    limits = (4.0,) * num_inputs
    require_fitting_model(
        lambda: build_model(f"tasks.models:{path}", num_inputs, {}, seed=0), BINARY, limits, path, mechanism
    )


def test_inputs_may_be_as_large_as_the_study_lets_them() -> None:
    look("ShortTable", limits=(0.4,) * 5)


def test_a_look_leaves_the_global_generator_alone() -> None:
    with seeded(11):
        expected = torch.rand(1)
    with seeded(11):
        look("Drops")
        assert torch.equal(torch.rand(1), expected)
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_class_is_looked_at_once_and_built_as_the_study_seeds_it(
    derm: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHARMAFED_MODEL_PACKAGES", "tests")
    made = 0

    class Counted(LogisticRegression):
        def __init__(self, num_inputs: int) -> None:
            nonlocal made
            made += 1
            super().__init__(num_inputs)
            torch.nn.init.normal_(self.linear.weight)

    monkeypatch.setattr(own_models, "Counted", Counted, raising=False)
    study = study_with(derm, model={"path": "tests.own_models:Counted"}, privacy=NONE, channel="plain")
    first = checked_model(study)
    assert made == 3, "twice to look, once to keep"
    again = checked_model(study)
    assert made == 4
    assert torch.equal(first.linear.weight, again.linear.weight)
    other = study_with(study, training={"seed": 5})
    assert not torch.equal(first.linear.weight, checked_model(other).linear.weight)


@pytest.mark.parametrize(("privacy", "taken"), [(NONE, True), (LOCAL, False)], ids=["none", "local_dp"])
def test_a_study_is_refused_for_its_mechanism(
    derm: Study, privacy: object, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHARMAFED_MODEL_PACKAGES", "tests")
    study = study_with(derm, model={"path": "tests.own_models:Drops"}, privacy=privacy, channel="plain")
    if taken:
        checked_model(study)
        return
    with pytest.raises(ConfigError, match=r"'tests.own_models:Drops': layer mid\.1 \(Dropout\)"):
        checked_model(study)
