"""The canary test: right noise passes, every fault is found."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.privacy.audit.canary import Canaries, attack_canaries, plant
from tasks.privacy.audit.setting import AuditSetting
from tasks.privacy.audit.trials import Trials
from tests.privacy.audit.audit_samples import DELTA, EPSILON, MU, ROUNDS, sample_setting

BOUND = MU * ROUNDS**0.5


def _planted(setting: AuditSetting) -> Canaries:
    return plant(setting.adversary, setting.observers, setting.models, setting.sites, whole_sites=False)


def _trials(seed: int, transcripts: int = 60, **fault: object) -> Trials:
    setting = sample_setting(seed, **fault)
    fillers = setting.audience.inputs[:4], setting.audience.labels[:4]
    return attack_canaries(
        setting.observers.released,
        setting.adversary,
        _planted(setting),
        setting.models,
        fillers,
        setting.sites,
        transcripts=transcripts,
        seed=seed,
    )


def test_canaries_saturate_the_clip_in_every_round() -> None:
    planted = _planted(sample_setting(0))
    assert planted.traces.shape == (ROUNDS, 22, 23)
    np.testing.assert_allclose(np.linalg.norm(planted.traces, axis=2), 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_right_noise_is_not_above_the_promise(seed: int) -> None:
    """At three standard errors: one of three seeds fails with probability 0.004 at most."""
    trials = _trials(seed)
    mu, error = trials.mu()
    assert mu - BOUND < 3 * error
    assert mu > BOUND / 2
    assert trials.lower(DELTA).epsilon < EPSILON


def test_halved_noise_is_far_above_the_promise() -> None:
    """Four standard errors and more, where the verdict asks for two; and not above what the noise really gives."""
    mu, error = _trials(7, scale=0.5).mu()
    assert mu - BOUND > 4 * error
    assert mu - 2 * BOUND < 4 * error


def test_the_lower_bound_is_of_use() -> None:
    """Without noise, epsilon is bounded by the number of trials alone."""
    lower = _trials(3, scale=0.0, transcripts=40).lower(DELTA)
    assert lower.trials == 20 * 22
    assert lower.epsilon > EPSILON
