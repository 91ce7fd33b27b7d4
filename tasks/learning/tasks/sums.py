"""Figures from noised sums over patients, with the error that the noise alone gives them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tasks.learning.arrays import Floats
from tasks.learning.tasks.task import Task


class Estimate(NamedTuple):
    """A figure under noise; `error`: standard error of the noise alone, not of the few patients."""

    value: float
    error: float


def estimates(task: Task, total: Floats, bins: int, noise_sd: float, *, draws: int = 2000) -> dict[str, Estimate]:
    """Each figure of noised sums, (num_sums,), and its standard error; what noise swamps is left out.

    The error is that of the same estimate after the same noise once more: post-processing, so it costs no privacy.
    """
    found = {name: float(values[0]) for name, values in task.figures_of_sums(total[None], bins).items()}
    noise = np.random.default_rng(0).normal(0.0, noise_sd, (draws, len(total)))
    again = task.figures_of_sums(task.known_of(total)[None] + noise, bins)
    return {
        name: Estimate(value, float(np.nanstd(again[name])))
        for name, value in found.items()
        if np.isfinite(value) and np.isfinite(again[name]).any()
    }
