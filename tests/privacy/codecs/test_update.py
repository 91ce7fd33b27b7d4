"""Every way in which an update's bytes can be right or wrong, dense and sparse."""

from __future__ import annotations

import json
import math
import struct
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from tasks.privacy.codecs.update import read_update

from tasks.errors import UpdateRejected
from tasks.learning.flat import norm
from tasks.privacy.codecs.dense import flat_update
from tasks.privacy.codecs.sparse import sparse_update
from tasks.store.records.model import ModelRef
from tasks.store.records.round import Plan
from tasks.study.privacy import Compression, NoPrivacy, Privacy, SparseVector
from tasks.study.sections import Evaluation, Training
from tests.learning.named_weights import SHAPE, flat, model

SITE = "701"


def body_of(header: Any, data: bytes) -> bytearray:
    """A safetensors body with any header, valid or not."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return bytearray(struct.pack("<Q", len(raw)) + raw + data)


def header_of(*entries: tuple[str, tuple[int, ...], int, int]) -> dict[str, Any]:
    return {name: {"dtype": "F32", "shape": list(shape), "data_offsets": [a, b]} for name, shape, a, b in entries}


#: The header that `save` would write for SHAPES, in the order of the model: 3, 6 and 3 values.
GOOD = header_of(("hidden.bias", (3,), 0, 12), ("hidden.weight", (3, 2), 12, 36), ("out.weight", (1, 3), 36, 48))
DATA = np.arange(12, dtype=np.float32).tobytes()


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
@settings(max_examples=500)
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
@settings(max_examples=300)
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
