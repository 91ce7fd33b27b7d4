"""The real data, read once, and one split of all sites for each seed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tasks.data.reading.patients import Patients
from tasks.simulation.data import SiteArrays, read_sites, split_sites
from tasks.store.settings import PROJECT
from tasks.study.file import load_study
from tasks.study.sections import Study
from tests.simulation.simulation_samples import PAIRED_SEEDS


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def study() -> Study:
    return load_study(PROJECT / "studies" / "xanomeline_derm56.yaml")


@pytest.fixture(scope="session")
def arrays(study: Study) -> dict[str, SiteArrays]:
    """Each site's patients before any split."""
    return read_sites(study, PROJECT)


@pytest.fixture(scope="session")
def cohorts(study: Study, arrays: dict[str, SiteArrays]) -> list[dict[str, Patients]]:
    """One split of all sites per seed."""
    evaluations = [study.evaluation.model_copy(update={"split_seed": seed}) for seed in range(PAIRED_SEEDS)]
    return [split_sites(arrays, evaluation) for evaluation in evaluations]
