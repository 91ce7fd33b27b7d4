"""The unseen study's folder, a project that knows no study yet, and a draft that was written into it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.data.drafting.draft import Draft, DraftOptions, draft_study
from tasks.data.drafting.place import place
from tasks.store.settings import PROJECT
from tests.checked_once import checked_once
from tests.data.drafting.unseen_study import write_unseen_study


def new_project(folder: Path) -> Path:
    """A project without a study: it has only the suite for model inputs."""
    (folder / "expectations").mkdir(parents=True)
    shutil.copy(PROJECT / "expectations/inputs.json", folder / "expectations")
    return folder


@pytest.fixture(scope="module", autouse=True)
def _checked_once(kept_checks: Path) -> Iterator[None]:
    """A draft is checked at every site, and most drafts here differ in a column."""
    with checked_once(kept_checks):
        yield


@pytest.fixture(scope="session")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    return write_unseen_study(tmp_path_factory.mktemp("unseen") / "asthma")


@pytest.fixture(scope="session")
def drafted(unseen: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Draft, Path]:
    """The draft and the project that it was written into; read only."""
    project = new_project(tmp_path_factory.mktemp("drafted"))
    draft = draft_study(unseen, DraftOptions(label="patients.exacerbation"), project / "expectations")
    place(draft, project)
    return draft, project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return new_project(tmp_path / "project")


@pytest.fixture
def folder(unseen: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(unseen, tmp_path / "asthma"))
