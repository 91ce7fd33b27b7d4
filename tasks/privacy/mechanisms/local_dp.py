"""Patient-level differential privacy of every update by itself: the hub may see each one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tasks.learning.arrays import Floats
from tasks.learning.flat import flatten
from tasks.privacy.accounting import noise_multiplier_for
from tasks.privacy.mechanisms.gaussian import NOBODY, check_sampler, gaussian_spend
from tasks.privacy.mechanisms.mechanism import Mechanism, Sent
from tasks.privacy.mechanisms.part import Part
from tasks.privacy.noise.grid import STEPS_PER_CLIP, Steps, check_steps
from tasks.privacy.noise.source import NoiseSource, gaps
from tasks.store.records.ledger import Spend
from tasks.store.records.round import Plan
from tasks.store.weights import Weights
from tasks.study.channels import PLAIN, Channel
from tasks.study.privacy import LocalDP

NEIGHBOURS = (
    "training sets that differ in whether one patient contributes; counts of patients and the hold-out split are public"
)


@dataclass(frozen=True)
class LocalDPMechanism(Mechanism):
    """Gaussian mechanism on the sum of clipped per-patient gradients.

    Guarantee
        unit: one training patient of this site. neighbours: that patient contributes, or nothing stands in its place.
        sensitivity: clip_norm in L2, exact on the integer grid (`tasks.privacy.noise.grid.clip_to_grid`).
        spend: 1/noise_multiplier-GDP a round; sqrt(T)/noise_multiplier-GDP over T rounds, exact.
        trust: nobody; it holds against the hub and all other sites.
        epsilon: total over `rounds.total` rounds of the study, at `delta`.
        public: the number of patients of a site, the number of sites, and N.

    Edge cases
        zero: released as noise. no patients: DataError before it (`train_local`).
        NaN or infinite gradients: zero before it (`clip_to_grid`), told to nobody.
        empty, not one-dimensional, not int64: PrivacyError, nothing is drawn.
        a round beyond `rounds.total`: BudgetExhausted.

    Source: Abadi et al. 2016 (per-example clipping), at sampling rate 1; accounting: Dong et al. 2022.
    """

    settings: LocalDP
    total_rounds: int

    @property
    def noise_multiplier(self) -> float:
        """sd of the noise over the sensitivity, for the whole study's epsilon."""
        return noise_multiplier_for(self.settings.epsilon, self.settings.delta, self.total_rounds)

    def spend(self, releases: int, channel: Channel = PLAIN) -> Spend:
        """What the site has spent after its `releases`-th release.

        Raises:
            BudgetExhausted: the study's budget pays for fewer releases.
        """
        return gaussian_spend(
            self.settings, self.total_rounds, releases, unit="patient", neighbours=NEIGHBOURS, trust=NOBODY
        )

    def privatize(self, total: torch.Tensor | Steps, noise: NoiseSource) -> torch.Tensor:
        """Add noise to a site's summed gradient, (parameters,) int64 grid steps; gives float64 in gradient units.

        Raises:
            PrivacyError: the sum is no one-dimensional, non-empty int64 vector, or no noise can be drawn.
        """
        steps = check_steps(total)
        sd = self.noise_multiplier * STEPS_PER_CLIP
        check_sampler(gaps("gaussian", steps.size, sd), self.total_rounds, self.settings.epsilon, self.settings.delta)
        noisy = steps + noise.gaussian(steps.size, sd)
        return torch.from_numpy(noisy.astype(np.float64) * (self.settings.clip_norm / STEPS_PER_CLIP))

    def release(self, part: Part, noise: NoiseSource) -> Sent:
        """The site's share of one global step: the mean of all shares is -lr * (sum of gradients / N + l2 * w)."""
        plan = part.plan
        gradient = self.privatize(part.summed, noise)
        decay = plan.training.l2 * flatten(part.base).double()
        step: Floats = (-plan.training.lr * (self._share(plan) * gradient + decay)).numpy()
        return step

    def seen(self, sent: Floats, plan: Plan, base: Weights) -> Floats:
        """The noised gradient, back from the step."""
        decay: Floats = plan.training.l2 * flatten(base).double().numpy()
        return (-sent / plan.training.lr - decay) / self._share(plan)

    def words(self) -> str:
        return (
            f"local_dp: a site clips each patient's gradient to norm {self.settings.clip_norm:g} and adds Gaussian "
            "noise to its sum"
        )

    def _share(self, plan: Plan) -> float:
        return len(plan.sites) / self.settings.public_num_examples
