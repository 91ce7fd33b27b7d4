"""Bytes and time of each codec, for an update of 4.7 million parameters of which 40% are sent where some are.

Bytes against dense float32, and against what any code of the same components needs: of n out of N with 32 bits a value
log2 C(N, n) + 32 n bits (Shannon); of all of them, 32, 16 or 8 bits a value. The
fastest of several runs counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import lgamma, log

import numpy as np
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

from tasks.learning.flat import Shape
from tasks.privacy.codecs import codec_for
from tasks.privacy.noise.source import SystemNoise
from tasks.store.records.round import TensorSpec
from tasks.store.weights import to_bytes
from tasks.study.codec import StudyCodec

NUM_VALUES, FRACTION, UPDATE_SD = 4_700_000, 0.4, 1e-3
REPEATS = 5
#: What is measured: a section of a study, and the bits of a value in it.
_CODECS: dict[str, tuple[dict[str, object], int]] = {
    "dense": ({"name": "dense"}, 32),
    "float16": ({"name": "float16"}, 16),
    "int8": ({"name": "int8"}, 8),
    "int8, stochastic": ({"name": "int8", "rounding": "stochastic"}, 8),
    "top 40%": ({"name": "top", "fraction": FRACTION, "error_feedback": True}, 32),
    "random 40%": ({"name": "random", "fraction": FRACTION, "error_feedback": True}, 32),
    "sparse, 40% not zero": ({"name": "sparse"}, 32),
    "sparse, 10% not zero": ({"name": "sparse"}, 32),
    "sparse, 1% not zero": ({"name": "sparse"}, 32),
}


@dataclass(frozen=True)
class Encoded:
    """One codec. `of_dense`, `of_bound`: its bytes over those of dense float32, and over what any code needs."""

    codec: str
    num_bytes: int
    of_dense: float
    of_bound: float
    encode_s: float
    decode_s: float


@dataclass(frozen=True)
class Codecs:
    """All codecs, and what the indices of the components cost before: four bytes each."""

    num_values: int
    fraction: float
    before_of_dense: float
    cases: list[Encoded]


def run(console: Console) -> Codecs:
    """Measure and print."""
    dense = _measure("dense", 1)
    cases = [dense, *(_measure(name, dense.num_bytes) for name in list(_CODECS)[1:])]
    cases[0] = Encoded("dense", dense.num_bytes, 1.0, dense.of_bound, dense.encode_s, dense.decode_s)
    result = Codecs(NUM_VALUES, FRACTION, 2 * FRACTION, cases)
    _show(result, console)
    return result


def _measure(name: str, dense_bytes: int) -> Encoded:
    section, bits = _CODECS[name]
    shape = Shape((TensorSpec(name="weight", shape=(NUM_VALUES,), dtype="F32"),))
    settings: StudyCodec = TypeAdapter(StudyCodec).validate_python(section)
    codec, flat, noise = codec_for(settings, shape), _update(name), SystemNoise()

    def encode() -> bytes:
        return to_bytes(codec.encode(flat, None, noise)[0])

    body = bytearray(encode())
    sent = np.count_nonzero(flat) if "sparse" in name else round(FRACTION * NUM_VALUES) if "40%" in name else NUM_VALUES
    bound = (_log2_choose(NUM_VALUES, int(sent)) + bits * int(sent)) / 8
    return Encoded(
        name,
        len(body),
        len(body) / dense_bytes,
        len(body) / bound,
        _fastest(encode),
        _fastest(lambda: codec.read(body, "701")),
    )


def _update(name: str) -> np.ndarray:
    """Normal; where a codec sends what is not zero, zero elsewhere."""
    rng = np.random.default_rng(0)
    flat = rng.standard_normal(NUM_VALUES, dtype=np.float32) * np.float32(UPDATE_SD)
    if name.startswith("sparse"):
        flat[rng.random(NUM_VALUES) >= float(name.split()[1].rstrip("%")) / 100] = 0
    return flat


def _log2_choose(population: int, size: int) -> float:
    return (lgamma(population + 1) - lgamma(size + 1) - lgamma(population - size + 1)) / log(2)


def _fastest(action: Callable[[], object]) -> float:
    found = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        action()
        found.append(time.perf_counter() - began)
    return min(found)


def _show(result: Codecs, console: Console) -> None:
    table = Table(title=f"Codecs, {result.num_values / 1e6:.1f} million parameters")
    for column in ("codec", "MB", "of dense float32", "of what any code needs", "encode, ms", "decode, ms"):
        table.add_column(column, justify="left" if column == "codec" else "right")
    for case in result.cases:
        figures = (f"{case.num_bytes / 1e6:.2f}", f"{case.of_dense:.1%}", f"{case.of_bound:.2%}")
        table.add_row(case.codec, *figures, f"{1e3 * case.encode_s:.0f}", f"{1e3 * case.decode_s:.0f}")
    console.print(table)
    console.print(f"with four bytes an index, 40% took {result.before_of_dense:.0%} of dense float32")
