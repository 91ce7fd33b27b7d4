"""Named weights as one vector and back: by name, whatever the order of the dict, to the last bit."""

from __future__ import annotations

import ast
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tasks.learning.flat import Shape, flatten, norm, unflatten
from tasks.learning.training import gradient_rows
from tasks.store.settings import PROJECT
from tasks.store.weights import Weights, parameters
from tests.learning.binary_task import BINARY

FLOAT32_EPS = float(np.finfo(np.float32).eps)

WEIGHTS: Weights = {
    "b.weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
    "a": torch.tensor(5.0),
    "b.bias": torch.tensor([6.0, 7.0]),
    "c": torch.zeros(0, 3),
}
FLAT = torch.tensor([5.0, 6.0, 7.0, 1.0, 2.0, 3.0, 4.0])


def test_the_order_is_that_of_the_names() -> None:
    assert torch.equal(flatten(WEIGHTS), FLAT)
    assert torch.equal(flatten(dict(sorted(WEIGHTS.items()))), FLAT)
    assert torch.equal(flatten(dict(sorted(WEIGHTS.items(), reverse=True))), FLAT)


def test_back_again_under_the_same_names_and_shapes() -> None:
    found = unflatten(FLAT, WEIGHTS)
    assert list(found) == sorted(WEIGHTS)
    assert all(torch.equal(found[name], WEIGHTS[name]) for name in WEIGHTS)
    assert {name: tensor.shape for name, tensor in found.items()} == {n: t.shape for n, t in WEIGHTS.items()}


def test_what_comes_back_is_a_view() -> None:
    flat = FLAT.clone()
    unflatten(flat, WEIGHTS)["a"].fill_(9)
    assert flat[0] == 9


@pytest.mark.parametrize("size", [6, 8])
def test_a_vector_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(RuntimeError):
        unflatten(torch.zeros(size), WEIGHTS)


def test_a_shape_knows_the_same_order_only_if_the_weights_have_it() -> None:
    """It keeps the order that it was made of; models and bodies come by sorted name."""
    ordered = dict(sorted(WEIGHTS.items()))
    shape = Shape.of(ordered)
    assert shape.num_values == len(FLAT)
    assert [spec.name for spec in shape.specs] == list(ordered)
    assert all(torch.equal(shape.unflatten(FLAT)[name], ordered[name]) for name in ordered)


def test_rows_of_patients_are_flattened_behind_their_axis() -> None:
    rows = {name: torch.stack([tensor, tensor + 10]) for name, tensor in WEIGHTS.items()}
    found = flatten(rows, batch_dims=1)
    assert torch.equal(found, torch.stack([FLAT, FLAT + 10]))


def test_a_gradient_has_the_order_of_the_weights_that_it_is_of() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1), nn.Flatten(0))
    weights = {name: tensor.double() for name, tensor in parameters(model).items()}
    inputs, labels = torch.randn(4, 2).double(), torch.tensor([0.0, 1.0, 0.0, 1.0]).double()
    rows = gradient_rows(BINARY, model, weights, inputs, labels)
    assert torch.equal(rows, gradient_rows(BINARY, model, dict(reversed(weights.items())), inputs, labels))
    assert {name: g.shape for name, g in unflatten(rows[0], weights).items()} == {
        n: w.shape for n, w in weights.items()
    }


def test_norm_of_nothing_and_of_much() -> None:
    assert norm(torch.zeros(0)) == 0.0
    assert norm(torch.full((200_000,), 2.0)) == pytest.approx(2.0 * 200_000**0.5, rel=1e-5)
    assert norm(torch.tensor([float("nan")])) != norm(torch.tensor([float("nan")]))


def test_nobody_else_splits_a_vector_by_parameters() -> None:
    """One convention in one place: a second `torch.split` over `numel` would be a second one."""
    found = []
    for path in sorted((PROJECT / "tasks").rglob("*.py")):
        if path.name == "flat.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.split", "np.split"):
                text = ast.unparse(node)
                found += [f"{path.relative_to(PROJECT)}:{node.lineno}"] if "numel" in text or "shape" in text else []
    assert found == []


# the norm


@given(size=st.integers(0, 200_000), scale=st.sampled_from([1e-6, 1.0, 1e6]), seed=st.integers(0, 2**31))
@settings(max_examples=30)
def test_norm_is_that_of_numpy_in_float64(size: int, scale: float, seed: int) -> None:
    update = torch.randn(size, generator=torch.Generator().manual_seed(seed)) * scale
    assert norm(update) == pytest.approx(float(np.linalg.norm(update.double().numpy())), rel=1e-5)


@pytest.mark.parametrize("place", [0, 70_000, 131_072])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_norm_shows_what_is_not_finite(place: int, value: float) -> None:
    update = torch.zeros(131_073)
    update[place] = value
    assert not math.isfinite(norm(update))
