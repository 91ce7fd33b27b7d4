"""Shared noise: the sum keeps all of it whoever is lost or tells, and one share is never mistaken for a release."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tasks.errors import BudgetExhausted, PrivacyError
from tasks.privacy.mechanisms import distributed_dp
from tasks.privacy.mechanisms.distributed_dp import DistributedDPMechanism
from tasks.privacy.noise.grid import STEPS_PER_CLIP
from tasks.privacy.noise.source import SeededNoise
from tasks.privacy.secure_sum.contribution import Maskable
from tasks.study.privacy import DistributedDP
from tests.privacy.noise.noise_tests import ALARM, scale_p_value, shape_p_value

SEED = SeededNoise(bytes(range(32)))
SETTINGS = DistributedDP(
    mechanism="distributed_dp",
    epsilon=3,
    delta=1e-5,
    clip_norm=0.5,
    public_num_examples=211,
    tolerated_dropouts=2,
    colluding_sites=1,
)
MECHANISM = DistributedDPMechanism(SETTINGS, total_rounds=20)
SITES, SIZE = 13, 20_000
TRUTH = np.arange(SIZE) * 1000 - 7

Rows = npt.NDArray[np.int64]


class ForgetsTheLost(DistributedDPMechanism):
    """A broken copy: noise for a sum that loses nobody."""

    def share_sd(self, sites: int) -> float:
        return self.noise_multiplier * STEPS_PER_CLIP / math.sqrt(sites)


class Scaled(DistributedDPMechanism):
    factor = 1.0

    def share_sd(self, sites: int) -> float:
        return self.factor * super().share_sd(sites)


class TooLittle(Scaled):
    factor = 0.98


class TooMuch(Scaled):
    factor = 1.02


def noises(mechanism: DistributedDPMechanism) -> Rows:
    """Contribution minus truth, (sites, parameters) grid steps."""
    source = SEED.derive("distributed", type(mechanism).__name__)
    return np.stack([mechanism.privatize(TRUTH, SITES, source).values - TRUTH for _ in range(SITES)])


def unknown_noise(mechanism: DistributedDPMechanism) -> Rows:
    """What is left in the sum when two sites are lost and the adversary subtracts the noise of a third.

    Every 13th of the parameters has another three: (i, i+1, i+2) modulo 13.
    """
    rows = noises(mechanism)
    known = [np.isin(np.arange(SITES), [i, (i + 1) % SITES, (i + 2) % SITES]) for i in range(SITES)]
    return np.concatenate([rows[~known[i], i::SITES].sum(axis=0) for i in range(SITES)])


SD = MECHANISM.noise_multiplier * STEPS_PER_CLIP


def test_one_share_has_its_part_of_the_noise() -> None:
    """260 000 values; false-alarm rate 1e-6 each."""
    rows = noises(MECHANISM)
    assert MECHANISM.share_sd(SITES) == pytest.approx(6.22 * STEPS_PER_CLIP / math.sqrt(10), rel=1e-3)
    assert scale_p_value(rows, MECHANISM.share_sd(SITES)) > ALARM
    assert shape_p_value(rows, MECHANISM.share_sd(SITES)) > ALARM


def test_a_sum_that_loses_and_leaks_all_it_may_keeps_the_whole_noise() -> None:
    """20 000 values; false-alarm rate 1e-6 each. More would only be noisier: all 13 have sqrt(1.3) of it."""
    left = unknown_noise(MECHANISM)
    assert scale_p_value(left, SD) > ALARM
    assert shape_p_value(left, SD) > ALARM
    everybody = noises(MECHANISM).sum(axis=0)
    assert scale_p_value(everybody, SD * math.sqrt(1.3)) > ALARM
    assert everybody.std() > SD


def test_shares_that_forget_the_lost_are_rejected() -> None:
    broken = ForgetsTheLost(SETTINGS, 20)
    assert scale_p_value(unknown_noise(broken), SD) < ALARM
    assert unknown_noise(broken).std() < SD


@pytest.mark.parametrize("broken", [TooLittle, TooMuch])
def test_shares_that_are_two_percent_off_are_rejected(broken: type[Scaled]) -> None:
    assert scale_p_value(noises(broken(SETTINGS, 20)), MECHANISM.share_sd(SITES)) < ALARM


def test_a_share_is_no_array_and_no_tensor() -> None:
    """What a step would have to be to be uploaded or averaged by mistake."""
    share = MECHANISM.privatize(torch.from_numpy(TRUTH), SITES, SEED.derive("type"))
    assert type(share) is Maskable
    assert (share.step, share.sites) == (0.5 / STEPS_PER_CLIP, SITES)
    assert share.values.dtype == np.int64
    assert not isinstance(share, np.ndarray | torch.Tensor)
    assert str(share.values[0]) not in repr(share)
    with pytest.raises(RuntimeError):
        torch.as_tensor(share)
    with pytest.raises(TypeError):
        share + share


def test_the_truth_is_not_changed_in_place() -> None:
    before = TRUTH.copy()
    MECHANISM.privatize(TRUTH, SITES, SEED.derive("in place"))
    np.testing.assert_array_equal(TRUTH, before)


# budget and refusals


def test_the_last_sum_spends_the_budget_and_the_next_is_refused() -> None:
    spends = [MECHANISM.spend(releases) for releases in range(1, 21)]
    assert all(a.epsilon < b.epsilon for a, b in pairwise(spends))
    assert spends[-1].epsilon == pytest.approx(3, rel=1e-6)
    assert spends[-1].epsilon <= 3
    first = spends[0]
    assert (first.unit, first.mechanism, first.epsilon_budget, first.clip_norm) == ("patient", "distributed_dp", 3, 0.5)
    assert first.noise_multiplier == pytest.approx(6.22, abs=0.005)
    assert "sees only the sum; up to 1 colluding sites and 2 lost ones" in first.trust
    with pytest.raises(BudgetExhausted, match="release 21 is refused"):
        MECHANISM.spend(21)


class NoNoise:
    """A source that must not be asked."""

    def gaussian(self, size: int, sd: float) -> Rows:
        raise AssertionError(f"{size} values of sd {sd} were drawn")

    laplace = subset = gaussian


@pytest.mark.parametrize("sites", [-1, 0, 1, 2, 3])
def test_too_few_sites_are_refused(sites: int) -> None:
    with pytest.raises(PrivacyError, match="it takes at least 4 sites"):
        MECHANISM.privatize(TRUTH, sites, NoNoise())


@pytest.mark.parametrize(
    "total",
    [
        np.zeros(3, dtype=np.float64),
        np.zeros(3, dtype=np.int32),
        np.zeros(3, dtype=np.uint64),
        np.zeros(3, dtype=np.bool_),
        np.zeros((3, 1), dtype=np.int64),
        np.zeros((), dtype=np.int64),
        np.zeros(0, dtype=np.int64),
        torch.zeros(3, dtype=torch.float32),
        torch.zeros((1, 3), dtype=torch.int64),
    ],
    ids=lambda t: f"{t.dtype}-{tuple(t.shape)}",
)
def test_what_is_no_vector_of_grid_steps_is_refused(total: Rows) -> None:
    with pytest.raises(PrivacyError, match="int64 grid steps"):
        MECHANISM.privatize(total, SITES, NoNoise())


def test_the_gaps_of_every_share_in_the_sum_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = list[float]()
    monkeypatch.setattr(distributed_dp, "check_sampler", lambda in_gaps, *_: counted.append(in_gaps))
    MECHANISM.privatize(TRUTH, SITES, SEED.derive("gaps"))
    assert counted == [SITES * SIZE / 2 * MECHANISM.share_sd(SITES) * 2.0**-271]


def test_noise_that_has_gaps_beside_delta_is_refused() -> None:
    narrow = DistributedDPMechanism(SETTINGS.model_copy(update={"epsilon": 1e-4}), total_rounds=20)
    with pytest.raises(PrivacyError, match=r"raise privacy\.delta or privacy\.epsilon, or lower"):
        narrow.privatize(TRUTH, SITES, NoNoise())
