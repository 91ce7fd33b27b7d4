"""The membership test: works on raw updates, stays within the promise on right noise, and beyond it on too little."""

from __future__ import annotations

import pytest

from tasks.privacy.audit.membership import Membership, attack_membership
from tasks.privacy.audit.setting import AuditSetting
from tests.privacy.audit.audit_samples import ROUNDS, sample_setting

MEMBERS = 16


def _released(setting: AuditSetting, seed: int) -> Membership:
    return attack_membership(
        setting.observers.released,
        setting.adversary,
        setting.audience.group,
        setting.models,
        setting.sites,
        members=MEMBERS,
        draws=40,
        seed=seed,
    )


def _bound(setting: AuditSetting, rounds: int) -> float:
    assert setting.promise is not None
    return setting.promise.over(rounds).auc()


def test_a_raw_update_gives_its_patients_away() -> None:
    setting = sample_setting(0)
    found = attack_membership(
        setting.observers.raw,
        setting.adversary,
        setting.audience.group,
        setting.models[:1],
        setting.sites[:1],
        members=8,
        draws=40,
        seed=0,
    )
    assert found.reference.auc(1)[0] > 0.8
    assert found.informed.auc(1)[0] == 1.0


@pytest.mark.parametrize("seed", range(2))
def test_right_noise_hides_them_as_well_as_promised(seed: int) -> None:
    """At three standard errors, on six figures: fails by chance with probability 0.008 at most."""
    setting = sample_setting(seed)
    found = _released(setting, seed)
    for scores, rounds in ((found.reference, ROUNDS), (found.informed, 1), (found.informed, ROUNDS)):
        value, error = scores.auc(rounds)
        assert value - _bound(setting, rounds) < 3 * error
    assert found.informed.auc(ROUNDS)[0] > found.reference.auc(ROUNDS)[0]


def test_halved_noise_does_not() -> None:
    setting = sample_setting(4, scale=0.5)
    value, error = _released(setting, 4).informed.auc(ROUNDS)
    assert value - _bound(setting, ROUNDS) > 4 * error


def test_three_disjoint_sets_need_enough_patients() -> None:
    setting = sample_setting(0)
    with pytest.raises(ValueError, match="need 300 patients"):
        attack_membership(
            setting.observers.raw,
            setting.adversary,
            setting.audience.group,
            setting.models[:1],
            setting.sites[:1],
            members=100,
            draws=1,
            seed=0,
        )
