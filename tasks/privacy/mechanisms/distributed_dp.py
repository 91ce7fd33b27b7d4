"""Patient-level differential privacy of the sum over sites: each adds a share of the noise and hides behind masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tasks.learning.arrays import Floats
from tasks.learning.flat import flatten
from tasks.privacy.accounting import noise_multiplier_for, noise_share
from tasks.privacy.mechanisms.gaussian import check_sampler, gaussian_spend, masks_trust
from tasks.privacy.mechanisms.local_dp import NEIGHBOURS
from tasks.privacy.mechanisms.mechanism import Mechanism
from tasks.privacy.mechanisms.part import Part
from tasks.privacy.noise.grid import STEPS_PER_CLIP, Steps, check_steps
from tasks.privacy.noise.source import NoiseSource, gaps
from tasks.privacy.secure_sum.contribution import Maskable
from tasks.store.records.ledger import Spend
from tasks.store.records.round import Plan
from tasks.store.weights import Weights
from tasks.study.channels import PLAIN, Channel
from tasks.study.privacy import DistributedDP


@dataclass(frozen=True)
class DistributedDPMechanism(Mechanism):
    """Gaussian mechanism on the sum over all sites of clipped per-patient gradients.

    One contribution is NOT private by itself at the stated epsilon: it has 1/sqrt(sites - lost - colluding) of the
    noise. Only the sum keeps the promise, so `privatize` gives a `Maskable`, which only the masking step opens.

    Guarantee
        unit: one training patient. neighbours: that patient contributes, or nothing stands in its place.
        sensitivity: clip_norm in L2, exact on the integer grid (`tasks.privacy.noise.grid.clip_to_grid`).
        spend: of the sum, at most 1/noise_multiplier-GDP a round; sqrt(T)/noise_multiplier-GDP over T rounds.
        trust: the masks; up to `tolerated_dropouts` sites may be lost and `colluding_sites` tell their noise.
            Whoever sees one contribution without its mask is promised nothing. A sum of fewer than
            sites - tolerated_dropouts contributions must not be opened.
        epsilon: total over `rounds.total` rounds of the study, at `delta`.
        public: the number of patients of a site, the number of sites, and N.

    Edge cases
        zero: contributed as noise. NaN or infinite gradients: zero before it (`clip_to_grid`), told to nobody.
        empty, not one-dimensional, not int64: PrivacyError, nothing is drawn.
        not more sites than lost and colluding ones: PrivacyError, nothing is drawn.
        a round beyond `rounds.total`: BudgetExhausted.

    Every site rounds its own noise to the grid. By Poisson's summation formula the sum of K rounded Gaussians is that
    of their sum, smoothed by K uniforms, up to a factor of exp(-2 pi^2 sd^2) with sd the share in grid steps; smoothing
    is post-processing, and the factor is 1 in any precision at the 10^5 steps and more of a study.

    Source: Truex et al. 2019 (arXiv 1812.03224, noise divided among the parties of a secure sum); Kairouz, Liu &
    Steinke 2021 (arXiv 2102.06387, sums of discretised Gaussians); accounting: Dong et al. 2022.
    """

    settings: DistributedDP
    total_rounds: int

    @property
    def noise_multiplier(self) -> float:
        """sd of the noise in the sum over the sensitivity, for the whole study's epsilon."""
        return noise_multiplier_for(self.settings.epsilon, self.settings.delta, self.total_rounds)

    def share_sd(self, sites: int) -> float:
        """sd of one site's noise in grid steps, when `sites` contribute to the sum.

        Raises:
            PrivacyError: no site is left when the tolerated ones are lost or collude.
        """
        sd = self.noise_multiplier * STEPS_PER_CLIP
        return noise_share(sd, sites, self.settings.tolerated_dropouts, self.settings.colluding_sites)

    def opened_sd(self, contributors: int) -> float:
        """The shares that are there; of all that were made a few may be lost."""
        return self.share_sd(contributors) * float(contributors**0.5)

    def spend(self, releases: int, channel: Channel = PLAIN) -> Spend:
        """What each patient has spent after the `releases`-th sum.

        Raises:
            BudgetExhausted: the study's budget pays for fewer releases.
        """
        return gaussian_spend(
            self.settings,
            self.total_rounds,
            releases,
            unit="patient",
            neighbours=NEIGHBOURS,
            trust=masks_trust(self.settings),
        )

    def privatize(self, total: torch.Tensor | Steps, sites: int, noise: NoiseSource) -> Maskable:
        """Add this site's share of the noise to its summed gradient, (parameters,) int64 grid steps.

        Raises:
            PrivacyError: the sum is no one-dimensional, non-empty int64 vector, there are too few sites, or no noise
                can be drawn.
        """
        steps, sd = check_steps(total), self.share_sd(sites)
        in_gaps = sites * gaps("gaussian", steps.size, sd)
        check_sampler(in_gaps, self.total_rounds, self.settings.epsilon, self.settings.delta)
        noisy = noise.gaussian(steps.size, sd)
        noisy += steps
        return Maskable(noisy, self.settings.clip_norm / STEPS_PER_CLIP, sites)

    def share(self, part: Part, sites: int, noise: NoiseSource) -> Maskable:
        return self.privatize(part.summed, sites, noise)

    def read(self, total: Floats, plan: Plan, base: Weights, weights: Sequence[float]) -> Floats:
        """-lr * (sum of gradients / N + l2 * w); missing sites are made up for as if they were like the others."""
        lr, l2 = plan.training.lr, plan.training.l2
        share = len(plan.sites) / (len(weights) * self.settings.public_num_examples)
        step = -lr * share * (self.settings.clip_norm / STEPS_PER_CLIP)
        decay: Floats = lr * l2 * flatten(base).double().numpy()
        return step * total - decay

    def words(self) -> str:
        return (
            f"distributed_dp: a site clips each patient's gradient to norm {self.settings.clip_norm:g}, adds its share "
            "of Gaussian noise, and hides the result behind masks that cancel only in the sum"
        )
