"""Codecs of every kind for vectors of any size, and plans that ask for them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter

from tasks.learning.flat import Shape
from tasks.privacy.codecs import codec_for
from tasks.privacy.codecs.codec import Codec
from tasks.store.records.model import ModelRef
from tasks.store.records.round import Plan, TensorSpec
from tasks.study.codec import StudyCodec
from tasks.study.privacy import NoPrivacy
from tasks.study.sections import Evaluation, Training

SITE = "701"
NONE = NoPrivacy(mechanism="none", i_accept_no_privacy=True)
_SECTION: TypeAdapter[StudyCodec] = TypeAdapter(StudyCodec)
#: One of each kind of every codec.
KINDS: dict[str, dict[str, Any]] = {
    "dense": {"name": "dense"},
    "sparse": {"name": "sparse"},
    "float16": {"name": "float16"},
    "int8": {"name": "int8"},
    "int8 in small blocks": {"name": "int8", "block": 16},
    "int8 by tensor": {"name": "int8", "block": "tensor"},
    "int8, stochastic": {"name": "int8", "rounding": "stochastic"},
    "top": {"name": "top", "fraction": 0.25},
    "random": {"name": "random", "fraction": 0.25},
}


def section(kind: str, **changes: Any) -> StudyCodec:
    return _SECTION.validate_python(KINDS[kind] | changes)


def shape_of(size: int) -> Shape:
    """Of a model of so many parameters, in two tensors where there are two."""
    lengths = [("a", size // 3), ("b", size - size // 3)]
    specs = [TensorSpec(name=name, shape=(length,), dtype="F32") for name, length in lengths if length]
    return Shape(tuple(specs))


def codec(kind: str, size: int, **changes: Any) -> Codec:
    return codec_for(section(kind, **changes), shape_of(size))


def plan_of(**changes: Any) -> Plan:
    now, ref = datetime(2026, 1, 1, tzinfo=UTC), ModelRef(server_round=2, key="k", sha256="b" * 64)
    fields: dict[str, Any] = {
        "study": "s",
        "study_digest": "d" * 64,
        "server_round": 3,
        "run_id": "r",
        "opened_at": now,
        "deadline": now,
        "sites": (SITE,),
        "min_sites": 1,
        "strict": False,
        "base_model": ref,
        "evaluated_model": ref,
        "training": Training(lr=0.1, local_iterations=1),
        "privacy": NONE,
        "evaluation": Evaluation(holdout_fraction=0.2),
        "total_rounds": 2,
    }
    return Plan.model_validate(fields | changes)
