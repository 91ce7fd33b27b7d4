"""Every way in which the bytes of an encoded update can be wrong: the hub refuses each of them, and names the site."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from tasks.errors import UpdateRejected
from tasks.learning.flat import norm
from tasks.privacy.codecs import codec_of
from tasks.privacy.codecs.indices import pack_indices
from tasks.privacy.codecs.int8 import MAX_SCALE
from tasks.privacy.noise.source import SeededNoise
from tasks.store.hub_signature import _signed_bytes
from tasks.store.objects import to_json
from tasks.store.records.round import Plan, TensorSpec
from tasks.store.weights import sha256, to_bytes
from tasks.study.privacy import SparseVector
from tests.privacy.codecs.codec_samples import KINDS, SITE, codec, plan_of, section, shape_of

SIZE = 12
NAN, INF = math.nan, math.inf
SVT = SparseVector(mechanism="svt", epsilon=3, delta=1e-5, fraction=0.25, gamma=1, tau=0.1)


def of(kind: str, **tensors: Any) -> tuple[str, bytes]:
    """A codec's name, and a body of these tensors or bytes."""
    return kind, save({name: torch.from_numpy(np.array(value)) for name, value in tensors.items()})


def bits(*indices: int, cut: int = 0, more: bytes = b"") -> np.ndarray:
    packed = pack_indices(np.array(indices)).tobytes()
    return np.frombuffer(packed[: len(packed) - cut] + more, dtype=np.uint8)


