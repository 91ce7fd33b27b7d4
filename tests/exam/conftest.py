"""What several of the exam's tests need once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.exam.bank.practice import build_practice


@pytest.fixture(scope="session")
def practice_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with our own exam, which takes seconds to draw. For reading only."""
    folder = tmp_path_factory.mktemp("data")
    build_practice(folder)
    return folder
