"""The `privacy` section of a study: which mechanism stands between a site's update and the world, and its budget.

A bare `epsilon` is the total over `rounds.total` rounds. What each mechanism promises stands in its own module under
`tasks.privacy.mechanisms`; what it may be combined with stands here as an allow-list, and `tasks.study.fits` asks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.foreign.bounds import MAX_COUNT, MAX_SITES

Epsilon = Annotated[float, Field(gt=0, le=100, description="total over `rounds.total` rounds")]
Delta = Annotated[float, Field(gt=0, lt=0.1)]
Protected = Literal["patient", "site", "nothing"]
Fraction = Annotated[float, Field(gt=0, le=1, description="share of the components that are sent")]


class Section(BaseModel):
    """Frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Needs:
    """What a mechanism may be combined with. It is an allow-list: what is not named is refused, so by default all is.

    channels: values of `channel` under which its updates may travel. weightings: values of `training.weighting`
    under which its promise holds. per_patient: it bounds each patient's gradient, so training is one full-batch step.
    counts: `evaluation.score_bins` may ride on its sum. codecs_that_look: what leaves in the open is private by itself,
    so that whatever is computed of it, with its values in view, is post-processing.
    """

    channels: frozenset[str] = frozenset()
    weightings: frozenset[str] = frozenset()
    per_patient: bool = False
    counts: bool = False
    codecs_that_look: bool = False


class PrivacySection(Section):
    """A mechanism's own section. `unit`: who is protected, or "nothing"; `needs`: what it may be combined with."""

    unit: ClassVar[Protected]
    needs: ClassVar[Needs] = Needs()

    @property
    def promises(self) -> bool:
        """Whether it protects anybody, so that its spends are a budget."""
        return self.unit != "nothing"

    @property
    def patient_clip(self) -> float | None:
        """Largest L2 norm of one patient's gradient; None where no patient's gradient is bounded."""
        return None

    @property
    def public_patients(self) -> int | None:
        """How many patients the study says that all sites have, where its step is divided by that."""
        return None


class NoPrivacy(PrivacySection):
    """Raw updates leave the site. Only for public data, and only when the study owns up to it."""

    unit: ClassVar[Protected] = "nothing"
    needs: ClassVar[Needs] = Needs(
        channels=frozenset({"plain", "masks", "ckks"}),
        weightings=frozenset({"plain", "iterations", "samples"}),
        codecs_that_look=True,
    )

    mechanism: Literal["none"]
    i_accept_no_privacy: Literal[True]


class PatientLevel(PrivacySection):
    """What the two patient-level mechanisms share: one clipped full-batch gradient step a round."""

    unit: ClassVar[Protected] = "patient"

    epsilon: Epsilon
    delta: Delta
    clip_norm: float = Field(gt=0, description="C: largest L2 norm of one patient's gradient")
    public_num_examples: int = Field(
        gt=0, le=MAX_COUNT, description="N: the divisor of the summed gradients, a public planning figure"
    )

    @property
    def patient_clip(self) -> float:
        return self.clip_norm

    @property
    def public_patients(self) -> int:
        return self.public_num_examples


class LocalDP(PatientLevel):
    """Patient-level differential privacy of each update by itself (see `tasks.privacy.mechanisms.local_dp`)."""

    needs: ClassVar[Needs] = Needs(
        channels=frozenset({"plain"}),
        weightings=frozenset({"plain", "iterations"}),
        per_patient=True,
        codecs_that_look=True,
    )

    mechanism: Literal["local_dp"]


class NoiseShares(PrivacySection):
    """Noise that the sites of a masked sum bring together: each adds its share, and a lost site takes its own along."""

    tolerated_dropouts: int = Field(
        default=1, ge=0, le=MAX_SITES, description="sites that may be lost after masks are agreed"
    )
    colluding_sites: int = Field(
        default=1, ge=0, le=MAX_SITES, description="sites that may tell the hub their noise and masks"
    )


class DistributedDP(PatientLevel, NoiseShares):
    """Patient-level differential privacy of the sum, behind masks (see `tasks.privacy.mechanisms.distributed_dp`)."""

    needs: ClassVar[Needs] = Needs(
        channels=frozenset({"masks"}), weightings=frozenset({"plain", "iterations"}), per_patient=True, counts=True
    )

    mechanism: Literal["distributed_dp"]


class GaussianUpdate(NoiseShares):
    """Site-level differential privacy of a clipped update (see `tasks.privacy.mechanisms.gaussian_update`)."""

    unit: ClassVar[Protected] = "site"
    needs: ClassVar[Needs] = Needs(
        channels=frozenset({"plain", "masks", "ckks"}), weightings=frozenset({"plain"}), codecs_that_look=True
    )

    mechanism: Literal["gaussian_update"]
    epsilon: Epsilon
    delta: Delta
    clip_norm: float = Field(gt=0, description="S: largest L2 norm of a site's update")


class BudgetShares(Section):
    """How a round's epsilon is divided among the three noises of the sparse vector technique; any positive numbers."""

    query: float = Field(default=1.0, gt=0, description="epsilon_1: which components pass the threshold")
    threshold: float = Field(default=1.0, gt=0, description="epsilon_2: the threshold itself")
    release: float = Field(default=1.0, gt=0, description="epsilon_3: the values that are sent")


class SparseVector(PrivacySection):
    """Site-level selective sharing by the sparse vector technique (see `tasks.privacy.mechanisms.svt`)."""

    unit: ClassVar[Protected] = "site"
    needs: ClassVar[Needs] = Needs(
        channels=frozenset({"plain"}), weightings=frozenset({"plain", "iterations"}), codecs_that_look=True
    )

    mechanism: Literal["svt"]
    epsilon: Epsilon
    delta: Delta
    fraction: Fraction
    gamma: float = Field(gt=0, description="bound on one component of the update per local iteration")
    tau: float = Field(ge=0, description="threshold on one component, public")
    shares: BudgetShares = BudgetShares()

    @model_validator(mode="after")
    def _reachable(self) -> SparseVector:
        if self.tau > self.gamma:
            raise ValueError(f"privacy.tau is {self.tau}, above privacy.gamma {self.gamma}: nothing would pass it")
        return self


Privacy = Annotated[
    NoPrivacy | LocalDP | DistributedDP | GaussianUpdate | SparseVector,
    Field(discriminator="mechanism"),
]
#: Mechanism -> its section; one section may have several.
PRIVACY_SECTIONS: dict[str, type[PrivacySection]] = {
    name: section
    for section in get_args(get_args(Privacy)[0])
    for name in get_args(section.model_fields["mechanism"].annotation)
}


def promises(mechanism: str) -> bool:
    """Whether the mechanism of this name protects anybody; one that nobody knows does not."""
    section = PRIVACY_SECTIONS.get(mechanism)
    return section is not None and section.unit != "nothing"


def noise_shares(privacy: Privacy) -> tuple[int, int]:
    """How many sites a masked sum may lose, and how many may collude with the hub, before its promise is void."""
    if isinstance(privacy, NoiseShares):
        return privacy.tolerated_dropouts, privacy.colluding_sites
    return 1, 1


def sent_fraction(privacy: Privacy) -> float | None:
    """The share of components that a mechanism releases at most; None where it releases all of them."""
    return privacy.fraction if isinstance(privacy, SparseVector) else None
