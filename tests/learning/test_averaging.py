"""The weighted mean against numpy in float64, and every way in which an update's bytes can be wrong."""

from __future__ import annotations

import json
import math
import struct
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from tasks.errors import UpdateRejected
from tasks.learning.averaging import StreamingMean, add_to, running_mean, weight_of
from tasks.learning.flat import Shape, norm
from tasks.privacy.codecs.dense import flat_update
from tasks.privacy.codecs.sparse import sparse_update
from tasks.privacy.codecs.update import read_update
from tasks.store.records.model import ModelRef
from tasks.store.records.round import Plan
from tasks.store.weights import Weights
from tasks.study.privacy import Compression, NoPrivacy, Privacy, SparseVector
from tasks.study.sections import Evaluation, Training

SITE = "701"
FLOAT32_EPS = float(np.finfo(np.float32).eps)
SHAPES = {"hidden.bias": (3,), "hidden.weight": (3, 2), "out.weight": (1, 3)}

values = st.floats(-1e3, 1e3, width=32)
weights_of_sites = st.floats(0.5, 1e4)


def model(seed: int, shapes: dict[str, tuple[int, ...]] = SHAPES) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def flat(weights: Weights) -> np.ndarray:
    return np.concatenate([tensor.double().numpy().ravel() for tensor in weights.values()])


def body_of(header: Any, data: bytes) -> bytearray:
    """A safetensors body with any header, valid or not."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return bytearray(struct.pack("<Q", len(raw)) + raw + data)


def header_of(*entries: tuple[str, tuple[int, ...], int, int]) -> dict[str, Any]:
    return {name: {"dtype": "F32", "shape": list(shape), "data_offsets": [a, b]} for name, shape, a, b in entries}


#: The header that `save` would write for SHAPES, in the order of the model: 3, 6 and 3 values.
GOOD = header_of(("hidden.bias", (3,), 0, 12), ("hidden.weight", (3, 2), 12, 36), ("out.weight", (1, 3), 36, 48))
DATA = np.arange(12, dtype=np.float32).tobytes()
SHAPE = Shape.of(model(0))


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


# the norm


@given(size=st.integers(0, 200_000), scale=st.sampled_from([1e-6, 1.0, 1e6]), seed=st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_norm_is_that_of_numpy_in_float64(size: int, scale: float, seed: int) -> None:
    update = torch.randn(size, generator=torch.Generator().manual_seed(seed)) * scale
    assert norm(update) == pytest.approx(float(np.linalg.norm(update.double().numpy())), rel=1e-5)


@pytest.mark.parametrize("place", [0, 70_000, 131_072])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_norm_shows_what_is_not_finite(place: int, value: float) -> None:
    update = torch.zeros(131_073)
    update[place] = value
    assert not math.isfinite(norm(update))


# the bytes of an update


def test_flat_update_is_a_view_when_the_tensors_lie_in_the_models_order() -> None:
    body = body_of(GOOD, DATA)
    update = flat_update(body, SHAPE, SITE)
    assert update.tolist() == list(range(12))
    body[-4:] = struct.pack("<f", 99.0)
    assert update[-1] == 99.0


def test_flat_update_brings_another_order_into_the_models() -> None:
    swapped = header_of(("out.weight", (1, 3), 0, 12), ("hidden.bias", (3,), 12, 24), ("hidden.weight", (3, 2), 24, 48))
    assert flat_update(body_of(swapped, DATA), SHAPE, SITE).tolist() == [3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 1, 2]


def test_flat_update_ignores_metadata() -> None:
    body = bytearray(save(model(3), metadata={"format": "pt"}))
    np.testing.assert_array_equal(flat_update(body, SHAPE, SITE).numpy(), flat(model(3)).astype(np.float32))


def _with(name: str, **changes: Any) -> dict[str, Any]:
    return {**GOOD, name: {**GOOD[name], **changes}}


MALFORMED: dict[str, bytearray | bytes] = {
    "empty": b"",
    "shorter than the header's size": b"\x01\x00\x00",
    "no header": body_of(b"", DATA),
    "truncated": body_of(GOOD, DATA)[:-4],
    "too long": body_of(GOOD, DATA + b"\0\0\0\0"),
    "a header as large as the address space": struct.pack("<Q", 2**64 - 1) + DATA,
    "a header that ends after the file": struct.pack("<Q", 10_000) + DATA,
    "no JSON": body_of(b"{" * 64, DATA),
    "nested too deeply": body_of(b"[" * 100_000, DATA),
    "no object": body_of([1, 2], DATA),
    "an entry that is no object": body_of({**GOOD, "out.weight": [1]}, DATA),
    "a missing tensor": body_of({k: v for k, v in GOOD.items() if k != "out.weight"}, DATA),
    "an extra tensor": body_of({**GOOD, "extra": GOOD["out.weight"]}, DATA),
    "another name": body_of({k.replace("out", "in"): v for k, v in GOOD.items()}, DATA),
    "another type": body_of(_with("out.weight", dtype="F16"), DATA),
    "a type that is no text": body_of(_with("out.weight", dtype=["F32"]), DATA),
    "another shape": body_of(_with("hidden.weight", shape=[2, 3]), DATA),
    "a shape that is no list": body_of(_with("hidden.bias", shape=3), DATA),
    "a shape of lists": body_of(_with("hidden.bias", shape=[[3]]), DATA),
    "a negative shape": body_of(_with("hidden.weight", shape=[-3, -2]), DATA),
    "a fractional shape": body_of(_with("hidden.bias", shape=[3.5]), DATA),
    "an unknown field": body_of(_with("hidden.bias", color="red"), DATA),
    "three offsets": body_of(_with("out.weight", data_offsets=[36, 40, 48]), DATA),
    "offsets that are no numbers": body_of(_with("out.weight", data_offsets=["36", "48"]), DATA),
    "fractional offsets": body_of(_with("out.weight", data_offsets=[36.0, 48.0]), DATA),
    "negative offsets": body_of(_with("out.weight", data_offsets=[-12, 0]), DATA),
    "offsets in reverse": body_of(_with("out.weight", data_offsets=[48, 36]), DATA),
    "offsets after the end": body_of(_with("out.weight", data_offsets=[48, 60]), DATA),
    "offsets inside a value": body_of(_with("out.weight", data_offsets=[34, 46]), DATA),
    "more bytes than its shape": body_of(_with("out.weight", data_offsets=[32, 48]), DATA),
    "overlap": body_of(_with("out.weight", data_offsets=[24, 36]), DATA),
    "overlap and gap": body_of(_with("hidden.weight", data_offsets=[16, 40]), DATA),
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_flat_update_rejects(body: bytearray | bytes) -> None:
    with pytest.raises(UpdateRejected) as caught:
        flat_update(body, SHAPE, SITE)
    assert caught.value.site == SITE
    assert caught.value.reason


@given(position=st.integers(0, 400), value=st.integers(0, 255), cut=st.integers(0, 3))
@settings(max_examples=500, deadline=None)
def test_flat_update_survives_any_damage(position: int, value: int, cut: int) -> None:
    """One byte changed, and up to three missing: a vector of the model's size, or a rejection; nothing else."""
    body = bytearray(save(model(4)))
    body[position % len(body)] = value
    with suppress(UpdateRejected):
        assert len(flat_update(body[: len(body) - cut], SHAPE, SITE)) == 12


