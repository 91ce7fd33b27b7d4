"""How what a site releases becomes bytes, and what the hub accepts of them; each file says what it sends.

dense    every component in float32
sparse   the components that are not zero
float16  every component in half precision
int8     every component as one of 255 multiples of a scale
top      the components of largest magnitude
random   components that a coin has chosen
indices  which components, as bits
codec    what every codec answers

A new one is a file here, its section in `tasks.study.codec`, and a line in the table below.
"""

from __future__ import annotations

from typing import assert_never

from tasks.learning.flat import Shape
from tasks.privacy.codecs.codec import Codec
from tasks.privacy.codecs.dense import DenseCodec
from tasks.privacy.codecs.float16 import Float16Codec
from tasks.privacy.codecs.int8 import Int8Codec
from tasks.privacy.codecs.random import RandomCodec
from tasks.privacy.codecs.sparse import SparseCodec, num_shared
from tasks.privacy.codecs.top import TopCodec
from tasks.store.records.round import Plan
from tasks.study.codec import Dense, Float16, Int8, Random, Sparse, StudyCodec, Top
from tasks.study.privacy import sent_fraction


def codec_of(plan: Plan, shape: Shape) -> Codec:
    """The codec that a round's plan asks for; `dense` is `sparse` under a mechanism that sends few components."""
    fraction, settings = sent_fraction(plan.privacy), plan.codec
    most = shape.num_values if fraction is None else num_shared(fraction, shape.num_values)
    if fraction is not None and isinstance(settings, Dense):
        settings = Sparse(name="sparse")
    return codec_for(settings, shape, most)


def codec_for(settings: StudyCodec, shape: Shape, most: int | None = None) -> Codec:
    """The codec of a study's section, for models of this shape. The type checker refuses a section that has none.

    Args:
        most: components that a mechanism releases at most; None for all.
    """
    match settings:
        case Dense():
            return DenseCodec(shape)
        case Sparse():
            return SparseCodec(shape, shape.num_values if most is None else most)
        case Float16():
            return Float16Codec(shape, settings)
        case Int8():
            return Int8Codec(shape, settings)
        case Top():
            return TopCodec(shape, settings)
        case Random():
            return RandomCodec(shape, settings)
    assert_never(settings)
