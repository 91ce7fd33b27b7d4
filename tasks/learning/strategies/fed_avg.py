"""The weighted mean of sites' updates."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.learning.strategies.strategy import Strategy
from tasks.study.strategy import FedAvgSettings


@dataclass(frozen=True)
class FedAvg(Strategy):
    """McMahan et al. 2017, arXiv:1602.05629, algorithm 1: the next model is the base plus the mean update."""

    settings: FedAvgSettings