# the bytes of a sparse update

MOST = 4


def sparse(indices: Any, values_: Any, **more: torch.Tensor) -> bytes:
    """A body of int32 indices and float32 values, unless they are tensors of another type."""
    one, other = (
        given if isinstance(given, torch.Tensor) else torch.tensor(given, dtype=dtype)
        for given, dtype in ((indices, torch.int32), (values_, torch.float32))
    )
    return save({"indices": one, "values": other, **more})


@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize(
    ("indices", "sent"),
    [([], []), ([0], [1.5]), ([11], [-2.0]), ([0, 11], [1.0, 2.0]), ([1, 2, 5, 6], [1.0, -2.0, 0.0, 4.0])],
)
def test_sparse_update_puts_each_value_at_its_index(kind: Any, indices: list[int], sent: list[float]) -> None:
    expected = np.zeros(12, dtype=np.float32)
    expected[indices] = sent
    found = sparse_update(kind(sparse(indices, sent)), SHAPE, MOST, SITE)
    assert (found.dtype, found.shape) == (torch.float32, (12,))
    np.testing.assert_array_equal(found.numpy(), expected)


SPARSE_REJECTED: dict[str, tuple[bytes, str]] = {
    "unsorted": (sparse([2, 1], [1, 1]), "indices must rise from 0 on and stay below 12"),
    "unsorted in the middle": (sparse([0, 5, 4, 7], [1, 1, 1, 1]), "indices must rise"),
    "doubled": (sparse([3, 3], [1, 1]), "indices must rise"),
    "negative": (sparse([-1, 3], [1, 1]), "indices must rise"),
    "out of range": (sparse([3, 12], [1, 1]), "stay below 12"),
    "far out of range": (sparse([2**31 - 1], [1]), "stay below 12"),
    "too many": (sparse([0, 1, 2, 3, 4], [1, 1, 1, 1, 1]), "at most 4 values are allowed"),
    "more indices than values": (sparse([0, 1], [1]), "one index a value"),
    "fewer indices than values": (sparse([0], [1, 1]), "one index a value"),
    "two dimensions": (sparse([[0, 1]], [[1, 1]]), "one index a value"),
    "no dimension": (sparse(1, 1.0), "one index a value"),
    "int64 indices": (sparse(torch.tensor([0]), [1]), "indices must be int32 and values float32"),
    "float indices": (sparse(torch.tensor([0.0]), [1]), "indices must be int32"),
    "int16 indices": (sparse(torch.tensor([0], dtype=torch.int16), [1]), "indices must be int32"),
    "double values": (sparse([0], torch.tensor([1.0], dtype=torch.float64)), "values float32"),
    "half values": (sparse([0], torch.tensor([1.0], dtype=torch.float16)), "values float32"),
    "whole values": (sparse([0], torch.tensor([1])), "values float32"),
    "an extra tensor": (sparse([0], [1], extra=torch.zeros(1)), "and nothing else"),
    "no indices": (save({"values": torch.ones(1)}), "no safetensors body of indices and values"),
    "no values": (save({"indices": torch.zeros(1, dtype=torch.int32)}), "no safetensors body of indices and values"),
    "other names": (save({"index": torch.zeros(1, dtype=torch.int32), "value": torch.ones(1)}), "no safetensors body"),
    "a dense update": (save(model(0)), "no safetensors body of indices and values"),
    "empty": (b"", "no safetensors body"),
    "truncated": (sparse([0, 1], [1, 1])[:-2], "no safetensors body"),
    "no safetensors": (b"\x80 garbage that is no header at all", "no safetensors body"),
}


