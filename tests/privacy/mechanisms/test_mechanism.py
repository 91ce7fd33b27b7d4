"""What a mechanism does not answer it refuses; and what all of them answer alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pytest

from tasks.errors import BudgetExhausted, PharmafedError, PrivacyError, UpdateRejected
from tasks.privacy.mechanisms import mechanism_for
from tasks.privacy.mechanisms.mechanism import Mechanism
from tasks.privacy.noise.source import SeededNoise
from tasks.store.records.ledger import Spend
from tasks.study.channels import CHANNELS, PLAIN, Channel
from tasks.study.privacy import PRIVACY_SECTIONS, PrivacySection, Protected
from tests.simulation.test_combinations import MECHANISMS

NOISE = SeededNoise(bytes(32))
NOTHING: Any = None


class OfSites(PrivacySection):
    unit: ClassVar[Protected] = "site"
    mechanism: Literal["invented"] = "invented"


class OfPatients(OfSites):
    unit: ClassVar[Protected] = "patient"


@dataclass(frozen=True)
class Silent(Mechanism):
    """It answers what it must, and nothing else."""

    settings: Any
    total_rounds: int = 1

    def spend(self, releases: int, channel: Channel = PLAIN) -> Spend:
        return Spend(mechanism="invented", unit="site", neighbours="n", releases=releases)

    def words(self) -> str:
        return "silent"


ASKED: dict[str, tuple[Callable[[Mechanism], Any], type[PharmafedError]]] = {
    "release": (lambda silent: silent.release(NOTHING, NOISE), PrivacyError),
    "share": (lambda silent: silent.share(NOTHING, 3, NOISE), PrivacyError),
    "read": (lambda silent: silent.read(np.zeros(3), NOTHING, {}, [1.0]), UpdateRejected),
    "noise of an opened sum": (lambda silent: silent.opened_sd(3), PrivacyError),
}


@pytest.mark.parametrize("what", ASKED)
def test_what_a_mechanism_does_not_answer_it_refuses_by_its_name(what: str) -> None:
    ask, error = ASKED[what]
    with pytest.raises(error, match="invented"):
        ask(Silent(OfSites()))


def test_an_audit_is_told_that_it_cannot_audit() -> None:
    update = np.ones(3)
    with pytest.raises(PrivacyError, match="mechanism invented does not say what a site can add"):
        Silent(OfSites()).trace(update, 1)
    with pytest.raises(PrivacyError, match="mechanism invented does not say what a step tells"):
        Silent(OfPatients()).seen(update, NOTHING, {})
    assert Silent(OfSites()).seen(update, NOTHING, {}) is update
    assert Silent(OfPatients()).trace(update, 1) is update


def test_one_that_does_not_say_what_it_costs_cannot_be_made() -> None:
    class Free(Mechanism):
        def words(self) -> str:
            return "free"

    with pytest.raises(TypeError, match="abstract"):
        Free()  # type: ignore[abstract]


def made(name: str) -> Mechanism:
    settings: Any = PRIVACY_SECTIONS[name].model_validate({"mechanism": name} | MECHANISMS[name])
    return mechanism_for(settings, 3)


@pytest.mark.parametrize("name", PRIVACY_SECTIONS)
def test_each_says_in_words_what_a_site_does_under_its_own_name(name: str) -> None:
    assert made(name).words().startswith(name)


@pytest.mark.parametrize("name", PRIVACY_SECTIONS)
def test_what_each_costs_is_of_the_unit_that_its_section_promises(name: str) -> None:
    mechanism = made(name)
    for channel in sorted(mechanism.settings.needs.channels):
        spend = mechanism.spend(2, CHANNELS[channel])
        assert (spend.mechanism, spend.unit, spend.releases) == (name, mechanism.settings.unit, 2)
        assert spend.promises == mechanism.settings.promises == (spend.epsilon is not None)
    if mechanism.settings.promises:
        with pytest.raises(BudgetExhausted):
            mechanism.spend(4)


@pytest.mark.parametrize("name", PRIVACY_SECTIONS)
def test_no_trace_is_longer_than_its_bound(name: str) -> None:
    update = np.array([30.0, -40.0, 0.0])
    found = made(name).trace(update, 5)
    if name == "gaussian_update":
        assert np.linalg.norm(found) == pytest.approx(1.0)
    elif name == "svt":
        assert found.tolist() == [0.5, -0.5, 0.0]
    else:
        assert found is update
