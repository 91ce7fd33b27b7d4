"""Runs a study's suites at each of its sites, on this machine, as a round would."""

from __future__ import annotations

from pathlib import Path

from tasks.data.checks.parameters import site_parameters
from tasks.data.checks.runner import ValidationResult, validate_site
from tasks.data.reading.features import build_inputs
from tasks.data.reading.tables import read_tables
from tasks.study.sections import Study


def check_sites(study: Study, project: Path) -> dict[str, ValidationResult]:
    """Site -> the outcome of every expectation; no waiver counts.

    Raises:
        DataError: a table cannot be read. ConfigError: a suite is missing.
    """
    return {site: _check(study, site, project) for site in study.sites}


def _check(study: Study, site: str, project: Path) -> ValidationResult:
    suites = project / study.data.suites
    tables = read_tables(project / study.data.root / site, study.data.tables, suites, study.data.reading)
    return validate_site(tables, lambda: build_inputs(tables, study), site_parameters(study, site), (), suites)
