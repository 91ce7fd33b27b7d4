"""Each strategy against its paper's formula, written a second time in numpy, and what must hold of any updates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import ConfigError, QuorumMissed, StoreError
from tasks.learning.flat import Shape, flatten
from tasks.learning.strategies.scaffold import CHANGE
from tasks.learning.strategies.state import checked_state
from tasks.learning.strategies.strategy import At, advance, penalty_of
from tasks.store.weights import Weights
from tasks.study.strategy import STRATEGY_SECTIONS
from tests.learning.strategies.strategy_samples import BASE, GIVEN, combined, strategy, updates

Floats = np.ndarray
SIZE = 5
SHAPE = Shape.of(BASE)
#: Steps at the hub, and how a second hand writes them: (w, mean, kept, settings) -> (w, kept).
Rule = Callable[[Floats, Floats, list[Floats], dict[str, float]], tuple[Floats, list[Floats]]]


def _momentum(w: Floats, mean: Floats, kept: list[Floats], s: dict[str, float]) -> tuple[Floats, list[Floats]]:
    """Flower's FedAvgM: the pseudo-gradient is minus the mean update, and the first velocity is the first one."""
    gradient = -mean
    velocity = s["momentum"] * kept[0] + gradient if kept else gradient
    return w - s["server_lr"] * velocity, [velocity]


def _adaptive(square: Callable[[Floats, Floats, float], Floats]) -> Rule:
    def rule(w: Floats, mean: Floats, kept: list[Floats], s: dict[str, float]) -> tuple[Floats, list[Floats]]:
        m, v = kept or [np.zeros(SIZE), np.full(SIZE, s["tau"] ** 2)]
        m = s["beta_1"] * m + (1 - s["beta_1"]) * mean
        v = square(v, mean, s.get("beta_2", 0.0))
        return w + s["server_lr"] * m / (np.sqrt(v) + s["tau"]), [m, v]

    return rule


RULES: dict[str, Rule] = {
    "fed_avg": lambda w, mean, kept, s: (w + mean, []),
    "fed_prox": lambda w, mean, kept, s: (w + mean, []),
    "fed_avg_m": _momentum,
    "fed_adam": _adaptive(lambda v, d, b: b * v + (1 - b) * d * d),
    "fed_yogi": _adaptive(lambda v, d, b: v - (1 - b) * d * d * np.sign(v - d * d)),
    "fed_adagrad": _adaptive(lambda v, d, b: v + d * d),
    **{
        name: lambda w, mean, kept, s: (w + mean, [])
        for name in ("median", "trimmed_mean", "krum", "multi_krum", "fine_tune", "ditto")
    },
}


def test_every_strategy_is_tried() -> None:
    assert set(GIVEN) == set(STRATEGY_SECTIONS) == {*RULES, "scaffold", "fed_bn"}


