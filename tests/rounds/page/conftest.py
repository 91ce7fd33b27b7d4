"""The synthetic study's fixtures."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.store.records.report import Baselines, RoundMetrics
from tasks.store.settings import PROJECT
from tasks.study.file import load_study
from tasks.study.sections import Study
from tests.rounds.page.report_samples import PATIENTS, REASON, Rounds, round_metrics, site_row

STUDIES = PROJECT / "studies"


@pytest.fixture(scope="session")
def study() -> Study:
    return load_study(STUDIES / "xanomeline_derm56.yaml")


@pytest.fixture(scope="session")
def baselines() -> Baselines:
    return Baselines(
        study="xanomeline_derm56",
        pooled={"auc": 0.714, "log_loss": 0.631},
        local_only={"auc": 0.644, "log_loss": 0.702},
        note="mean of 20 seeds",
    )


@pytest.fixture(scope="session")
def rounds() -> Rounds:
    """Three closed rounds; keyword arguments change the newest."""

    def make(**changes: Any) -> list[RoundMetrics]:
        return [round_metrics(1), round_metrics(2), round_metrics(3, **changes)]

    return make


@pytest.fixture(scope="session")
def partial() -> dict[str, Any]:
    """What makes the newest round amber: 703 failed validation and sent nothing."""
    silent = {"contributed": False, "reason": REASON, "num_examples": None, "weight": None, "num_bytes": 0}
    failed = {"data_valid": False, "failed_expectations": (REASON,), "waived_expectations": (), "metrics": None}
    out = site_row("703", 3, **silent, **failed, seconds={"validate_data": 0.4})
    sites = tuple(out if site == "703" else site_row(site, 3) for site in PATIENTS)
    return {"status": "partial", "message": "12 of 13 sites contributed", "sites": sites, "num_contributors": 12}
