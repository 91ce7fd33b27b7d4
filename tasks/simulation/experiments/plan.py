"""The paper's experiments: which settings of a study are run, and which are compared with which.

What is judged, and after which round, stands here and not on the page. Without privacy all settings train as
`tasks.simulation.reference.YARDSTICK` does; private ones, and `none` beside them, as the study itself does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from tasks.simulation.reference import YARDSTICK, YARDSTICK_ROUNDS
from tasks.simulation.runs import RunKind, Setting

#: The study whose data the experiments are run on, and how many seeds: each has its own split, batches and noise.
STUDY = "xanomeline_derm56"
SEEDS = 20
#: One paired difference of federated and pooled AUC has an sd of .034. To find two equal trainings within .01 of each
#: other with an interval takes 200 seeds: se .0024, and a chance of 97% if they are equal. With 20 it is 0.
MANY_SEEDS = 200
ROUNDS = 20
#: Federated and pooled training turn at different rounds; so many show where each does.
FEDERATION_ROUNDS = 12
LONG, LONGEST = 100, 600
EPSILONS = (1, 3, 8, 50)
FRACTIONS = (0.1, 0.2, 0.4, 0.7, 1.0)
EQUAL_EPSILONS = (8, 50)
#: Rounds among which the sparse vector technique divides its budget: the study's, and the other extreme.
BUDGET_ROUNDS = (ROUNDS, 1)

NO_PRIVACY = {"mechanism": "none", "i_accept_no_privacy": True}
YARDSTICK_TRAINING = YARDSTICK.model_dump(exclude_unset=True)
OPEN = {
    "privacy": NO_PRIVACY,
    "channel": "plain",
    "training": YARDSTICK_TRAINING,
    "evaluation.score_bins": None,
}
MODELS: dict[str, dict[str, Any]] = {
    "LR": {},
    "MLP": {"model": {"path": "tasks.models:MLP", "options": {"hidden": 16}}},
}

Changes = Mapping[str, Any]
Pair = tuple[str, str]


@dataclass(frozen=True)
class Experiment:
    """Settings that answer one question.

    `pairs`: arm and reference, compared seed by seed after round `judged_at`, or after its own last round where a
    setting has fewer. `also_at`: rounds after which the same is compared once more, where both settings have them.
    `at_own_best`: it is compared once more with each setting after the round of its own lowest mean held-out log-loss.
    Such a round is chosen on the held-out patients, so nothing is judged by it.
    """

    name: str
    title: str
    settings: tuple[Setting, ...]
    pairs: tuple[Pair, ...]
    judged_at: int = ROUNDS
    also_at: tuple[int, ...] = ()
    at_own_best: bool = False
    num_seeds: int = SEEDS


def _federated(name: str, changes: Changes | None = None, rounds: int = ROUNDS) -> Setting:
    """A setting without privacy."""
    return Setting(name=name, changes=deepcopy(OPEN | dict(changes or {})), rounds=rounds)


def _against(reference: str, settings: Sequence[Setting]) -> tuple[Pair, ...]:
    """Every other setting compared with one."""
    return tuple((setting.name, reference) for setting in settings if setting.name != reference)


def _trained(kind: RunKind, model: str, rounds: int) -> Setting:
    """Federated, pooled or local-only training of one of `MODELS`."""
    changes = deepcopy(OPEN | MODELS[model])
    return Setting(name=f"{kind}, {model}", kind=kind, changes=changes, rounds=rounds)


def federation() -> Experiment:
    """Federated against pooled training, with as many seeds as equality asks for.

    Judged after the yardstick's rounds, and shown with each side after its own best round: pooled training takes
    many more steps in a round, so no one round fits both.
    """
    kinds: tuple[RunKind, ...] = ("federated", "pooled")
    settings = tuple(_trained(kind, model, FEDERATION_ROUNDS) for model in MODELS for kind in kinds)
    pairs = tuple((f"federated, {model}", f"pooled, {model}") for model in MODELS)
    title = "Federated against pooled training"
    return Experiment("federation", title, settings, pairs, YARDSTICK_ROUNDS, at_own_best=True, num_seeds=MANY_SEEDS)


def rounds() -> Experiment:
    """Federated, pooled and local-only training over rounds."""
    lengths: dict[tuple[RunKind, str], int] = {
        ("federated", "LR"): LONGEST,
        ("pooled", "LR"): LONGEST,
        ("local", "LR"): LONG,
        ("federated", "MLP"): LONG,
        ("pooled", "MLP"): LONG,
        ("local", "MLP"): LONG,
    }
    settings = tuple(_trained(kind, model, last) for (kind, model), last in lengths.items())
    pairs = tuple((f"federated, {model}", f"{other}, {model}") for other in ("pooled", "local") for model in MODELS)
    title = "Federated, pooled and local-only training over rounds"
    return Experiment("rounds", title, settings, pairs, YARDSTICK_ROUNDS, (ROUNDS, LONG, LONGEST))


def share_name(codec: str, fraction: float, *, feedback: bool = False) -> str:
    """The setting that sends `fraction` of the components; all of them are no selection."""
    if fraction == 1:
        return "all"
    return f"{codec} {fraction:.0%}" + (", error feedback" if feedback else "")


def fraction() -> Experiment:
    """Selective sharing without privacy: the largest components, or random ones."""
    settings = [_federated("all")]
    for codec in ("top", "random"):
        for feedback in (False, True):
            for share in FRACTIONS[:-1]:
                section = {"name": codec, "fraction": share, "error_feedback": feedback}
                settings.append(_federated(share_name(codec, share, feedback=feedback), {"codec": section}))
    title = "Fraction of the update that is shared, without privacy"
    return Experiment("fraction", title, tuple(settings), _against("all", settings), also_at=(YARDSTICK_ROUNDS,))


def restart() -> Experiment:
    """The optimizer's state restarted each round, or kept at the site."""
    settings = [_federated(state, {"training.optimizer_state": state}) for state in ("restart", "keep")]
    title = "Optimizer restarted each round, or kept"
    return Experiment("restart", title, tuple(settings), _against("keep", settings), also_at=(YARDSTICK_ROUNDS,))


