"""One object store for all tests of a round; each test makes studies of its own in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from federation import DERM, NOCOMP, SITES, Federation

from tasks import settings, storage
from tasks.deploy.enrol import enrol_local_sites


@pytest.fixture(scope="session")
def _started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    if not (settings.PROJECT / "data" / "sites" / SITES[0]).is_dir():
        pytest.fail("no data/sites: run `pharmafed data prepare`")
    fed = Federation.create(tmp_path_factory.mktemp("federation"))
    try:
        fed.start()
        enrol_local_sites(fed.store(), fed.home, list(SITES))
        yield fed
    finally:
        fed.stop()


@pytest.fixture(scope="module")
def fed(_started: Federation) -> Iterator[Federation]:
    """The federation; PHARMAFED_HOME and PHARMAFED_PROJECT point to it while a module's tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHARMAFED_HOME", str(_started.home))
        patch.setenv("PHARMAFED_PROJECT", str(_started.project))
        patch.delenv("PHARMAFED_NOTIFY_URLS", raising=False)
        _forget()
        yield _started
        _forget()
    for path in (_started.project / "studies").glob("*.yaml"):
        if path.stem not in (DERM, NOCOMP):
            path.unlink()


def _forget() -> None:
    settings._addresses.cache_clear()
    storage.hub_store.cache_clear()
    storage.site_store.cache_clear()
