"""A consortium of five sites, one for the whole session: no test changes it."""

from __future__ import annotations

import pytest

from tests.privacy.secure_sum.secure_sum_federation import Federation

SITES = ("701", "702", "703", "704", "705")


@pytest.fixture(scope="session")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """Five sites."""
    return Federation(tmp_path_factory.mktemp("five"), SITES)
