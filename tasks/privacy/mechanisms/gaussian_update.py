"""Site-level differential privacy of a clipped update, by itself or as part of a masked sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.learning.arrays import Floats
from tasks.privacy.accounting import noise_multiplier_for, noise_share
from tasks.privacy.mechanisms.gaussian import NOBODY, check_sampler, gaussian_spend, masks_trust
from tasks.privacy.mechanisms.mechanism import Mechanism, Sent
from tasks.privacy.mechanisms.part import Part
from tasks.privacy.noise.grid import STEPS_PER_CLIP, Steps, Update, check_update, clipped_steps, to_float32
from tasks.privacy.noise.source import NoiseSource, gaps
from tasks.privacy.secure_sum.contribution import Maskable
from tasks.store.records.ledger import Spend
from tasks.store.records.round import Plan
from tasks.store.weights import Weights
from tasks.study.channels import PLAIN, Channel
from tasks.study.privacy import GaussianUpdate

NEIGHBOURS = "federations that differ in whether one site contributes, or nothing (zero) stands in its place"


@dataclass(frozen=True)
class GaussianUpdateMechanism(Mechanism):
    """Gaussian mechanism on a site's whole update, clipped in L2. The update may come from any number of local steps.

    Guarantee
        unit: one site, with all its patients. neighbours: that site contributes, or nothing (zero) stands in its place.
        sensitivity: clip_norm in L2, exact on the integer grid (`tasks.privacy.noise.grid.clipped_steps`).
        spend: 1/noise_multiplier-GDP a round; sqrt(T)/noise_multiplier-GDP over T rounds, exact.
        trust: `privatize`: nobody. `privatize_share`: the masks, and what `distributed_dp` says of lost and colluding
            sites; one share is NOT private by itself at the stated epsilon.
        epsilon: total over `rounds.total` rounds of the study, at `delta`.
        public: which sites there are, the number of patients and of local iterations of each.

    Edge cases
        zero: released as noise. NaN, infinity, empty, not one-dimensional, not floating point: PrivacyError, nothing is
        drawn. too few sites for a share: the same. a round beyond `rounds.total`: BudgetExhausted.

    Source: McMahan et al. 2018 (arXiv 1710.06963, clipped updates with Gaussian noise), at sampling rate 1;
    accounting: Dong et al. 2022.
    """

    settings: GaussianUpdate
    total_rounds: int

    @property
    def noise_multiplier(self) -> float:
        """sd of the noise over the sensitivity, for the whole study's epsilon."""
        return noise_multiplier_for(self.settings.epsilon, self.settings.delta, self.total_rounds)

    def share_sd(self, sites: int) -> float:
        """sd of one site's noise in grid steps, when `sites` contribute to a masked sum.

        Raises:
            PrivacyError: no site is left when the tolerated ones are lost or collude.
        """
        sd = self.noise_multiplier * STEPS_PER_CLIP
        return noise_share(sd, sites, self.settings.tolerated_dropouts, self.settings.colluding_sites)

    def spend(self, releases: int, channel: Channel = PLAIN) -> Spend:
        """What the site has spent after its `releases`-th release, by itself or behind masks.

        Raises:
            BudgetExhausted: the study's budget pays for fewer releases.
        """
        trust = masks_trust(self.settings) if channel.exact else NOBODY
        return gaussian_spend(
            self.settings, self.total_rounds, releases, unit="site", neighbours=NEIGHBOURS, trust=trust
        )

    def privatize(self, update: Update, noise: NoiseSource) -> npt.NDArray[np.float32]:
        """The clipped update, (parameters,), with all the noise: it may be seen by anybody.

        Raises:
            PrivacyError: the update is no finite floating-point vector, no noise can be drawn, or what comes out does
                not fit float32.
        """
        check_update(update)
        sd, step = self.noise_multiplier * STEPS_PER_CLIP, self.settings.clip_norm / STEPS_PER_CLIP
        check_sampler(gaps("gaussian", update.size, sd), self.total_rounds, self.settings.epsilon, self.settings.delta)
        released = np.empty(update.size, dtype=np.float32)
        for part, steps in clipped_steps(update, self.settings.clip_norm):
            steps += noise.gaussian(steps.size, sd)
            released[part] = to_float32(steps * step)
        return released

    def privatize_share(self, update: Update, sites: int, noise: NoiseSource) -> Maskable:
        """The clipped update, (parameters,), with this site's share of the noise, for a masked sum over `sites`.

        Raises:
            PrivacyError: the update is no finite floating-point vector, there are too few sites, or no noise can be
                drawn.
        """
        check_update(update)
        sd = self.share_sd(sites)
        in_gaps = sites * gaps("gaussian", update.size, sd)
        check_sampler(in_gaps, self.total_rounds, self.settings.epsilon, self.settings.delta)
        values: Steps = np.empty(update.size, dtype=np.int64)
        for part, steps in clipped_steps(update, self.settings.clip_norm):
            steps += noise.gaussian(steps.size, sd)
            values[part] = steps
        return Maskable(values, self.settings.clip_norm / STEPS_PER_CLIP, sites)

    def release(self, part: Part, noise: NoiseSource) -> Sent:
        return self.privatize(part.update, noise)

    def share(self, part: Part, sites: int, noise: NoiseSource) -> Maskable:
        return self.privatize_share(part.update, sites, noise)

    def read(self, total: Floats, plan: Plan, base: Weights, weights: Sequence[float]) -> Floats:
        """The mean over who contributed."""
        return total * (self.settings.clip_norm / STEPS_PER_CLIP / len(weights))

    def trace(self, update: Floats, local_iterations: int) -> Floats:
        return update * min(1.0, self.settings.clip_norm / max(float(np.linalg.norm(update)), 1e-300))

    def words(self) -> str:
        return f"gaussian_update: a site clips its update to norm {self.settings.clip_norm:g} and adds Gaussian noise"
