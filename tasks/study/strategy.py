"""The `strategy` section of a study: how sites' updates become the next model, and what of it happens at a site.

What each one computes is in `tasks.learning.strategies`, one module of its name each. What it goes with is asked in
`tasks.study.fits`. Whatever a strategy does with what a mechanism has released costs no privacy: it is post-processing.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, model_validator

from tasks.foreign.bounds import MAX_SITES, Name
from tasks.study.privacy import Section

ServerRate = Annotated[float, Field(gt=0, le=100, description="factor on the step that the hub takes")]
Decay = Annotated[float, Field(ge=0, lt=1)]
NumSites = Annotated[int, Field(ge=0, le=MAX_SITES)]


class StrategySection(Section):
    """What every strategy's section has.

    needs_each: it looks at single updates, so they must come one by one, in the open, each the whole update of a site.
    needs_steps: it changes nothing unless a site takes several local steps.
    corrects: it corrects each local step, and sites send a second vector beside their update.
    keeps_layers: some layers of the model stay at each site, and are not sent.
    personal: each site has a model of its own beside the global one, which never leaves it.
    """

    needs_each: ClassVar[bool] = False
    needs_steps: ClassVar[bool] = False
    corrects: ClassVar[bool] = False
    keeps_layers: ClassVar[bool] = False
    personal: ClassVar[bool] = False

    @property
    def fewest_sites(self) -> int:
        """Updates that it needs, or it cannot do what it promises."""
        return 1

    @property
    def keeps(self) -> bool:
        """Whether a site keeps something of it from one round to the next, which its training needs."""
        return self.corrects or self.keeps_layers


class FedAvgSettings(StrategySection):
    """The weighted mean, as `training.weighting` says."""

    name: Literal["fed_avg"] = "fed_avg"


class FedProxSettings(StrategySection):
    """The mean, of sites that are held near the model they started from."""

    needs_steps: ClassVar[bool] = True

    name: Literal["fed_prox"]
    mu: float = Field(gt=0, le=1000, description="mu/2 times the squared distance from the base is added to the loss")


class FedAvgMSettings(StrategySection):
    """The mean, with momentum at the hub."""

    name: Literal["fed_avg_m"]
    server_lr: ServerRate = 1.0
    momentum: Decay = 0.9


class AdaptiveSettings(StrategySection):
    """A rate of its own for each parameter, at the hub."""

    server_lr: ServerRate = 0.1
    beta_1: Decay = 0.9
    tau: float = Field(default=1e-3, gt=0, le=10, description="added to each root; the first one is as large")


class FedAdamSettings(AdaptiveSettings):
    """See `tasks.learning.strategies.fed_adam`."""

    name: Literal["fed_adam"]
    beta_2: Decay = 0.99


class FedYogiSettings(AdaptiveSettings):
    """See `tasks.learning.strategies.fed_yogi`."""

    name: Literal["fed_yogi"]
    beta_2: Decay = 0.99


class FedAdagradSettings(AdaptiveSettings):
    """See `tasks.learning.strategies.fed_adagrad`."""

    name: Literal["fed_adagrad"]
    beta_1: Decay = 0.0


class MedianSettings(StrategySection):
    """The median of each parameter."""

    needs_each: ClassVar[bool] = True

    name: Literal["median"]

    @property
    def fewest_sites(self) -> int:
        return 3


class TrimmedMeanSettings(StrategySection):
    """The mean of each parameter without its `trim` smallest and `trim` largest values."""

    needs_each: ClassVar[bool] = True

    name: Literal["trimmed_mean"]
    trim: NumSites = Field(description="sites left out at each end; as many may send anything")

    @property
    def fewest_sites(self) -> int:
        return 2 * self.trim + 1


class KrumSettings(StrategySection):
    """The update, or for `multi_krum` the mean of the `keep` updates, that are nearest to their neighbours."""

    needs_each: ClassVar[bool] = True

    name: Literal["krum", "multi_krum"]
    byzantine: NumSites = Field(description="f: sites that may send anything")
    keep: Annotated[int, Field(ge=1, le=MAX_SITES)] = Field(default=1, description="m: updates that are averaged")

    @property
    def fewest_sites(self) -> int:
        """n >= 2f + 3 (Blanchard et al. 2017), and m <= n - f - 2 (El Mhamdi et al. 2018)."""
        return max(2 * self.byzantine + 3, self.keep + self.byzantine + 2)

    @model_validator(mode="after")
    def _keeps_what_its_name_says(self) -> KrumSettings:
        if (self.name == "krum") != (self.keep == 1):
            raise ValueError("strategy.keep is 1 with strategy.name krum, and above 1 with multi_krum")
        return self


class ScaffoldSettings(StrategySection):
    """Each local step corrected by how a site's gradients differ from everybody's."""

    needs_steps: ClassVar[bool] = True
    corrects: ClassVar[bool] = True

    name: Literal["scaffold"]
    server_lr: ServerRate = 1.0


class FedBNSettings(StrategySection):
    """The mean of all layers but some, which each site has for itself: above all those that normalise."""

    keeps_layers: ClassVar[bool] = True

    name: Literal["fed_bn"]
    layers: Annotated[
        tuple[Name, ...], Field(min_length=1, max_length=64, description="as the model's class names them")
    ]


class FineTuneSettings(StrategySection):
    """The mean, and at each site the new model trained on, on its own patients."""

    personal: ClassVar[bool] = True

    name: Literal["fine_tune"]
    times: Annotated[int, Field(ge=1, le=1000)] = Field(default=1, description="local trainings, as in a round")


class DittoSettings(StrategySection):
    """The mean, and at each site a model that goes its own way, held near the global one."""

    personal: ClassVar[bool] = True

    name: Literal["ditto"]
    mu: float = Field(gt=0, le=1000, description="mu/2 times the squared distance from the global model")


StrategySettings = Annotated[
    FedAvgSettings
    | FedProxSettings
    | FedAvgMSettings
    | FedAdamSettings
    | FedYogiSettings
    | FedAdagradSettings
    | MedianSettings
    | TrimmedMeanSettings
    | KrumSettings
    | ScaffoldSettings
    | FedBNSettings
    | FineTuneSettings
    | DittoSettings,
    Field(discriminator="name"),
]
#: What a study does that says nothing.
FED_AVG = FedAvgSettings(name="fed_avg")
#: Name -> its section; one section may have several.
STRATEGY_SECTIONS: dict[str, type[StrategySection]] = {
    name: section
    for section in get_args(get_args(StrategySettings)[0])
    for name in get_args(section.model_fields["name"].annotation)
}
