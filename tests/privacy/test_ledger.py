"""The ledger on a real object store: no release is forgotten, none is paid for twice, and none changes."""

from __future__ import annotations

import dataclasses
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from tasks import layout
from tasks.deploy.ports import choose_ports
from tasks.errors import PrivacyError, StoreUnavailable
from tasks.privacy.ledger import SiteLedger, spent
from tasks.privacy.local_dp import LocalDPMechanism
from tasks.records import LedgerEntry, Spend
from tasks.settings import S3Credential
from tasks.storage import ObjectStore
from tasks.study import LocalDP

SITE = "701"
SETTINGS = LocalDP(mechanism="local_dp", epsilon=3, delta=1e-5, clip_norm=1, public_num_examples=211)


def spend(releases: int, *, total_rounds: int = 20, **changes: Any) -> Spend:
    settings = LocalDP(**(SETTINGS.model_dump() | changes))
    return LocalDPMechanism(settings, total_rounds).spend(releases)


@pytest.fixture
def store(object_store) -> ObjectStore:
    return object_store.store(f"site-{SITE}")


@pytest.fixture
def ledger(store: ObjectStore, study_name: str, tmp_path: Path) -> SiteLedger:
    return SiteLedger(store, study_name, SITE, tmp_path)


def own_files(ledger: SiteLedger) -> list[str]:
    return sorted(path.name for path in ledger.folder.glob("*"))


def stored(ledger: SiteLedger, server_round: int) -> LedgerEntry:
    return ledger.store.get_record(layout.ledger_entry(ledger.study, SITE, server_round), LedgerEntry)


def test_an_entry_is_written_at_the_site_and_in_the_store(ledger: SiteLedger) -> None:
    entry = ledger.record(1, spend(1), "a" * 64)
    assert stored(ledger, 1) == entry
    assert own_files(ledger) == ["0001.json"]
    file = ledger.folder / "0001.json"
    assert LedgerEntry.model_validate_json(file.read_bytes()) == entry
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_same_release_again_is_the_same_entry(ledger: SiteLedger, object_store) -> None:
    first = ledger.record(1, spend(1), "a" * 64)
    again = ledger.record(1, spend(1), "a" * 64)
    assert first == again
    assert own_files(ledger) == ["0001.json"]
    keys = list(object_store.store("hub").keys(layout.ledger_prefix(ledger.study)))
    assert keys == [layout.ledger_entry(ledger.study, SITE, 1)]


def test_another_release_in_the_same_round_is_refused(ledger: SiteLedger) -> None:
    first = ledger.record(1, spend(1), "a" * 64)
    with pytest.raises(PrivacyError, match=r"round 1 .* already recorded another release"):
        ledger.record(1, spend(1), "b" * 64)
    assert stored(ledger, 1) == first


def test_a_lost_copy_is_fetched_back_from_the_store(ledger: SiteLedger) -> None:
    entries = [ledger.record(number, spend(number), f"{number}" * 64) for number in (1, 2, 3)]
    shutil.rmtree(ledger.folder)
    assert ledger.releases_before(4) == 3
    assert own_files(ledger) == ["0001.json", "0002.json", "0003.json"]
    assert LedgerEntry.model_validate_json((ledger.folder / "0002.json").read_bytes()) == entries[1]


def test_a_lost_copy_does_not_allow_another_release(ledger: SiteLedger) -> None:
    ledger.record(1, spend(1), "a" * 64)
    shutil.rmtree(ledger.folder)
    with pytest.raises(PrivacyError, match="already recorded another release"):
        ledger.record(1, spend(1), "b" * 64)
    shutil.rmtree(ledger.folder)
    assert ledger.record(1, spend(1), "a" * 64) == stored(ledger, 1)