def weighting() -> Experiment:
    """Updates weighted by local iterations or by training patients, or not."""
    settings = [_federated(by, {"training.weighting": by}) for by in ("iterations", "samples", "plain")]
    title = "Weighting of updates"
    return Experiment("weighting", title, tuple(settings), _against("plain", settings), also_at=(YARDSTICK_ROUNDS,))


def local_work() -> Experiment:
    """One epoch each, which is 1 to 5 iterations as sites have few or many patients, or as many iterations each.

    With 211 patients in batches of 8 an epoch is 2.5 iterations in the mean over sites: 2 and 3 stand about it.
    """
    settings = [_federated("one epoch")]
    for iterations in (2, 3):
        training = {key: value for key, value in YARDSTICK_TRAINING.items() if key != "local_epochs"}
        changes = {"training": training | {"local_iterations": iterations}}
        settings.append(_federated(f"{iterations} iterations", changes))
    title = "Unequal or equal local work"
    pairs = tuple(("one epoch", setting.name) for setting in settings[1:])
    return Experiment("local_work", title, tuple(settings), pairs, also_at=(YARDSTICK_ROUNDS,))


_BUDGET = {"delta": 1e-5}
_PATIENT = _BUDGET | {"clip_norm": 1, "public_num_examples": 211}
_MASKS = {"tolerated_dropouts": 1, "colluding_sites": 1}
#: A mechanism's section but for epsilon, and the channel of its updates.
MECHANISMS: dict[str, tuple[dict[str, Any], str]] = {
    "distributed_dp": (_PATIENT | _MASKS, "masks"),
    "local_dp": (_PATIENT, "plain"),
    "gaussian_update": (_BUDGET | _MASKS | {"clip_norm": 0.5}, "masks"),
    "svt": (_BUDGET | {"fraction": 0.4, "gamma": 0.3, "tau": 0}, "plain"),
}


def _private(name: str, mechanism: str, epsilon: float, total: int = ROUNDS, **more: Any) -> Setting:
    """The study's own training under a mechanism: the whole budget in `total` rounds."""
    section, channel = MECHANISMS[mechanism]
    changes = {
        "privacy": {"mechanism": mechanism, "epsilon": epsilon} | section | more,
        "channel": channel,
        "evaluation.score_bins": None,
        "rounds.total": total,
    }
    return Setting(name=name, changes=changes)


def epsilon_name(mechanism: str, epsilon: float) -> str:
    """The setting of one mechanism at one total epsilon."""
    return f"{mechanism}, ε {epsilon:g}"


def privacy() -> Experiment:
    """What each mechanism costs at each total epsilon, against the same training without any."""
    raw = {key: value for key, value in OPEN.items() if key != "training"}
    settings = [
        Setting(name="none", changes=deepcopy(raw) | {"rounds.total": ROUNDS}),
        _federated("yardstick", rounds=YARDSTICK_ROUNDS),
    ]
    settings += [_private(epsilon_name(name, e), name, e) for name in MECHANISMS for e in EPSILONS]
    return Experiment("privacy", "Mechanism and total ε", tuple(settings), _against("none", settings))


def svt_name(fraction: float, epsilon: float, total: int) -> str:
    """The setting of the sparse vector technique that sends a fraction at one total epsilon, over so many rounds."""
    return f"{fraction:.0%}, ε {epsilon:g}, {total} round{'' if total == 1 else 's'}"


def fraction_at_epsilon() -> Experiment:
    """The sparse vector technique: how much to send when epsilon is given, over all rounds or in a single one."""
    grid = [(share, e, total) for total in BUDGET_ROUNDS for e in EQUAL_EPSILONS for share in FRACTIONS]
    settings = tuple(_private(svt_name(share, e, n), "svt", e, n, fraction=share) for share, e, n in grid)
    pairs = tuple((svt_name(share, e, n), svt_name(1, e, n)) for share, e, n in grid if share < 1)
    return Experiment("fraction_at_epsilon", "Fraction shared at equal ε, sparse vector technique", settings, pairs)


EXPERIMENTS: dict[str, Experiment] = {
    one.name: one
    for one in (
        federation(),
        rounds(),
        fraction(),
        restart(),
        weighting(),
        local_work(),
        privacy(),
        fraction_at_epsilon(),
    )
}
