"""The default study, and numbers without any effect."""

from __future__ import annotations

import pytest
from made_up import numbers

from tasks.experiments.records import Measured
from tasks.settings import PROJECT
from tasks.study import Study
from tasks.study_file import load_study


@pytest.fixture(scope="session")
def study() -> Study:
    return load_study(PROJECT / "studies" / "xanomeline_derm56.yaml")


@pytest.fixture(scope="session")
def flat(study: Study) -> dict[str, Measured]:
    """All settings alike."""
    return numbers(study, lambda experiment, setting: 0.0)
