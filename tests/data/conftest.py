"""The real sites, built once per run in a folder of their own, and copies of one that a test may spoil."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tasks.data.prepare import prepare

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def suites_dir() -> Path:
    return PROJECT / "expectations"


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, suites_dir: Path) -> Path:
    """`data/` as `pharmafed data prepare` writes it; read only."""
    data_dir = tmp_path_factory.mktemp("prepared") / "data"
    prepare(data_dir, suites_dir=suites_dir)
    return data_dir


@pytest.fixture
def site_dir(prepared: Path, tmp_path: Path) -> Path:
    """A copy of the smallest site."""
    return Path(shutil.copytree(prepared / "sites" / "717", tmp_path / "717"))