def test_releases_before_counts_releases_not_rounds(ledger: SiteLedger) -> None:
    assert ledger.releases_before(1) == 0
    ledger.record(2, spend(1), "a" * 64)
    assert [ledger.releases_before(number) for number in (2, 3, 5)] == [0, 1, 1]
    ledger.record(5, spend(2), "b" * 64)
    assert [ledger.releases_before(number) for number in (2, 5, 6, 100)] == [1, 1, 2, 2]


def test_rounds_in_another_order_are_not_free(ledger: SiteLedger) -> None:
    """Opened from the last to the first, each would otherwise count as the first release."""
    counts = []
    for number in (9, 7, 8, 3):
        releases = ledger.releases_before(number) + 1
        counts.append(releases)
        ledger.record(number, spend(releases), f"{number}" * 64)
    assert counts == [1, 2, 3, 4]


@pytest.mark.parametrize("changes", [{"epsilon": 8}, {"delta": 1e-6}, {"total_rounds": 40}])
def test_the_price_of_a_release_cannot_change_within_a_study(ledger: SiteLedger, changes: dict[str, Any]) -> None:
    ledger.record(1, spend(1), "a" * 64)
    with pytest.raises(PrivacyError, match=f"{ledger.study} changed after round 1 was released"):
        ledger.record(2, spend(2, **changes), "b" * 64)
    assert own_files(ledger) == ["0001.json"]
    assert ledger.record(2, spend(2), "b" * 64).spend.releases == 2


def test_a_study_cannot_turn_its_privacy_off(ledger: SiteLedger) -> None:
    ledger.record(1, spend(1), "a" * 64)
    open_ = Spend(mechanism="none", unit="nothing", neighbours="none", releases=2)
    with pytest.raises(PrivacyError, match="changed after round 1"):
        ledger.record(2, open_, "b" * 64)


def test_a_store_that_is_down_stops_the_release_before_anything_is_written(study_name: str, tmp_path: Path) -> None:
    port = choose_ports(auto=True).s3
    nobody = S3Credential(access_key="x", secret_key="y")
    down = ObjectStore.connect(f"http://127.0.0.1:{port}", layout.BUCKET, nobody, "site-701")
    ledger = SiteLedger(down, study_name, SITE, tmp_path)
    with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{port} does not answer"):
        ledger.record(1, spend(1), "a" * 64)
    assert own_files(ledger) == []
    with pytest.raises(StoreUnavailable):
        ledger.releases_before(2)


class NoWrites:
    """A client whose store goes down between the read and the write."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def put_object(self, **_: Any) -> None:
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")


def test_a_store_that_goes_down_leaves_the_sites_own_entry_to_be_completed(ledger: SiteLedger) -> None:
    """The site's copy says what was meant to be released; the store has it only after the retry, with the same time."""
    broken = dataclasses.replace(ledger.store, client=NoWrites(ledger.store.client))
    with pytest.raises(StoreUnavailable):
        SiteLedger(broken, ledger.study, SITE, ledger.folder.parents[1]).record(1, spend(1), "a" * 64)
    assert own_files(ledger) == ["0001.json"]
    assert not ledger.store.exists(layout.ledger_entry(ledger.study, SITE, 1))
    with pytest.raises(PrivacyError, match="another release"):
        ledger.record(1, spend(1), "b" * 64)
    meant = LedgerEntry.model_validate_json((ledger.folder / "0001.json").read_bytes())
    assert ledger.record(1, spend(1), "a" * 64) == meant == stored(ledger, 1)


def test_the_hub_reads_each_sites_newest_entry(ledger: SiteLedger, object_store, tmp_path: Path) -> None:
    other = SiteLedger(object_store.store("site-702"), ledger.study, "702", tmp_path / "702")
    for number in (1, 2):
        ledger.record(number, spend(number), f"{number}" * 64)
    other.record(2, spend(1), "c" * 64)
    found = spent(object_store.store("hub"), ledger.study)
    assert {site: (e.server_round, e.spend.releases) for site, e in found.items()} == {"701": (2, 2), "702": (2, 1)}
