"""The real sites, and copies of one that a test may spoil."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tasks.store.settings import PROJECT


@pytest.fixture(scope="session")
def suites_dir() -> Path:
    return PROJECT / "expectations"


@pytest.fixture(scope="session")
def sites_dir() -> Path:
    """The project's own `data/sites`; read only."""
    folder = PROJECT / "data" / "sites"
    if not folder.is_dir():
        pytest.fail("no data/sites: run `pharmafed data prepare`")
    return folder


@pytest.fixture
def site_dir(sites_dir: Path, tmp_path: Path) -> Path:
    """A copy of the smallest site."""
    return Path(shutil.copytree(sites_dir / "717", tmp_path / "717"))
