"""The default study, and numbers without any effect."""

from __future__ import annotations

import pytest

from tasks.simulation.experiments.records import Measured
from tasks.store.settings import PROJECT
from tasks.study.file import load_study
from tasks.study.sections import Study
from tests.simulation.experiments.made_up import numbers


@pytest.fixture(scope="session")
def study() -> Study:
    return load_study(PROJECT / "studies" / "xanomeline_derm56.yaml")


@pytest.fixture(scope="session")
def flat(study: Study) -> dict[str, Measured]:
    """All settings alike."""
    return numbers(study, lambda experiment, setting: 0.0)
