"""One object store for all tests of a round; each test makes studies of its own in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.deploy.enrol import enrol_local_sites
from tasks.store import clock, settings
from tests.rounds.hub.federation import DERM, NOCOMP, SITES, Federation


@contextmanager
def started(folder: Path) -> Iterator[Federation]:
    """A federation with its store running and its sites enrolled."""
    if not (settings.PROJECT / "data" / "sites" / SITES[0]).is_dir():
        pytest.fail("no data/sites: run `pharmafed data prepare`")
    fed = Federation.create(folder)
    try:
        fed.start()
        enrol_local_sites(fed.store(), fed.home, list(SITES))
        yield fed
    finally:
        fed.stop()


@contextmanager
def in_environment(fed: Federation) -> Iterator[None]:
    """PHARMAFED_HOME and PHARMAFED_PROJECT point to the federation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHARMAFED_HOME", str(fed.home))
        patch.setenv("PHARMAFED_PROJECT", str(fed.project))
        patch.delenv("PHARMAFED_NOTIFY_URLS", raising=False)
        yield


_NOW = clock.now


@pytest.fixture(autouse=True)
def _true_time() -> Iterator[None]:
    """A test may set the clock: see `Federation.set_deadline`."""
    yield
    clock.now = _NOW


@pytest.fixture(scope="session")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    with started(tmp_path_factory.mktemp("federation")) as fed:
        yield fed


@pytest.fixture(scope="module")
def fed(_shared: Federation) -> Iterator[Federation]:
    """The shared federation, while a module's tests run."""
    with in_environment(_shared):
        yield _shared
    for path in (_shared.project / "studies").glob("*.yaml"):
        if path.stem not in (DERM, NOCOMP):
            path.unlink()


@pytest.fixture(scope="module")
def new_fed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """A federation in which nothing has happened yet, for tests that read all that it holds."""
    with started(tmp_path_factory.mktemp("new_federation")) as fed, in_environment(fed):
        yield fed
