"""What the mechanisms with Gaussian noise have in common: their noise multiplier and what a release costs."""

from __future__ import annotations

from tasks.errors import BudgetExhausted, PrivacyError
from tasks.privacy.accounting import compose, gdp_epsilon, noise_multiplier_for
from tasks.privacy.noise.source import SMALL
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


def check_sampler(size: int, sd: float, total_rounds: int, delta: float) -> None:
    """Refuse noise whose own gaps (see `tasks.privacy.noise.keystream`) would not be negligible beside delta.

    Raises:
        PrivacyError: naming delta and what would do.
    """
    gaps = 0.0 if size <= SMALL else size / 2 * total_rounds * (sd * 2.0**-79 + sd * sd * 2.0**-107)
    if gaps > delta / 100:
        raise PrivacyError(
            f"the sampler's gaps add {gaps:.1e} to delta over {total_rounds} rounds of {size} values, more than a "
            f"hundredth of {delta:g}: raise privacy.delta or privacy.epsilon"
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
