"""Small named weights, and their values by numpy."""

from __future__ import annotations

import numpy as np
import torch

from tasks.learning.flat import Shape
from tasks.store.weights import Weights

SHAPES = {"hidden.bias": (3,), "hidden.weight": (3, 2), "out.weight": (1, 3)}


def model(seed: int, shapes: dict[str, tuple[int, ...]] = SHAPES) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def flat(weights: Weights) -> np.ndarray:
    return np.concatenate([tensor.double().numpy().ravel() for tensor in weights.values()])


SHAPE = Shape.of(model(0))
