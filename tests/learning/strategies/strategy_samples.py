"""Sections, weights and updates that the tests of strategies share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from tasks.learning.strategies import strategy_of
from tasks.learning.strategies.strategy import Strategy
from tasks.store.weights import Weights
from tasks.study.strategy import StrategySettings

#: Every strategy of a study, with what it must be given.
GIVEN: dict[str, dict[str, Any]] = {
    "fed_avg": {},
    "fed_prox": {"mu": 0.5},
    "fed_avg_m": {"server_lr": 0.7, "momentum": 0.6},
    "fed_adam": {"server_lr": 0.05, "beta_1": 0.8, "beta_2": 0.95, "tau": 0.01},
    "fed_yogi": {"server_lr": 0.05, "beta_1": 0.8, "beta_2": 0.95, "tau": 0.01},
    "fed_adagrad": {"server_lr": 0.05, "beta_1": 0.3, "tau": 0.01},
    "median": {},
    "trimmed_mean": {"trim": 1},
    "krum": {"byzantine": 1},
    "multi_krum": {"byzantine": 1, "keep": 2},
    "scaffold": {"server_lr": 0.7},
    "fed_bn": {"layers": ("b",)},
    "fine_tune": {"times": 2},
    "ditto": {"mu": 0.5},
}
BASE: Weights = {"a": torch.tensor([[1.0, -2.0], [0.5, 0.0]]), "b": torch.tensor([3.0])}
_READ: TypeAdapter[StrategySettings] = TypeAdapter(StrategySettings)


def section(name: str, **changes: Any) -> StrategySettings:
    return _READ.validate_python({"name": name} | GIVEN[name] | changes)


def strategy(name: str, **changes: Any) -> Strategy:
    return strategy_of(section(name, **changes))


def updates(sites: int, seed: int, scale: float = 1.0) -> list[torch.Tensor]:
    """One flat update of five values for each site."""
    rng = np.random.default_rng(seed)
    return [torch.tensor(rng.normal(0, scale, 5), dtype=torch.float32) for _ in range(sites)]


def combined(name: str, given: list[torch.Tensor], base: Weights = BASE, **changes: Any) -> torch.Tensor:
    """What updates of the base's size come to, flat, through the door that hub and simulation use."""
    combiner = strategy(name, **changes).combiner(base)
    for update in given:
        combiner.add(update, 1.0)
    return torch.cat([tensor.flatten() for tensor in combiner.mean().values()])
