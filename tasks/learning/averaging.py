"""The weighted average of updates: one pass over each, in memory that does not grow with the number of sites."""

from __future__ import annotations

import torch

from tasks.learning.flat import Shape
from tasks.store.weights import Weights
from tasks.study.sections import Training


class StreamingMean:
    """Sum of weight * update, then divided by the sum of weights.

    Holds one accumulator of the model's size in float32; the caller holds one update at a time.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.total = torch.zeros(shape.num_values, dtype=torch.float32)
        self.weight = 0.0

    def add(self, update: torch.Tensor, weight: float) -> None:
        """Add a flat float32 update, (parameters,). Order matters in the last bit, so callers go by site name."""
        self.total.add_(update, alpha=weight)
        self.weight += weight

    def mean(self) -> Weights:
        """The average by parameter name. Raises ZeroDivisionError before the first `add`."""
        return self.shape.unflatten(self.total.mul_(1.0 / self.weight))


def weight_of(weighting: str, num_examples: int, local_iterations: int) -> float:
    """How much a site's update counts: by local iterations (the paper's), by samples, or all the same."""
    return float({"iterations": local_iterations, "samples": num_examples, "plain": 1}[weighting])


def add_to(base: Weights, delta: Weights) -> Weights:
    """base + delta, in place of delta."""
    return {name: delta[name].add_(base[name]) for name in base}


def averages(training: Training, server_round: int, total_rounds: int) -> bool:
    """Whether the model that counts after this round is a mean of iterates: in the second half of the rounds."""
    return training.average_iterates == "second_half" and 2 * server_round > total_rounds


def running_mean(previous: Weights, count: int, current: Weights) -> Weights:
    """The mean of `count` + 1 iterates, from the mean of the first `count` and the newest."""
    return {name: previous[name] + (current[name] - previous[name]) / (count + 1) for name in previous}
