"""The mechanisms: each file has its guarantee, its edge cases and its source.

local_dp         patient-level, each update by itself
distributed_dp   patient-level, of the sum behind masks
gaussian_update  site-level, of a clipped update
svt              site-level selective sharing
gaussian         what those with Gaussian noise have in common
no_privacy       raw updates
mechanism        what every mechanism answers
part             what a mechanism is given

A new one is a file here, its section in `tasks.study.privacy`, and a line in the table below.
docs/architecture.md adds one.
"""

from __future__ import annotations

from typing import assert_never

from tasks.privacy.mechanisms.distributed_dp import DistributedDPMechanism
from tasks.privacy.mechanisms.gaussian_update import GaussianUpdateMechanism
from tasks.privacy.mechanisms.local_dp import LocalDPMechanism
from tasks.privacy.mechanisms.mechanism import Mechanism
from tasks.privacy.mechanisms.no_privacy import NoPrivacyMechanism
from tasks.privacy.mechanisms.svt import SparseVectorMechanism
from tasks.store.records.round import Plan
from tasks.study.privacy import (
    DistributedDP,
    GaussianUpdate,
    LocalDP,
    NoPrivacy,
    Privacy,
    SparseVector,
)


def mechanism_of(plan: Plan) -> Mechanism:
    """The mechanism that a round's plan asks for."""
    return mechanism_for(plan.privacy, plan.total_rounds)


def mechanism_for(settings: Privacy, total_rounds: int) -> Mechanism:
    """The mechanism of a study's section, for so many rounds. The type checker refuses a section that has none."""
    match settings:
        case NoPrivacy():
            return NoPrivacyMechanism(settings, total_rounds)
        case LocalDP():
            return LocalDPMechanism(settings, total_rounds)
        case DistributedDP():
            return DistributedDPMechanism(settings, total_rounds)
        case GaussianUpdate():
            return GaussianUpdateMechanism(settings, total_rounds)
        case SparseVector():
            return SparseVectorMechanism(settings, total_rounds)
    assert_never(settings)
