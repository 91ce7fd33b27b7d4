"""Every way in which a dense update's bytes can be right or wrong."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from tasks.errors import UpdateRejected
from tasks.privacy.codecs.dense import flat_update
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
