"""Patient-level differential privacy of every update by itself: the hub may see each one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from tasks.errors import BudgetExhausted, PrivacyError
from tasks.privacy.accounting import compose, gdp_epsilon, noise_multiplier_for
from tasks.privacy.noise import derive_key, gaussian_integers
from tasks.records import Spend
from tasks.study import LocalDP

#: Steps of the integer grid in one clip norm: 2^-24 of it, far below the noise, far above float32's own error.
STEPS_PER_CLIP = 1 << 24
NEIGHBOURS = (
    "training sets that differ in whether one patient contributes; counts of patients and the hold-out split are public"
)


def clip_to_grid(gradients: npt.NDArray[np.float64], clip_norm: float) -> npt.NDArray[np.int64]:
    """Per-patient gradients, (patients, parameters), clipped in L2 and cut to integer grid steps, then summed.

    Each row is cut toward zero after clipping, so its norm is at most STEPS_PER_CLIP exactly: the sensitivity of the
    sum to one patient is STEPS_PER_CLIP steps, whatever floating point did before.

    Raises:
        PrivacyError: a gradient is not finite, or a clipped row is still too long.
    """
    if not np.isfinite(gradients).all():
        raise PrivacyError("a per-patient gradient is not finite, so it cannot be clipped")
    norms = np.linalg.norm(gradients, axis=1, keepdims=True)
    factors = np.minimum(1.0, clip_norm / np.maximum(norms, np.finfo(np.float64).tiny)) * (1 - 1e-12)
    steps = np.trunc(gradients * factors * (STEPS_PER_CLIP / clip_norm)).astype(np.int64)
    # Sums of squares below 2^53 are exact in float64, and STEPS_PER_CLIP^2 is 2^48.
    if (np.square(steps, dtype=np.float64).sum(axis=1) > STEPS_PER_CLIP**2).any():
        raise PrivacyError("a clipped gradient is longer than the clip norm")
    total: npt.NDArray[np.int64] = steps.sum(axis=0)
    return total


@dataclass(frozen=True)
class LocalDPMechanism:
    """Gaussian mechanism on the sum of clipped per-patient gradients.

    Guarantee
        unit: one training patient of this site. neighbours: that patient contributes, or nothing stands in its place.
        sensitivity: clip_norm in L2, exact on the integer grid (`clip_to_grid`).
        spend: 1/noise_multiplier-GDP a round; sqrt(T)/noise_multiplier-GDP over T rounds, exact.
        epsilon: total over `rounds.total` rounds of the study, at `delta`.
        public: the number of patients of a site, the number of sites, and N.

    Edge cases
        NaN or infinite gradients: PrivacyError, nothing is released. no patients: DataError before it (`train_local`).
        a round beyond `rounds.total`: BudgetExhausted.
        the same round again: the same bytes (see `tasks.privacy.noise`).

    Source: Abadi et al. 2016 (per-example clipping), at sampling rate 1; accounting: Dong et al. 2022.
    """

    settings: LocalDP
    total_rounds: int

    @property
    def noise_multiplier(self) -> float:
        """sd of the noise over the sensitivity, for the whole study's epsilon."""
        return noise_multiplier_for(self.settings.epsilon, self.settings.delta, self.total_rounds)

    def spend(self, releases: int) -> Spend:
        """What the site has spent after its `releases`-th release.

        Raises:
            BudgetExhausted: the study's budget pays for fewer releases.
        """
        if releases > self.total_rounds:
            raise BudgetExhausted(
                f"release {releases} is refused: epsilon {self.settings.epsilon} pays for {self.total_rounds} rounds"
            )
        multiplier = self.noise_multiplier
        return Spend(
            mechanism="local_dp",
            unit="patient",
            neighbours=NEIGHBOURS,
            noise_multiplier=multiplier,
            clip_norm=self.settings.clip_norm,
            mu=compose(multiplier, 1),
            releases=releases,
            epsilon=gdp_epsilon(compose(multiplier, releases), self.settings.delta),
            delta=self.settings.delta,
            epsilon_budget=self.settings.epsilon,
        )

    def privatize(self, total: torch.Tensor, secret: bytes, context: tuple[str, ...]) -> torch.Tensor:
        """Add noise to a site's summed gradient, (parameters,) int64 grid steps; gives float64 in gradient units.

        Raises:
            PrivacyError: the sum is no one-dimensional, non-empty int64 tensor, or no noise can be drawn.
        """
        if total.dtype != torch.int64 or total.ndim != 1 or total.numel() == 0:
            raise PrivacyError(
                f"local_dp protects a vector of int64 grid steps, not {total.dtype} {tuple(total.shape)}"
            )
        noise = gaussian_integers(derive_key(secret, *context), total.numel(), self.noise_multiplier * STEPS_PER_CLIP)
        noisy = (total.numpy() + noise).astype(np.float64) * (self.settings.clip_norm / STEPS_PER_CLIP)
        return torch.from_numpy(noisy)
