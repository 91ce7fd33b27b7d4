"""Which of many components are sent, as bits.

The gaps between ascending indices in a Golomb-Rice code: of each gap, the part above its k low bits in unary (so many
zeros, then a one), and the k low bits as they are. The unary parts of all gaps come first and the low bits after them,
so that both are read in one go. At k = 0 this is the bitmap of the set. The k that gives fewest bytes is taken, so a
set never takes more than its bitmap and a byte. A set that each component is in with probability p <= 1/2 takes at most
3% more than the p log 1/p + (1-p) log 1/(1-p) bits a component that any code needs (`make bench`); beyond 1/2 it is one
bit a component, beside the 32 of each value.

Source: Golomb 1966 (run-length encodings); Rice & Plaunt 1971.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
#: Low bits of a gap, at most.
MAX_LOW = 30


def max_bytes(size: int) -> int:
    """What the indices of a vector of `size` components take at most."""
    return 1 + -(-size // 8)


def pack_indices(indices: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    """Strictly ascending indices from 0 on, (indices,), as bytes: k, then the bits."""
    gaps = _gaps(indices.astype(np.int64, copy=False))
    low = min(range(_likely(gaps) + 1), key=lambda k: (_num_bytes(gaps, k), k))
    ends = np.cumsum((gaps >> low) + 1) - 1
    unary = np.zeros(int(ends[-1]) + 1 if ends.size else 0, dtype=np.uint8)
    unary[ends] = 1
    places = np.arange(low)
    bits = ((gaps[:, None] >> places) & 1).astype(np.uint8) if low else np.empty((0, 0), dtype=np.uint8)
    return np.concatenate([np.array([low], dtype=np.uint8), np.packbits(unary), np.packbits(bits.ravel())])


def unpack_indices(packed: npt.NDArray[np.uint8], count: int, size: int) -> Indices:
    """The way back: `count` strictly ascending indices below `size`.

    Raises:
        ValueError: these bytes, to the last bit, are no such set; what is wrong with them.
    """
    if not packed.size or packed[0] > MAX_LOW:
        raise ValueError("its indices do not begin with how many low bits a gap has")
    low = int(packed[0])
    split = packed.size - -(-count * low // 8)
    if split < 1:
        raise ValueError(f"its indices are too short for {count} values")
    ends = np.flatnonzero(np.unpackbits(packed[1:split]))
    last = int(ends[-1]) if ends.size else -1
    if ends.size != count or split - 1 != -(-(last + 1) // 8):
        raise ValueError(f"its indices are not {count}, as many as its values")
    gaps = _gaps(ends)
    if low:
        bits = np.unpackbits(packed[split:])
        if bits[count * low :].any():
            raise ValueError("its indices end in bits that mean nothing")
        gaps = (gaps << low) + bits[: count * low].reshape(count, low) @ (1 << np.arange(low))
    indices: Indices = np.cumsum(gaps + 1) - 1
    if count and indices[-1] >= size:
        raise ValueError(f"its indices must stay below {size}")
    return indices


def _gaps(indices: Indices) -> Indices:
    """How many indices lie between each and the one before it."""
    gaps = indices - 1
    gaps[1:] -= indices[:-1]
    gaps[:1] += 1
    return gaps


def _likely(gaps: Indices) -> int:
    """The largest k that can be best: one more low bit no longer saves as much unary as it costs."""
    mean = int(gaps.sum()) // gaps.size if gaps.size else 0
    return min(MAX_LOW, mean.bit_length() + 1)


def _num_bytes(gaps: Indices, low: int) -> int:
    unary = int((gaps >> low).sum()) + gaps.size
    return -(-unary // 8) - (-gaps.size * low // 8)
