"""Many rounds on the same sites."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checked_once import checked_once


@pytest.fixture(scope="module", autouse=True)
def _checked_once(kept_checks: Path) -> Iterator[None]:
    with checked_once(kept_checks):
        yield
