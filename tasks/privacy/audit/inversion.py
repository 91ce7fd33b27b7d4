"""Records from a gradient, by exact algebra.

One patient: the first layer's gradient is g_W = e x' and g_b = e, so x = g_W / g_b, whatever e is: clipping and
learning rates cancel (Phong et al. 2018).

A batch, through a layer of ReLU units: unit h's rows are (g_W, g_b)_h = v_h sum_i c_i A_hi (x_i, 1), with v_h the known
weight that follows, c_i unknown, and A_hi = 1 where patient i activates unit h. Divided by v_h they are the matrix
A diag(c) X, whose rank is the batch's size and whose columns span binary vectors: those are found by trying all, and a
set of them is right when the records that it gives activate the units just so (idea: Dimitrov et al. 2024, SPEAR,
arXiv 2403.03945).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linprog

from tasks.learning.arrays import Floats
from tasks.learning.flat import unflatten
from tasks.store.weights import Weights

#: All binary vectors of so many units are tried.
MAX_UNITS = 16
#: At most so many patterns are looked at, and so many sets of them are tried.
_MAX_PATTERNS, _MAX_SETS = 4_000, 100_000
#: Gradients are cut to a grid of 6e-8 of the clip norm: what is smaller than this beside the rest is rounding.
_ROUNDING = 1e-5
_IN_SPAN = 1e-4


def by_parameter(seen: Floats, weights: Weights) -> dict[str, Floats]:
    """A flat vector as named arrays."""
    return {name: piece.numpy() for name, piece in unflatten(torch.from_numpy(seen), weights).items()}


def first_layer(weights: Weights, num_inputs: int) -> str | None:
    """Name of the layer that reads the inputs: it has a bias and `num_inputs` columns. None where there is none."""
    for name, tensor in weights.items():
        layer = name.removesuffix(".weight")
        if layer != name and tensor.ndim == 2 and tensor.shape[1] == num_inputs and f"{layer}.bias" in weights:
            return layer
    return None


def by_ratio(seen: Floats, weights: Weights, layer: str) -> Floats:
    """The record of one patient, (inputs,): g_W / g_b at the unit with the largest |g_b|."""
    named = by_parameter(seen, weights)
    bias = named[f"{layer}.bias"]
    unit = int(np.abs(bias).argmax())
    divisor = bias[unit] if bias[unit] != 0 else 1e-300
    found: Floats = named[f"{layer}.weight"][unit] / divisor
    return found


def by_patterns(seen: Floats, weights: Weights, layer: str, following: Floats, limits: Floats, *, seed: int) -> Floats:
    """The records of a batch, (found, inputs), from a ReLU layer; none where no set of patterns fits exactly.

    Args:
        following: the one weight that follows each unit, (units,).
        limits: largest absolute value of each input, (inputs,).
    """
    named = by_parameter(seen, weights)
    rows = np.column_stack([named[f"{layer}.weight"], named[f"{layer}.bias"]]) / following[:, None]
    incoming = np.column_stack([weights[f"{layer}.weight"].double(), weights[f"{layer}.bias"].double()])
    left, scale, right = np.linalg.svd(rows, full_matrices=False)
    rank = int((scale > _ROUNDING * scale[0]).sum())
    none = np.empty((0, len(limits)))
    if rank >= len(rows) or len(rows) > MAX_UNITS:
        return none
    patterns = _patterns_in(left[:, :rank])
    if len(patterns) > _MAX_PATTERNS:
        return none
    possible = [pattern for pattern in patterns if _possible(pattern, incoming, right[:rank], limits)]
    if len(possible) < rank:
        return none
    return _consistent(np.array(possible), rank, rows, incoming, np.random.default_rng(seed))


def _patterns_in(basis: Floats) -> Floats:
    """All binary vectors, but zero, that lie in the span of an orthonormal basis (units, rank)."""
    units = len(basis)
    every = ((np.arange(1, 1 << units)[:, None] >> np.arange(units)) & 1).astype(np.float64)
    outside = np.square(every).sum(axis=1) - np.square(every @ basis).sum(axis=1)
    found: Floats = every[outside < _IN_SPAN]
    return found


def _possible(pattern: Floats, incoming: Floats, span: Floats, limits: Floats) -> bool:
    """Whether a record within the public ranges, in the span of the rows, activates the units so (linear program)."""
    signs = (1 - 2 * pattern)[:, None] * (incoming @ span.T)
    inside = np.concatenate([span[:, :-1].T, -span[:, :-1].T])
    bounds = np.concatenate([np.zeros(len(signs)), limits, limits]) + 1e-6
    answer = linprog(
        np.zeros(len(span)),
        A_ub=np.concatenate([signs, inside]),
        b_ub=bounds,
        A_eq=span[:, -1:].T,
        b_eq=[1.0],
        bounds=(None, None),
    )
    return bool(answer.status == 0)


def _consistent(possible: Floats, rank: int, rows: Floats, incoming: Floats, rng: np.random.Generator) -> Floats:
    """The records of the first set of patterns whose records activate just these units."""
    sets = _sets(len(possible), rank, rng)
    chosen = possible[sets].transpose(0, 2, 1)
    normal = np.einsum("nhi,nhj->nij", chosen, chosen)
    regular = np.abs(np.linalg.det(normal)) > 1e-6
    chosen, normal = chosen[regular], normal[regular]
    solved = np.linalg.solve(normal, np.einsum("nhi,hd->nid", chosen, rows))
    with np.errstate(divide="ignore", invalid="ignore"):
        records = solved / solved[..., -1:]
        active = np.einsum("nid,hd->nhi", records, incoming) > 0
    right = np.flatnonzero((active == (chosen > 0.5)).all(axis=(1, 2)) & np.isfinite(records).all(axis=(1, 2)))
    found: Floats = records[right[0], :, :-1] if right.size else np.empty((0, rows.shape[1] - 1))
    return found


def _sets(count: int, rank: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """All sets of `rank` out of `count`, or as many random ones as may be tried."""
    if comb(count, rank) <= _MAX_SETS:
        return np.array(list(combinations(range(count), rank)), dtype=np.int64)
    drawn = np.sort(rng.integers(count, size=(_MAX_SETS, rank)), axis=1)
    return drawn[(np.diff(drawn, axis=1) > 0).all(axis=1)]


def relu_layer(weights: Mapping[str, torch.Tensor], layer: str) -> Floats | None:
    """The weight that follows each unit of `layer`, if one linear unit follows it at once; else None."""
    units = len(weights[f"{layer}.bias"])
    if units < 2:
        return None
    for name, tensor in weights.items():
        if name != f"{layer}.weight" and tuple(tensor.shape) == (1, units):
            found: Floats = tensor[0].double().numpy()
            return found
    return None
