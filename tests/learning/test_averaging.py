"""The weighted mean against numpy in float64, in memory that does not grow with the number of updates."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from tasks.learning.averaging import StreamingMean, add_to, running_mean, weight_of
from tasks.learning.flat import Shape
from tasks.privacy.codecs.dense import flat_update
from tests.learning.named_weights import SHAPE, SHAPES, flat, model

SITE = "701"
FLOAT32_EPS = float(np.finfo(np.float32).eps)

values = st.floats(-1e3, 1e3, width=32)
weights_of_sites = st.floats(0.5, 1e4)


# the mean


@given(data=st.data(), sites=st.integers(1, 20), size=st.integers(1, 50))
def test_mean_is_the_weighted_mean(data: st.DataObject, sites: int, size: int) -> None:
    updates = np.array(
        data.draw(st.lists(st.lists(values, min_size=size, max_size=size), min_size=sites, max_size=sites))
    )
    weights = np.array(data.draw(st.lists(weights_of_sites, min_size=sites, max_size=sites)))
    mean = StreamingMean(Shape.of({"w": torch.zeros(size)}))
    for update, weight in zip(updates, weights, strict=True):
        mean.add(torch.tensor(update, dtype=torch.float32), weight)
    expected = np.average(updates, axis=0, weights=weights)
    bound = (sites + 3) * FLOAT32_EPS * np.average(np.abs(updates), axis=0, weights=weights)
    assert (np.abs(mean.mean()["w"].double().numpy() - expected) <= bound + 1e-30).all()


@given(sites=st.integers(1, 8), seed=st.integers(0, 2**31))
def test_mean_of_safetensors_bodies_keeps_names_and_shapes(sites: int, seed: int) -> None:
    models = [model(seed + site) for site in range(sites)]
    mean = StreamingMean(SHAPE)
    for weights in models:
        mean.add(flat_update(bytearray(save(weights)), SHAPE, SITE), 2.0)
    found = mean.mean()
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == SHAPES
    np.testing.assert_allclose(flat(found), np.mean([flat(m) for m in models], axis=0), atol=1e-6)


def test_mean_needs_an_update() -> None:
    with pytest.raises(ZeroDivisionError):
        StreamingMean(SHAPE).mean()


def test_same_updates_in_the_same_order_give_the_same_bytes_on_any_number_of_threads() -> None:
    size, before = 300_007, torch.get_num_threads()
    shape = Shape.of({"w": torch.zeros(size)})
    updates = [torch.randn(size, generator=torch.Generator().manual_seed(site)) for site in range(5)]
    results = set()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            mean = StreamingMean(shape)
            for number, update in enumerate(updates):
                mean.add(update, 1.1 + number)
            results.add(mean.mean()["w"].numpy().tobytes())
    finally:
        torch.set_num_threads(before)
    assert len(results) == 1


@pytest.mark.parametrize(("weighting", "weight"), [("iterations", 7.0), ("samples", 40.0), ("plain", 1.0)])
def test_weight_of(weighting: str, weight: float) -> None:
    assert weight_of(weighting, num_examples=40, local_iterations=7) == weight


def test_weight_of_knows_no_other_weighting() -> None:
    with pytest.raises(KeyError):
        weight_of("loudness", 1, 1)


def test_add_to_adds_by_name() -> None:
    base, delta = model(1), model(2)
    expected = flat(base) + flat(delta)
    np.testing.assert_allclose(flat(add_to(base, delta)), expected, atol=1e-6)


@given(st.lists(st.lists(values, min_size=4, max_size=4), min_size=2, max_size=30))
def test_running_mean_is_the_mean_of_the_iterates(iterates: list[list[float]]) -> None:
    running = {"w": torch.tensor(iterates[0])}
    for count, iterate in enumerate(iterates[1:], start=1):
        running = running_mean(running, count, {"w": torch.tensor(iterate)})
    expected = np.mean(np.array(iterates), axis=0)
    bound = 4 * len(iterates) * FLOAT32_EPS * np.abs(iterates).max()
    assert (np.abs(running["w"].double().numpy() - expected) <= bound + 1e-30).all()


# memory

#: VmHWM and not getrusage: its `ru_maxrss` starts with that of the parent, which may hide the child's.
_PEAK = """
import pathlib, sys, torch
from tasks.learning.averaging import StreamingMean
from tasks.learning.flat import Shape
from tasks.privacy.codecs.dense import flat_update
from safetensors.torch import save
torch.set_num_threads(1)
weights = {"w": torch.ones(int(sys.argv[1]))}
body, shape = bytearray(save(weights)), Shape.of(weights)
mean = StreamingMean(shape)
for _ in range(int(sys.argv[2])):
    mean.add(flat_update(bytearray(body), shape, "701"), 1.0)
assert float(mean.mean()["w"][-1]) == 1.0
print(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


def _peak_kilobytes(values: int, updates: int) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, str(values), str(updates)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_memory_does_not_grow_with_the_number_of_updates() -> None:
    size = 4_000_000
    few, many = _peak_kilobytes(size, 4), _peak_kilobytes(size, 40)
    model_kilobytes = 4 * size // 1024
    assert many - few < model_kilobytes, f"36 more updates took {many - few} kB; one model has {model_kilobytes} kB"