def f32(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


THREE = f32(1, 2, 3)
LEVELS, SCALE = np.arange(SIZE, dtype=np.int8), f32(0.5)
HALVES = np.arange(SIZE, dtype=np.float16)
REJECTED: dict[str, tuple[tuple[str, bytes], str]] = {
    "no safetensors": (("top", b"\x80 no header at all, by no means"), "not safetensors"),
    "empty": (("int8", b""), "not safetensors"),
    "a dense update": (("top", save({"a": torch.zeros(4), "b": torch.zeros(8)})), "not those of the plan's codec"),
    "fewer values than the fraction": (of("top", indices=bits(1, 2), values=f32(1, 2)), "not those of the plan's"),
    "more values than the fraction": (of("top", indices=bits(1, 2, 3, 4), values=f32(1, 2, 3, 4)), "not those of"),
    "fewer indices than values": (of("top", indices=bits(1, 2), values=THREE), "are not 3, as many as its values"),
    "more indices than values": (of("top", indices=bits(1, 2, 5, 6), values=THREE), "are not 3, as many"),
    "indices of four bytes": (of("top", indices=np.array([1, 2, 3], dtype=np.int32), values=THREE), "not those of"),
    "an index out of range": (of("top", indices=bits(1, 2, 12), values=THREE), "must stay below 12"),
    "an index far out of range": (of("top", indices=bits(2**30, cut=1, more=b"\1"), values=THREE), "indices"),
    "truncated indices": (of("top", indices=bits(1, 2, 11, cut=1), values=THREE), "are not 3, as many"),
    "a byte after the indices": (of("top", indices=bits(1, 2, 3, more=b"\0"), values=THREE), "are not 3, as many"),
    "more indices than a bitmap has": (of("top", indices=bits(0, 1, 2, more=bytes(9)), values=THREE), "not those of"),
    "two dimensions": (of("top", indices=bits(1, 2, 3)[None], values=THREE), "not those of"),
    "no dimension": (of("sparse", indices=np.uint8(0), values=f32()), "not those of"),
    "an extra tensor": (of("top", indices=bits(1, 2, 3), values=THREE, more=THREE), "not those of"),
    "no indices": (of("top", values=THREE), "not those of"),
    "other names": (of("top", index=bits(1, 2, 3), value=THREE), "not those of"),
    "double values": (of("top", indices=bits(1, 2, 3), values=THREE.astype(np.float64)), "not those of"),
    "half values": (of("random", indices=bits(1, 2, 3), values=THREE.astype(np.float16)), "not those of"),
    "whole values": (of("random", indices=bits(1, 2, 3), values=np.array([1, 2, 3])), "not those of"),
    "trailing bytes": (("top", of("top", indices=bits(1, 2, 3), values=THREE)[1] + b"\0"), "not safetensors"),
    "cut off": (("top", of("top", indices=bits(1, 2, 3), values=THREE)[1][:-2]), "not safetensors"),
    "a scale that is NaN": (of("int8", scales=f32(NAN), values=LEVELS), "a scale is negative, not finite or too large"),
    "a scale that is infinite": (of("int8", scales=f32(INF), values=LEVELS), "a scale is negative, not finite"),
    "a negative scale": (of("int8", scales=f32(-0.5), values=LEVELS), "a scale is negative"),
    "a scale beyond float32": (
        of("int8", scales=f32(np.nextafter(MAX_SCALE, np.float32(INF))), values=LEVELS),
        "large",
    ),
    "a zero scale of values": (of("int8", scales=f32(0), values=LEVELS), "a scale is zero, and a value on it is not"),
    "a level that none sends": (of("int8", scales=SCALE, values=LEVELS - np.int8(120) - np.int8(8)), "below -127"),
    "two scales of one block": (of("int8", scales=f32(1, 1), values=LEVELS), "not those of"),
    "no scale": (of("int8", scales=f32(), values=LEVELS), "not those of"),
    "fewer levels than values": (of("int8", scales=SCALE, values=LEVELS[1:]), "not those of"),
    "more levels than values": (of("int8", scales=SCALE, values=np.append(LEVELS, LEVELS)), "not those of"),
    "levels of another type": (of("int8", scales=SCALE, values=LEVELS.view(np.uint8)), "not those of"),
    "half scales": (of("int8", scales=SCALE.astype(np.float16), values=LEVELS), "not those of"),
    "a zero scale of one of two tensors": (
        of("int8 by tensor", scales=f32(1, 0), values=LEVELS),
        "a scale is zero, and a value on it is not",
    ),
    "one scale of two tensors": (of("int8 by tensor", scales=f32(1), values=LEVELS), "not those of"),
    "an infinite half": (of("float16", values=np.where(HALVES == 3, np.float16(INF), HALVES)), "NaN or infinity"),
    "a half that is NaN": (of("float16", values=np.where(HALVES == 3, np.float16(NAN), HALVES)), "NaN or infinity"),
    "floats for halves": (of("float16", values=HALVES.astype(np.float32)), "not those of"),
    "too few halves": (of("float16", values=HALVES[1:]), "not those of"),
    "too many halves": (of("float16", values=np.append(HALVES, HALVES)), "not those of"),
    "halves in two dimensions": (of("float16", values=HALVES.reshape(3, 4)), "not those of"),
    "bfloat16 for halves": (("float16", save({"values": torch.zeros(SIZE, dtype=torch.bfloat16)})), "not those of"),
}


@pytest.mark.parametrize("case", REJECTED)
def test_what_no_site_sends_is_refused(case: str) -> None:
    (kind, body), reason = REJECTED[case]
    with pytest.raises(UpdateRejected) as caught:
        codec(kind, SIZE).read(body, SITE)
    assert caught.value.site == SITE
    assert reason in caught.value.reason


def test_what_is_refused_is_refused_for_its_one_fault() -> None:
    """The same bodies without the fault are read."""
    read = {
        "top": codec("top", SIZE).read(of("top", indices=bits(1, 2, 11), values=THREE)[1], SITE),
        "int8": codec("int8", SIZE).read(of("int8", scales=SCALE, values=LEVELS)[1], SITE),
        "zero": codec("int8", SIZE).read(of("int8", scales=f32(0), values=0 * LEVELS)[1], SITE),
        "float16": codec("float16", SIZE).read(of("float16", values=HALVES)[1], SITE),
        "sparse": codec("sparse", SIZE).read(of("sparse", indices=bits(), values=f32())[1], SITE),
    }
    assert read["top"].tolist() == [0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 3]
    assert read["int8"].tolist() == [0.5 * k for k in range(SIZE)]
    assert read["float16"].tolist() == list(range(SIZE))
    assert read["zero"].tolist() == read["sparse"].tolist() == [0] * SIZE


@pytest.mark.parametrize("kind", ["top", "random", "sparse"])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_raw_value_that_is_not_finite_shows_in_the_norm(kind: str, value: float) -> None:
    body = of(kind, indices=bits(1, 2, 3), values=f32(1, value, 2))[1]
    assert not math.isfinite(norm(codec(kind, SIZE).read(body, SITE)))


@pytest.mark.parametrize("kind", KINDS)
@given(position=st.integers(0, 2**20), value=st.integers(0, 255), cut=st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_any_damage_is_a_vector_or_a_refusal(kind: str, position: int, value: int, cut: int) -> None:
    own = codec(kind, 40)
    tensors, _ = own.encode(np.arange(40, dtype=np.float32), None, SeededNoise(bytes(32)))
    body = bytearray(to_bytes(tensors))
    body[position % len(body)] = value
    with suppress(UpdateRejected):
        assert own.read(body[: len(body) - cut], SITE).shape == (40,)


# what a manifest may announce


@pytest.mark.parametrize("kind", KINDS)
def test_a_manifest_may_announce_what_the_codec_sends_and_nothing_else(kind: str) -> None:
    own = codec(kind, SIZE)
    first, *rest = own.specs
    assert own.admits(own.specs)
    longer = first.model_copy(update={"shape": (first.shape[0] + 1,)})
    wrong = [
        (),
        (*own.specs, first),
        (longer, *rest),
        (first.model_copy(update={"name": "other"}), *rest),
        (first.model_copy(update={"dtype": "U64"}), *rest),
        (first.model_copy(update={"shape": ()}), *rest),
        (first.model_copy(update={"shape": (1, *first.shape)}), *rest),
        tuple(reversed(own.specs)) if rest else (),
    ]
    shorter = (first.model_copy(update={"shape": (first.shape[0] - 1,)}), *rest)
    assert own.admits(shorter) == (first.name in own.varies)
    for told in wrong:
        assert not own.admits(told), told


def test_of_svt_no_more_components_are_read_than_the_mechanism_releases() -> None:
    own = codec_of(plan_of(privacy=SVT), shape_of(SIZE))
    assert own.read(of("sparse", indices=bits(1, 2, 3), values=THREE)[1], SITE).tolist()[:4] == [0, 1, 2, 3]
    with pytest.raises(UpdateRejected, match="not those of the plan's codec"):
        own.read(of("sparse", indices=bits(1, 2, 3, 4), values=f32(1, 2, 3, 4))[1], SITE)


# records from before codecs


def test_a_plan_that_has_top_for_a_mechanism_is_read_and_its_signed_bytes_are_what_they_were() -> None:
    """The digest was taken of such a plan when it was one."""
    once = {"mechanism": "top", "fraction": 0.25, "error_feedback": True, "i_accept_no_privacy": True}
    codec_now = section("top", error_feedback=True)
    plan = plan_of(privacy=once)
    assert (plan.privacy.mechanism, plan.codec) == ("none", codec_now)
    assert plan == plan_of(codec=codec_now)
    written = to_json(plan)
    assert json.loads(written)["privacy"] == once
    assert "codec" not in json.loads(written)
    assert sha256(_signed_bytes(plan)) == "d0324d42f105b437de34159a3e81d2e29100e0c61a39f576d9e1894391c897e0"
    assert Plan.model_validate_json(written) == plan


def test_a_plan_from_before_codecs_is_dense_and_its_signed_bytes_have_none() -> None:
    plan = plan_of()
    assert plan.codec == section("dense")
    assert b"codec" not in _signed_bytes(plan)
    assert b"float16" in _signed_bytes(plan_of(codec=section("float16")))
    before = {key: value for key, value in json.loads(to_json(plan)).items() if key != "codec"}
    assert Plan.model_validate(before) == plan


def test_a_plan_with_a_codec_in_both_places_is_none() -> None:
    with pytest.raises(ValueError, match=r"privacy\.mechanism top is a codec, and codec stands here too"):
        plan_of(
            privacy={"mechanism": "top", "fraction": 0.25, "i_accept_no_privacy": True},
            codec={"name": "int8"},
        )


def test_what_a_manifest_announced_before_is_read_and_is_no_upload_of_today() -> None:
    told = json.dumps({"name": "indices", "shape": [3], "dtype": "I32"})
    tensors = (TensorSpec.model_validate_json(told), TensorSpec(name="values", shape=(3,), dtype="F32"))
    assert not codec("top", SIZE).admits(tensors)