@pytest.mark.parametrize(("body", "reason"), SPARSE_REJECTED.values(), ids=SPARSE_REJECTED.keys())
def test_sparse_update_rejects(body: bytes, reason: str) -> None:
    with pytest.raises(UpdateRejected) as caught:
        sparse_update(body, SHAPE, MOST, SITE)
    assert caught.value.site == SITE
    assert reason in caught.value.reason


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_sparse_value_that_is_not_finite_shows_in_the_norm(value: float) -> None:
    assert not math.isfinite(norm(sparse_update(sparse([3], [value]), SHAPE, MOST, SITE)))


@given(position=st.integers(0, 400), value=st.integers(0, 255), cut=st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_sparse_update_survives_any_damage(position: int, value: int, cut: int) -> None:
    body = bytearray(sparse([1, 4, 9], [1.0, 2.0, 3.0]))
    body[position % len(body)] = value
    with suppress(UpdateRejected):
        assert len(sparse_update(body[: len(body) - cut], SHAPE, MOST, SITE)) == 12


def plan_of(privacy: Privacy) -> Plan:
    now, ref = datetime(2026, 1, 1, tzinfo=UTC), ModelRef(server_round=0, key="k", sha256="a" * 64)
    return Plan(
        study="s",
        study_digest="d" * 64,
        server_round=1,
        run_id="r",
        opened_at=now,
        deadline=now,
        sites=(SITE,),
        min_sites=1,
        strict=False,
        base_model=ref,
        evaluated_model=ref,
        training=Training(lr=0.1, local_iterations=1),
        privacy=privacy,
        evaluation=Evaluation(holdout_fraction=0.2),
        total_rounds=2,
    )


SPARSE_PRIVACY = [
    Compression(mechanism="top", fraction=0.25, i_accept_no_privacy=True),
    Compression(mechanism="random", fraction=0.25, i_accept_no_privacy=True),
    SparseVector(mechanism="svt", epsilon=3, delta=1e-5, fraction=0.25, gamma=1, tau=0.1),
]


@pytest.mark.parametrize("privacy", SPARSE_PRIVACY, ids=lambda privacy: privacy.mechanism)
def test_the_mechanism_decides_how_an_update_is_read(privacy: Privacy) -> None:
    """A quarter of 12 values: three may be sent, a fourth or a dense update may not."""
    dense, plan = save(model(0)), plan_of(privacy)
    three, four = sparse([1, 2, 3], [1.0, 2.0, 3.0]), sparse([1, 2, 3, 4], [1.0, 2.0, 3.0, 4.0])
    assert read_update(three, plan, SHAPE, SITE).tolist() == [0.0, 1.0, 2.0, 3.0] + [0.0] * 8
    for body in (four, dense):
        with pytest.raises(UpdateRejected):
            read_update(body, plan, SHAPE, SITE)
    plain = plan_of(NoPrivacy(mechanism="none", i_accept_no_privacy=True))
    np.testing.assert_array_equal(read_update(bytearray(dense), plain, SHAPE, SITE).numpy(), flat(model(0)))
    with pytest.raises(UpdateRejected):
        read_update(three, plain, SHAPE, SITE)


# memory

#: VmHWM and not getrusage: its `ru_maxrss` starts with that of the parent, which may hide the child's.
_PEAK = """
import pathlib, sys, torch
from tasks.learning.averaging import Shape, StreamingMean, flat_update
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
