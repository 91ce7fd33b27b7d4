"""The integer grid on which sensitivity is exact, and what may be put on it.

Noise is added to integers, so the low bits of a float cannot tell inputs apart (Mironov 2012), and a clipped vector is
cut toward zero, so that no rounding makes it longer than its bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from tasks.errors import PrivacyError

Update = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Steps = npt.NDArray[np.int64]

#: Steps of the integer grid in one clip norm: 2^-24 of it, far below the noise, far above float32's own error.
STEPS_PER_CLIP = 1 << 24
MAX_SIZE = 1_000_000_000
#: Below 1, so that a clipped vector is within its norm in spite of the rounding of float64.
_SHRINK = 1 - 1e-12
#: Values that are worked on at a time: what is in between a large update and its release fits the cache.
_CHUNK = 1 << 20


def chunks(size: int) -> Iterator[slice]:
    """Slices that cover range(size), in order."""
    return (slice(start, min(start + _CHUNK, size)) for start in range(0, size, _CHUNK))


def check_steps(total: torch.Tensor | Steps) -> Steps:
    """The same vector as an array, (parameters,) int64 grid steps.

    Raises:
        PrivacyError: it is no one-dimensional, non-empty int64 vector.
    """
    if total.dtype not in (torch.int64, np.dtype(np.int64)) or total.ndim != 1 or not 0 < total.shape[0] <= MAX_SIZE:
        raise PrivacyError(
            f"a vector of 1 to {MAX_SIZE} int64 grid steps can be protected, not {total.dtype} {tuple(total.shape)}: "
            "the update stays at the site"
        )
    return np.asarray(total)


def check_update(update: Update) -> None:
    """Refuse what is no update: (parameters,) of float32 or float64, all of it finite.

    Raises:
        PrivacyError: another type or shape, nothing in it, or NaN or infinity.
    """
    if update.dtype not in (np.float32, np.float64) or update.ndim != 1 or not 0 < update.size <= MAX_SIZE:
        raise PrivacyError(
            f"an update is a vector of 1 to {MAX_SIZE} floating-point values, not {update.dtype} {update.shape}: "
            "it stays at the site"
        )
    if not all(np.isfinite(update[part]).all() for part in chunks(update.size)):
        raise PrivacyError("the update holds NaN or infinity: it stays at the site")


def to_float32(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """The same values, rounded to float32; no copy of those that are. Raises PrivacyError when one does not fit."""
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32, copy=False)
    if not np.isfinite(rounded).all():
        raise PrivacyError("a value does not fit float32: the update stays at the site")
    return rounded


def clip_to_grid(gradients: npt.NDArray[np.float64], clip_norm: float) -> Steps:
    """Per-patient gradients, (patients, parameters), clipped in L2 and cut to integer grid steps, then summed.

    Each row is cut toward zero after clipping, so its norm is at most STEPS_PER_CLIP exactly: the sensitivity of the
    sum to one patient is STEPS_PER_CLIP steps, whatever floating point did before. A gradient that is not finite counts
    as zero, and nobody is told: a refusal would say, without noise, that there is such a patient.

    Raises:
        PrivacyError: a clipped row is still too long, which no finite gradient brings about.
    """
    gradients = np.where(np.isfinite(gradients).all(axis=1, keepdims=True), gradients, 0.0)
    norms = np.linalg.norm(gradients, axis=1, keepdims=True)
    factors = np.minimum(1.0, clip_norm / np.maximum(norms, np.finfo(np.float64).tiny)) * _SHRINK
    steps = np.trunc(gradients * factors * (STEPS_PER_CLIP / clip_norm)).astype(np.int64)
    # Sums of squares below 2^53 are exact in float64, and STEPS_PER_CLIP^2 is 2^48.
    if (np.square(steps, dtype=np.float64).sum(axis=1) > STEPS_PER_CLIP**2).any():
        raise PrivacyError("a clipped gradient is longer than the clip norm")
    total: Steps = steps.sum(axis=0)
    return total


def clipped_steps(update: Update, clip_norm: float) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
    """One update, (parameters,), clipped in L2 and cut to grid steps: chunk by chunk, whole numbers as float64.

    The norm of all chunks together is at most STEPS_PER_CLIP, exactly. Drop what was made of them if this raises.

    Raises:
        PrivacyError: the chunks are longer than the clip norm after all.
    """
    factor = _clip_factor(update, clip_norm) * _SHRINK * (STEPS_PER_CLIP / clip_norm)
    squares = 0.0
    for part in chunks(update.size):
        steps = update[part].astype(np.float64)
        steps *= factor
        np.trunc(steps, out=steps)
        # Exact while it is below 2^53; above, it is above STEPS_PER_CLIP^2 = 2^48 for certain.
        squares += _square_norm(steps)
        yield part, steps
    if not squares <= STEPS_PER_CLIP**2:
        raise PrivacyError("the clipped update is longer than the clip norm: it stays at the site")


def _clip_factor(update: Update, clip_norm: float) -> float:
    """min(1, clip_norm / norm), for any finite update."""
    largest = max(float(max(update[part].max(), -update[part].min())) for part in chunks(update.size))
    if largest == 0:
        return 1.0
    unit = math.ldexp(1.0, min(-math.frexp(largest)[1], 1000))  # without it, squares of 1e200 overflow
    squares = 0.0
    for part in chunks(update.size):
        scaled = update[part].astype(np.float64)
        scaled *= unit
        squares += _square_norm(scaled)
    return min(1.0, clip_norm * unit / math.sqrt(squares))


def _square_norm(values: npt.NDArray[np.float64]) -> float:
    """By einsum, which has no threads: those of the BLAS behind `dot` wait for each other when cores are busy."""
    return float(np.einsum("i,i->", values, values))
