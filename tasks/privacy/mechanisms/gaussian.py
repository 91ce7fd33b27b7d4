"""What the mechanisms with Gaussian noise have in common: their noise multiplier and what a release costs."""

from __future__ import annotations

import math

from tasks.errors import BudgetExhausted, PrivacyError
from tasks.privacy.accounting import compose, gdp_epsilon, noise_multiplier_for
from tasks.store.records.ledger import Spend, Unit
from tasks.study.privacy import DistributedDP, GaussianUpdate, LocalDP

NOBODY = "nobody: holds against the hub too"


def check_release(releases: int, total_rounds: int, epsilon: float) -> None:
    """Refuse a release that the budget does not pay for.

    Raises:
        BudgetExhausted: there have been `total_rounds` already. PrivacyError: it is no release at all.
    """
    if releases < 1:
        raise PrivacyError(f"releases are counted from 1, not from {releases}: the ledger is wrong")
    if releases > total_rounds:
        raise BudgetExhausted(f"release {releases} is refused: epsilon {epsilon} pays for {total_rounds} rounds")


def check_sampler(gaps: float, total_rounds: int, epsilon: float, delta: float) -> None:
    """Refuse noise whose own gaps, `tasks.privacy.noise.source.gaps` of a release, are not negligible beside delta.

    A total of (epsilon, delta) that noise without gaps has becomes (epsilon, delta + (1 + e^epsilon) g), where g bounds
    the chance, under either neighbour, that any draw of any round lies in a gap.

    Raises:
        PrivacyError: that is more than a hundredth of delta; naming delta and what would do.
    """
    added = gaps * total_rounds * (1 + math.exp(epsilon))
    if not added <= delta / 100:
        # Noise so wide that the Gaussian's centre has gaps is that of a small epsilon; else epsilon helps little.
        remedy = "raise privacy.delta or privacy.epsilon" if epsilon < 1 else "raise privacy.delta"
        raise PrivacyError(
            f"gaps in the noise add {added:.1e} to delta over {total_rounds} rounds, more than a hundredth of "
            f"{delta:g}: {remedy}, or lower rounds.total"
        )


def masks_trust(settings: DistributedDP | GaussianUpdate) -> str:
    """Whom the promise of a masked sum needs."""
    return (
        "masks: holds against whoever sees only the sum; "
        f"up to {settings.colluding_sites} colluding sites and {settings.tolerated_dropouts} lost ones"
    )


def gaussian_spend(
    settings: LocalDP | DistributedDP | GaussianUpdate,
    total_rounds: int,
    releases: int,
    *,
    unit: Unit,
    neighbours: str,
    trust: str,
) -> Spend:
    """The `releases`-th release of a mechanism whose whole budget is spent evenly over `total_rounds`.

    Raises:
        BudgetExhausted: the study's budget pays for fewer releases.
    """
    check_release(releases, total_rounds, settings.epsilon)
    multiplier = noise_multiplier_for(settings.epsilon, settings.delta, total_rounds)
    return Spend(
        mechanism=settings.mechanism,
        unit=unit,
        neighbours=neighbours,
        trust=trust,
        noise_multiplier=multiplier,
        clip_norm=settings.clip_norm,
        mu=compose(multiplier, 1),
        releases=releases,
        epsilon=gdp_epsilon(compose(multiplier, releases), settings.delta),
        delta=settings.delta,
        epsilon_budget=settings.epsilon,
    )
