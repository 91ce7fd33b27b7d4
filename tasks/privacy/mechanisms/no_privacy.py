"""No mechanism: updates leave as they are, or as a sum of them as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.learning.arrays import Floats
from tasks.privacy.mechanisms.mechanism import Mechanism, Sent
from tasks.privacy.mechanisms.part import Part
from tasks.privacy.noise.source import NoiseSource
from tasks.privacy.secure_sum.contribution import Maskable
from tasks.privacy.secure_sum.masks import encode_fixed_point
from tasks.store.records.ledger import Spend
from tasks.store.records.round import Plan
from tasks.store.weights import Weights
from tasks.study.channels import PLAIN, Channel
from tasks.study.privacy import NoPrivacy

#: Step of the fixed-point grid of a masked sum without noise: a billionth of a weight.
FIXED_POINT_STEP = 2.0**-30


@dataclass(frozen=True)
class NoPrivacyMechanism(Mechanism):
    """Nothing.

    Guarantee
        unit: none. A masked sum hides which site an update is of; nothing bounds what the sum tells.

    Edge cases
        NaN, infinity, beyond float32: PrivacyError. a weighted value beyond the fixed-point grid: PrivacyError.
    """

    settings: NoPrivacy
    total_rounds: int

    def spend(self, releases: int, channel: Channel = PLAIN) -> Spend:
        """The `releases`-th release: there is no budget."""
        what = "the sum of raw updates is told" if channel.adds_only else "raw updates are shared"
        return Spend(mechanism="none", unit="nothing", neighbours=f"none: {what}", releases=releases)

    def words(self) -> str:
        return "none"

    def release(self, part: Part, noise: NoiseSource) -> Sent:
        return part.update

    def share(self, part: Part, sites: int, noise: NoiseSource) -> Maskable:
        values = encode_fixed_point(part.update.astype(np.float64) * part.weight, FIXED_POINT_STEP, sites)
        return Maskable(values, FIXED_POINT_STEP, sites)

    def read(self, total: Floats, plan: Plan, base: Weights, weights: Sequence[float]) -> Floats:
        return total * (FIXED_POINT_STEP / sum(weights))
