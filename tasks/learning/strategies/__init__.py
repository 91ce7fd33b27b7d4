"""From sites' updates to the next model: one module for each `strategy.name` of a study.

fed_avg       the weighted mean
fed_prox      the mean, of sites held near their base
fed_avg_m     momentum at the hub
fed_adam      a rate for each parameter, by a moving average of squares
fed_yogi      the same, by squares that change slowly
fed_adagrad   the same, by the sum of squares
adaptive      what those three share
median        of each parameter
trimmed_mean  of each parameter, without the ends
krum          the updates nearest to their neighbours
scaffold      local steps corrected by control variates
fed_bn        the mean of all layers but some, which each site has for itself
fine_tune     the mean, and at each site the new model trained on
ditto         the mean, and at each site a model held near it
strategy      what every strategy answers, and a round's step
state         what the hub keeps for it from round to round

A new one is a module here, its section in `tasks.study.strategy`, and a line in the table below.
"""

from __future__ import annotations

from typing import assert_never

from tasks.learning.strategies.ditto import Ditto
from tasks.learning.strategies.fed_adagrad import FedAdagrad
from tasks.learning.strategies.fed_adam import FedAdam
from tasks.learning.strategies.fed_avg import FedAvg
from tasks.learning.strategies.fed_avg_m import FedAvgM
from tasks.learning.strategies.fed_bn import FedBN
from tasks.learning.strategies.fed_prox import FedProx
from tasks.learning.strategies.fed_yogi import FedYogi
from tasks.learning.strategies.fine_tune import FineTune
from tasks.learning.strategies.krum import Krum
from tasks.learning.strategies.median import Median
from tasks.learning.strategies.scaffold import Scaffold
from tasks.learning.strategies.strategy import Strategy
from tasks.learning.strategies.trimmed_mean import TrimmedMean
from tasks.study.strategy import (
    DittoSettings,
    FedAdagradSettings,
    FedAdamSettings,
    FedAvgMSettings,
    FedAvgSettings,
    FedBNSettings,
    FedProxSettings,
    FedYogiSettings,
    FineTuneSettings,
    KrumSettings,
    MedianSettings,
    ScaffoldSettings,
    StrategySettings,
    TrimmedMeanSettings,
)


def strategy_of(settings: StrategySettings) -> Strategy:
    """The strategy of a study's section. The type checker refuses a section that has none."""
    match settings:
        case FedAvgSettings():
            return FedAvg(settings)
        case FedProxSettings():
            return FedProx(settings)
        case FedAvgMSettings():
            return FedAvgM(settings)
        case FedAdamSettings():
            return FedAdam(settings)
        case FedYogiSettings():
            return FedYogi(settings)
        case FedAdagradSettings():
            return FedAdagrad(settings)
        case MedianSettings():
            return Median(settings)
        case TrimmedMeanSettings():
            return TrimmedMean(settings)
        case KrumSettings():
            return Krum(settings)
        case ScaffoldSettings():
            return Scaffold(settings)
        case FedBNSettings():
            return FedBN(settings)
        case FineTuneSettings():
            return FineTune(settings)
        case DittoSettings():
            return Ditto(settings)
    assert_never(settings)
