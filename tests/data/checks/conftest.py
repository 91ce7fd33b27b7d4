"""The smallest real site and the default study, read once; tests change copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from tasks.data.checks.parameters import site_parameters
from tasks.data.checks.runner import ValidationResult, validate_site
from tasks.data.checks.waivers import Waiver
from tasks.data.reading.features import build_inputs
from tasks.data.reading.tables import read_tables
from tasks.store.settings import PROJECT
from tasks.study.file import load_study
from tasks.study.sections import Study
from tests.checked_once import checked_once

Tables = dict[str, pd.DataFrame]
Validate = Callable[..., ValidationResult]


@pytest.fixture(scope="session")
def suites_dir() -> Path:
    return PROJECT / "expectations"


@pytest.fixture(scope="session")
def study() -> Study:
    return load_study(PROJECT / "studies/xanomeline_derm56.yaml")


@pytest.fixture(scope="session")
def sites_dir() -> Path:
    """The real sites as the project pins them; every test that changes them changes what it has read."""
    folder = PROJECT / "data" / "sites"
    if not folder.is_dir():
        pytest.fail("no data/sites: run `pharmafed data prepare`")
    return folder


@pytest.fixture
def tables(sites_dir: Path, study: Study, suites_dir: Path) -> Tables:
    """Site 717: seven patients, the smallest."""
    return read_tables(sites_dir / "717", study.data.tables, suites_dir)


@pytest.fixture
def validate(study: Study, suites_dir: Path) -> Validate:
    """Run all suites on the tables of a site, 717 by default."""

    def run(tables: Tables, site: str = "717", waivers: tuple[Waiver, ...] = ()) -> ValidationResult:
        parameters = site_parameters(study, site)
        return validate_site(tables, lambda: build_inputs(tables, study), parameters, waivers, suites_dir)

    return run


@pytest.fixture
def unchanged_once(kept_checks: Path) -> Iterator[None]:
    """Of a site's ten suites, only those whose rows no test before had are run: not for what watches the library."""
    with checked_once(kept_checks):
        yield