@pytest.mark.parametrize("name", RULES)
def test_six_rounds_are_those_of_the_formula(name: str) -> None:
    """To float32's rounding, which the second hand, in float64, does not have."""
    own, weights, state = strategy(name), dict(BASE), None
    second, kept = flatten(BASE).double().numpy(), list[Floats]()
    for number, update in enumerate(updates(6, seed=4), 1):
        mean = {n: t.clone() for n, t in SHAPE.unflatten(update).items()}
        weights, state = advance(own, weights, mean, state, At(number))
        second, kept = RULES[name](second, update.double().numpy(), kept, GIVEN[name])
        np.testing.assert_allclose(flatten(weights).numpy(), second, rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(
            flatten(state).numpy() if state else [],
            np.concatenate([*kept, []]) * (-1 if name == "fed_avg_m" else 1),
            rtol=2e-5,
            atol=1e-6,
        )


def test_without_momentum_and_with_a_rate_of_one_momentum_is_the_mean() -> None:
    (update,) = updates(1, seed=0)
    mean = SHAPE.unflatten(update)
    plain, _ = advance(strategy("fed_avg"), BASE, {n: t.clone() for n, t in mean.items()}, None, At(1))
    other, _ = advance(strategy("fed_avg_m", server_lr=1.0, momentum=0.0), BASE, mean, None, At(1))
    assert torch.equal(flatten(plain), flatten(other))


# what looks at single updates


SECOND: dict[str, Callable[[Floats], Floats]] = {
    "median": lambda rows: np.median(rows, axis=0),
    "trimmed_mean": lambda rows: np.sort(rows, axis=0)[1:-1].mean(axis=0),
    "krum": lambda rows: rows[_krum_order(rows, 1)[:1]].mean(axis=0),
    "multi_krum": lambda rows: rows[_krum_order(rows, 1)[:2]].mean(axis=0),
}
ROBUST = list(SECOND)


def _krum_order(rows: Floats, f: int) -> list[int]:
    scores = []
    for i in range(len(rows)):
        distances = sorted(float(((rows[i] - rows[j]) ** 2).sum()) for j in range(len(rows)) if j != i)
        scores.append(sum(distances[: len(rows) - f - 2]))
    return sorted(range(len(rows)), key=lambda i: scores[i])


@pytest.mark.parametrize("name", ROBUST)
@pytest.mark.parametrize("sites", [5, 6, 13])
def test_what_looks_at_each_update_is_what_its_paper_says(name: str, sites: int) -> None:
    for seed in range(20):
        given_ = updates(sites, seed)
        second = SECOND[name](np.array([update.double().numpy() for update in given_]))
        np.testing.assert_allclose(combined(name, given_).numpy(), second, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ROBUST)
def test_of_equal_updates_it_is_the_update(name: str) -> None:
    (update,) = updates(1, seed=1)
    np.testing.assert_allclose(combined(name, [update.clone() for _ in range(7)]).numpy(), update.numpy(), rtol=1e-6)


@given(seed=st.integers(0, 10_000), sites=st.integers(5, 13), data=st.data())
def test_the_order_of_the_sites_does_not_matter_to_the_last_bit(seed: int, sites: int, data: st.DataObject) -> None:
    given_ = updates(sites, seed)
    other = data.draw(st.permutations(given_))
    for name in ("median", "trimmed_mean", "krum"):
        assert torch.equal(combined(name, given_), combined(name, other)), name
    np.testing.assert_allclose(combined("multi_krum", given_), combined("multi_krum", other), atol=1e-6)


def test_with_nothing_trimmed_it_is_the_mean() -> None:
    given_ = updates(6, seed=2)
    np.testing.assert_allclose(combined("trimmed_mean", given_, trim=0), torch.stack(given_).mean(dim=0), atol=1e-6)


@pytest.mark.parametrize("f", [1, 2, 3, 5])
@pytest.mark.parametrize("scale", [1e6, -1e6, 30.0])
def test_f_sites_that_send_anything_far_away_are_without_effect(f: int, scale: float) -> None:
    """With n = 2f + 3 sites: Krum takes an honest update, multi-Krum only such, the others stay among them."""
    honest = updates(f + 3, seed=f)
    poisoned = [update * scale + scale for update in updates(f, seed=99)]
    given_, hull = [*poisoned[:1], *honest, *poisoned[1:]], torch.stack(honest)
    assert any(torch.equal(combined("krum", given_, byzantine=f), one) for one in honest)
    assert torch.equal(combined("krum", given_, byzantine=f), combined("krum", [*honest, *poisoned], byzantine=f))
    for name, changes in (("median", {}), ("trimmed_mean", {"trim": f})):
        found = combined(name, given_, **changes)
        assert (found >= hull.min(dim=0).values).all(), name
        assert (found <= hull.max(dim=0).values).all(), name
    assert combined("fed_avg", given_).abs().max() > 2 * hull.abs().max(), "the mean is not such"


def test_multi_krum_keeps_honest_updates_only() -> None:
    honest = updates(10, seed=5)
    given_ = [*honest, *(update * 1e6 for update in updates(3, seed=6))]
    found = combined("multi_krum", given_, byzantine=3, keep=8)
    means = [torch.stack([u for k, u in enumerate(honest) if k not in out]).mean(0) for out in _pairs(10)]
    assert any(torch.allclose(found, mean, atol=1e-6) for mean in means)


def _pairs(n: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(n) for j in range(i)]


def test_an_update_of_many_values_is_sorted_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.learning.strategies import median

    given_ = updates(5, seed=3)
    whole = combined("median", given_)
    monkeypatch.setattr(median, "_BLOCK", 2)
    assert torch.equal(combined("median", given_), whole)


@pytest.mark.parametrize(
    ("name", "sites", "changes"),
    [
        ("median", 2, {}),
        ("trimmed_mean", 4, {"trim": 2}),
        ("krum", 4, {}),
        ("multi_krum", 5, {"byzantine": 1, "keep": 3}),
    ],
)
def test_too_few_updates_are_no_round(name: str, sites: int, changes: dict[str, Any]) -> None:
    with pytest.raises(QuorumMissed, match=f"{sites} updates, {sites + 1} are needed"):
        combined(name, updates(sites, seed=0), **changes)


# at a site


def test_the_proximal_term_is_half_mu_times_the_squared_distance() -> None:
    weights = {name: (tensor + 1).requires_grad_() for name, tensor in BASE.items()}
    penalty = penalty_of(strategy("fed_prox"), BASE, {})
    assert penalty is not None
    value = penalty(weights)
    assert value.item() == pytest.approx(0.25 * SIZE)
    torch.autograd.backward(value)
    for tensor in weights.values():
        assert tensor.grad is not None
        assert torch.allclose(tensor.grad, torch.full_like(tensor, 0.5))


@pytest.mark.parametrize("name", [name for name in GIVEN if name not in ("fed_prox", "scaffold", "fed_bn")])
def test_no_other_strategy_adds_anything_at_a_site(name: str) -> None:
    assert penalty_of(strategy(name), BASE, {}) is None
    assert strategy(name).sent(BASE) is BASE
    assert strategy(name).control(BASE, {}, None) == {}


def test_scaffold_is_algorithm_1_of_its_paper() -> None:
    """Two sites, three rounds, written a second time with numpy; in the second round one site is absent."""
    own, sites, length = strategy("scaffold"), ("one", "two"), 0.3
    weights, state, kept = dict(BASE), own.fresh(BASE), dict[str, Weights]()
    x, c, c_i = flatten(BASE).double().numpy(), np.zeros(SIZE), {site: np.zeros(SIZE) for site in sites}
    for number, present in enumerate((sites, sites[:1], sites), 1):
        combiner, deltas, changes = own.combiner(weights), [], []
        for site, delta in zip(present, updates(len(present), seed=number), strict=True):
            control = own.control(weights, state, kept.get(site))
            np.testing.assert_allclose(flatten(control).numpy(), c - c_i[site], atol=1e-6)
            sent, kept[site] = own.leaves(weights, SHAPE.unflatten(delta), control, kept.get(site), length)
            combiner.add(flatten(sent), 1.0)
            new = c_i[site] - c - delta.double().numpy() / length
            deltas.append(delta.double().numpy())
            changes.append(new - c_i[site])
            c_i[site] = new
            np.testing.assert_allclose(flatten(kept[site]).numpy(), new, atol=1e-5)
        weights, state = advance(own, weights, combiner.mean(), state, At(number, len(present) / 2))
        x, c = x + 0.7 * np.mean(deltas, axis=0), c + len(present) / 2 * np.mean(changes, axis=0)
        np.testing.assert_allclose(flatten(weights).numpy(), x, atol=1e-5)
        np.testing.assert_allclose(flatten(state).numpy(), c, atol=1e-5)
    np.testing.assert_allclose(c, np.mean(list(c_i.values()), axis=0), atol=1e-6)


def test_the_gradient_of_scaffold_s_term_is_the_correction_everywhere() -> None:
    own = strategy("scaffold")
    control = {name: torch.full_like(tensor, 0.3) for name, tensor in BASE.items()}
    weights = {name: (tensor * 7).requires_grad_() for name, tensor in BASE.items()}
    torch.autograd.backward(own.penalty(weights, BASE, control))
    assert all(torch.equal(weights[name].grad, control[name]) for name in BASE)  # type: ignore[arg-type]


def test_a_site_sends_scaffold_s_change_beside_its_update_in_the_order_of_names() -> None:
    like = strategy("scaffold").sent(BASE)
    assert list(like) == sorted(like) == [f"{CHANGE}a", f"{CHANGE}b", "a", "b"]


def test_layers_that_stay_are_neither_sent_nor_changed_by_the_hub() -> None:
    """Two rounds of a site: its own `b` goes on by its own updates, `a` by the mean; the global `b` stays."""
    own, weights, kept = strategy("fed_bn"), dict(BASE), None
    assert list(own.sent(BASE)) == ["a"]
    b = BASE["b"].clone()
    for number in (1, 2):
        delta = {"a": torch.ones(2, 2) * number, "b": torch.tensor([10.0 * number])}
        start = own.local(weights, kept)
        assert torch.equal(start["b"], b)
        sent, kept = own.leaves(weights, delta, {}, kept, 1.0)
        b += 10 * number
        assert list(sent) == ["a"]
        assert torch.equal(kept["b"], b)
        weights, state = advance(own, weights, {"a": sent["a"].clone()}, None, At(number))
        assert state == {}
        assert list(weights) == list(BASE)
    assert torch.equal(weights["a"], BASE["a"] + 3)
    assert torch.equal(weights["b"], BASE["b"])


@pytest.mark.parametrize("kept", [{"b": torch.zeros(2)}, {"a": torch.zeros(2, 2)}, {}, dict(BASE)])
def test_layers_of_another_model_are_not_taken(kept: Weights) -> None:
    assert strategy("fed_bn").local(BASE, kept) is BASE


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        (("norm",), r"^strategy\.layers: the model has no parameters in norm; it has: a, b$"),
        (("a", "b"), r"^strategy\.layers: they are the whole model, and nothing is left to send$"),
    ],
)
def test_layers_that_there_are_not_are_refused(layers: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        strategy("fed_bn", layers=layers).combiner(BASE)


def test_fine_tuning_trains_the_global_model_on_so_often_and_keeps_nothing() -> None:
    own = strategy("fine_tune", times=3)
    found = own.personal(BASE, {"other": torch.zeros(1)}, lambda weights, penalty: _doubled(weights, penalty is None))
    assert all(torch.equal(found[name], 8 * BASE[name]) for name in BASE)


def _doubled(weights: Weights, as_it_must_be: bool) -> Weights:
    assert as_it_must_be
    return {name: 2 * tensor for name, tensor in weights.items()}


def test_ditto_goes_on_from_its_own_model_and_is_pulled_to_the_global_one() -> None:
    """A step of rate r against the term's gradient is r mu (own - global)."""
    mine = {name: tensor + 3 for name, tensor in BASE.items()}

    def train(start: Weights, penalty: Any) -> Weights:
        now = {name: tensor.clone().requires_grad_() for name, tensor in start.items()}
        torch.autograd.backward(penalty(now))
        return {name: tensor.detach() - 0.1 * tensor.grad for name, tensor in now.items()}  # type: ignore[operator]

    own = strategy("ditto", mu=2.0)
    found, first = own.personal(BASE, mine, train), own.personal(BASE, None, train)
    assert all(torch.allclose(found[name], BASE[name] + 3 * 0.8) for name in BASE)
    assert all(torch.equal(first[name], BASE[name]) for name in BASE)


# what the hub keeps


STATEFUL = [name for name in GIVEN if strategy(name).state_parts]


def test_those_with_a_state_are_known() -> None:
    assert STATEFUL == ["fed_avg_m", "fed_adam", "fed_yogi", "fed_adagrad", "scaffold"]


@pytest.mark.parametrize("name", STATEFUL)
def test_a_state_is_of_the_shapes_that_a_fresh_one_has(name: str) -> None:
    own = strategy(name)
    mean = {n: torch.ones_like(t) for n, t in own.sent(BASE).items()}
    _, state = advance(own, BASE, mean, None, At(1))
    assert checked_state(own, state, BASE, "it") is state
    assert list(state) == sorted(state)


DAMAGE: dict[str, Callable[[Weights], Weights]] = {
    "of another model": lambda state: {name: torch.zeros(7) for name in state},
    "of another strategy": lambda state: {f"other.{name}": tensor for name, tensor in state.items()},
    "less": lambda state: dict(list(state.items())[1:]),
    "more": lambda state: state | {"zzz": torch.zeros(1)},
    "in float64": lambda state: {name: tensor.double() for name, tensor in state.items()},
    "NaN": lambda state: {name: tensor * float("nan") for name, tensor in state.items()},
    "infinite": lambda state: {name: tensor + float("inf") for name, tensor in state.items()},
    "enormous": lambda state: {name: torch.full_like(tensor, 1e13) for name, tensor in state.items()},
    "empty": lambda state: {},
}


@pytest.mark.parametrize("name", STATEFUL)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_state_that_is_not_as_it_must_be_makes_no_model(name: str, damage: str) -> None:
    own = strategy(name)
    with pytest.raises(StoreError, match=r"^the state .*: no model is made from it$"):
        checked_state(own, DAMAGE[damage](own.fresh(BASE)), BASE, "the state")


def test_a_step_to_weights_that_no_site_would_take_is_not_applied() -> None:
    mean = {name: torch.full_like(tensor, 500.0) for name, tensor in BASE.items()}
    own = strategy("fed_avg_m", server_lr=100)
    far = {name: torch.full_like(tensor, 9.9e5) for name, tensor in BASE.items()}
    advance(own, BASE, {name: tensor / 10 for name, tensor in mean.items()}, None, At(1))
    with pytest.raises(QuorumMissed, match=r"weights that are not finite, or beyond 1e\+06.*Lower strategy\.server_lr"):
        advance(own, far, mean, None, At(7))
