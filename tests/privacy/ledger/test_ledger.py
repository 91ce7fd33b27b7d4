"""The ledger on a real object store: no release is forgotten, none is paid for twice, and none changes."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tasks.deploy.ports import choose_ports
from tasks.errors import BudgetExhausted, PrivacyError, StoreUnavailable
from tasks.privacy.ledger import ledger as ledger_module
from tasks.privacy.ledger.chain import FIRST, Link
from tasks.privacy.ledger.evidence import read_chain
from tasks.privacy.ledger.ledger import SiteLedger
from tasks.privacy.ledger.spent import spent
from tasks.privacy.ledger.verification import verify_chain
from tasks.store import layout
from tasks.store.identity import load_key
from tasks.store.objects import ObjectStore
from tasks.store.records.ledger import LedgerEntry, Spend
from tasks.store.settings import S3Credential
from tests.privacy.ledger.ledger_samples import (
    OTHER,
    ROUNDS,
    SITE,
    MemoryClient,
    certificate,
    clear,
    enrol,
    entry,
    gaussian_spend,
    make_identities,
    put_chain,
    remove,
)


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_identities(tmp_path_factory.mktemp("identities"))


@pytest.fixture
def hub(object_store) -> ObjectStore:
    return object_store.store("hub")


@pytest.fixture(scope="module")
def _study(object_store) -> str:
    """The store's identities know a limited number of names, and this module needs one."""
    return next(object_store.names)


@pytest.fixture
def ledger(object_store, hub: ObjectStore, _study: str, tmp_path: Path, identities: Path) -> Iterator[SiteLedger]:
    yield SiteLedger(object_store.store(f"site-{SITE}"), _study, SITE, tmp_path, identities / SITE)
    clear(hub, _study)


def release(server_round: int) -> str:
    return f"{server_round:064x}"


def record(ledger: SiteLedger, server_round: int, release_sha256: str | None = None) -> LedgerEntry:
    """A step's two calls; a round releases the same bytes each time unless told otherwise."""
    spend = gaussian_spend(ledger.read().next_release(server_round))
    return ledger.record(server_round, spend, release_sha256 or release(server_round))[0]


def again(ledger: SiteLedger, **changes: Any) -> SiteLedger:
    """The same site in a new process; `changes` may give it another store or folder."""
    content = {"store": ledger.store, "folder": ledger.folder.parents[1]} | changes
    return SiteLedger(content["store"], ledger.study, ledger.site, content["folder"], ledger.secrets_dir)


def files(ledger: SiteLedger) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(ledger.folder.glob("*.json"))}


def stored(hub: ObjectStore, study: str, site: str = SITE) -> dict[str, bytes]:
    prefix = f"{layout.ledger_prefix(study)}/{site}/"
    return {key.removeprefix(prefix): hub.get(key) for key in hub.keys(prefix)}


# one release


def test_an_entry_is_written_at_the_site_and_in_the_store(ledger: SiteLedger, hub: ObjectStore) -> None:
    found, digest = ledger.record(1, gaussian_spend(1), release(1))
    assert list(files(ledger)) == ["000001.json"]
    assert files(ledger) == stored(hub, ledger.study)
    link = Link.parse(files(ledger)["000001.json"])
    assert (link.entry, link.sha256) == (found, digest)
    assert (found.study, found.site, found.sequence, found.previous) == (ledger.study, SITE, 1, FIRST)
    assert stat.S_IMODE((ledger.folder / "000001.json").stat().st_mode) == 0o600


def test_each_entry_is_signed_and_names_the_bytes_of_the_one_before(ledger: SiteLedger) -> None:
    for number in (1, 2, 3):
        record(ledger, number)
    links = [Link.parse(body) for body in files(ledger).values()]
    assert [link.entry.previous for link in links] == [FIRST, links[0].sha256, links[1].sha256]
    key = load_key(ledger.secrets_dir / "signing_key.pem").public_key()
    assert [link.is_signed_by(key) for link in links] == [True] * 3


def test_the_same_release_again_is_the_same_entry(ledger: SiteLedger, hub: ObjectStore) -> None:
    first = ledger.record(1, gaussian_spend(1), release(1))
    assert again(ledger).record(1, gaussian_spend(1), release(1)) == first
    assert list(files(ledger)) == list(stored(hub, ledger.study)) == ["000001.json"]


def test_another_release_in_the_same_round_is_refused(ledger: SiteLedger, hub: ObjectStore) -> None:
    record(ledger, 1)
    before = stored(hub, ledger.study)
    with pytest.raises(PrivacyError, match=r"round 1 .* already recorded another release"):
        record(ledger, 1, "b" * 64)
    assert stored(hub, ledger.study) == files(ledger) == before


@pytest.mark.parametrize("once", ["top", "random"])
def test_a_study_whose_codec_was_a_mechanism_goes_on_with_its_ledger(ledger: SiteLedger, once: str) -> None:
    """What promises nothing may be called otherwise; a mechanism that promises something does not come in so."""
    unprotected = Spend(mechanism=once, unit="nothing", neighbours="none: raw updates are shared", releases=1)
    ledger.record(1, unprotected, release(1))
    now = unprotected.model_copy(update={"mechanism": "none", "releases": 2})
    assert ledger.record(2, now, release(2))[0].sequence == 2
    with pytest.raises(PrivacyError, match="changed after round 1"):
        ledger.record(3, gaussian_spend(3), release(3))
    report = verify_chain(list(files(ledger).values()), certificate(ledger.secrets_dir.parent), {})
    assert report.problems == ()


def test_the_number_of_a_release_counts_releases_not_rounds(ledger: SiteLedger) -> None:
    """A site that sat rounds out has spent on those that it took part in alone."""
    assert ledger.read().next_release(9) == 1
    assert [record(ledger, number).sequence for number in (3, 7, 8, 20)] == [1, 2, 3, 4]
    assert [ledger.read().next_release(number) for number in (3, 7, 8, 20, 1, 100)] == [1, 2, 3, 4, 5, 5]
    assert (ledger.read().num_entries, ledger.read().last_round) == (4, 20)


@pytest.mark.parametrize("disk_lost", [False, True])
def test_no_round_below_the_newest_is_released(ledger: SiteLedger, hub: ObjectStore, disk_lost: bool) -> None:
    """Opened from the last to the first, each round would otherwise count as the first release."""
    made = [record(ledger, number) for number in (7, 9)]
    before = files(ledger)
    if disk_lost:
        shutil.rmtree(ledger.folder)
    for number in (8, 6, 1):
        with pytest.raises(PrivacyError, match=f"paid for round 9 .* already: it does not go back to round {number}"):
            record(ledger, number)
    assert stored(hub, ledger.study) == files(ledger) == before
    assert [record(ledger, number) for number in (7, 9)] == made, "what was released is still the same release"
    assert record(ledger, 10).sequence == 3


@pytest.mark.parametrize("releases", [1, 3])
def test_a_spend_must_count_the_releases_before_it(ledger: SiteLedger, releases: int) -> None:
    record(ledger, 1)
    with pytest.raises(PrivacyError, match=rf"a spend of {releases} releases cannot be entry 2 of site 701"):
        ledger.record(2, gaussian_spend(releases), release(2))
    assert list(files(ledger)) == ["000001.json"]


@pytest.mark.parametrize("changes", [{"epsilon": 8.0}, {"delta": 1e-6}, {"total": 40}])
def test_the_price_of_a_release_cannot_change_within_a_study(ledger: SiteLedger, changes: dict[str, Any]) -> None:
    record(ledger, 4)
    with pytest.raises(PrivacyError, match=f"{ledger.study} changed after round 4 was released"):
        ledger.record(5, gaussian_spend(2, **changes), release(5))
    with pytest.raises(PrivacyError, match="changed after round 4"):
        ledger.record(4, gaussian_spend(1, **changes), release(4))
    assert list(files(ledger)) == ["000001.json"]
    assert record(ledger, 5).sequence == 2


def test_a_study_cannot_turn_its_privacy_off(ledger: SiteLedger) -> None:
    record(ledger, 1)
    open_ = Spend(mechanism="none", unit="nothing", neighbours="none", releases=2)
    with pytest.raises(PrivacyError, match="changed after round 1"):
        ledger.record(2, open_, release(2))


def test_beyond_the_budget_the_refusal_names_when_it_ended(ledger: SiteLedger, hub: ObjectStore) -> None:
    last = [record(ledger, number) for number in range(1, ROUNDS + 1)][-1]
    with pytest.raises(BudgetExhausted) as refusal:
        record(ledger, 30)
    when = f"{last.recorded_at:%Y-%m-%d}"
    assert f"the budget is 3, and it ended with release 20, in round 20 on {when}" in str(refusal.value)
    assert len(stored(hub, ledger.study)) == len(files(ledger)) == ROUNDS
    assert last.spend.epsilon == pytest.approx(3, rel=1e-6)


def test_a_first_release_beyond_the_budget_is_refused(ledger: SiteLedger) -> None:
    dear = gaussian_spend(1).model_copy(update={"epsilon": 3.1})
    with pytest.raises(BudgetExhausted, match="no release fits in it"):
        ledger.record(1, dear, release(1))
    assert files(ledger) == {}


# crashes and outages


class Killed(BaseException):
    """The process ends here."""


def kill_before_local(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ledger_module, "write_private", _killed)


def kill_between(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SiteLedger, "_publish", _killed)


def kill_after_store(patch: pytest.MonkeyPatch) -> None:
    publish = SiteLedger._publish

    def then_die(self: SiteLedger, link: Link) -> None:
        publish(self, link)
        raise Killed

    patch.setattr(SiteLedger, "_publish", then_die)


def _killed(*_: object) -> None:
    raise Killed


def record_and_die(ledger: SiteLedger, server_round: int, kill: Callable[[pytest.MonkeyPatch], None]) -> None:
    """A record that ends at the kill point; one that finds its entry does not pass there."""
    spend = gaussian_spend(ledger.read().next_release(server_round))
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Killed):
        kill(patch)
        ledger.record(server_round, spend, release(server_round))


KILLS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "before the site's write": kill_before_local,
    "between the writes": kill_between,
    "after the store's write": kill_after_store,
}


@pytest.mark.parametrize("kill", KILLS.values(), ids=KILLS)
@pytest.mark.parametrize("disk_lost", [False, True])
def test_a_crash_neither_loses_nor_doubles_a_spend(
    ledger: SiteLedger, hub: ObjectStore, kill: Callable[[pytest.MonkeyPatch], None], disk_lost: bool
) -> None:
    record(ledger, 1)
    record_and_die(ledger, 2, kill)
    begun = stored(hub, ledger.study) | ({} if disk_lost else files(ledger))
    if disk_lost:
        shutil.rmtree(ledger.folder)
    retried = again(ledger)
    assert retried.read().next_release(2) == 2
    record(retried, 2)
    assert record(retried, 3).sequence == 3
    assert list(files(ledger)) == ["000001.json", "000002.json", "000003.json"]
    assert stored(hub, ledger.study) == files(ledger)
    assert begun.items() <= files(ledger).items()


def test_an_entry_left_at_the_site_counts_though_its_round_is_over(ledger: SiteLedger, hub: ObjectStore) -> None:
    record_and_die(ledger, 1, kill_between)
    assert stored(hub, ledger.study) == {}
    assert again(ledger).read().next_release(2) == 2
    assert stored(hub, ledger.study) == files(ledger)
    assert list(files(ledger)) == ["000001.json"]


def test_a_store_that_is_down_stops_the_release_before_anything_is_written(ledger: SiteLedger) -> None:
    port = choose_ports(auto=True).s3
    nobody = S3Credential(access_key="x", secret_key="y")
    down = again(ledger, store=ObjectStore.connect(f"http://127.0.0.1:{port}", layout.BUCKET, nobody, "site-701"))
    with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{port} does not answer"):
        down.record(1, gaussian_spend(1), release(1))
    with pytest.raises(StoreUnavailable):
        down.read().next_release(2)
    assert files(ledger) == {}


class PutHook:
    """A client that calls a function before the first write of an object."""

    def __init__(self, client: Any, hook: Callable[[], None]) -> None:
        self._client, self._hooks = client, [hook]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def put_object(self, **arguments: Any) -> Any:
        if self._hooks:
            self._hooks.pop()()
        return self._client.put_object(**arguments)


def hooked(store: ObjectStore, hook: Callable[[], None]) -> ObjectStore:
    return dataclasses.replace(store, client=PutHook(store.client, hook))


def test_a_store_that_goes_down_leaves_the_sites_own_entry_to_be_completed(
    ledger: SiteLedger, hub: ObjectStore
) -> None:
    """The site's copy says what was meant to be released; the store has it only after the retry, with the same time."""

    def outage() -> None:
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")

    with pytest.raises(StoreUnavailable):
        record(again(ledger, store=hooked(ledger.store, outage)), 1)
    meant = files(ledger)
    assert (list(meant), stored(hub, ledger.study)) == (["000001.json"], {})
    with pytest.raises(PrivacyError, match="another release"):
        record(ledger, 1, "b" * 64)
    assert Link.parse(meant["000001.json"]).entry == record(ledger, 1)
    assert stored(hub, ledger.study) == files(ledger) == meant


# copies that were lost


def test_a_lost_disk_is_fetched_back_from_the_store(ledger: SiteLedger, hub: ObjectStore) -> None:
    for number in (1, 2, 3):
        record(ledger, number)
    before = files(ledger)
    shutil.rmtree(ledger.folder)
    assert again(ledger).read().next_release(4) == 4
    assert files(ledger) == before == stored(hub, ledger.study)


def test_an_old_backup_is_completed_from_the_store(ledger: SiteLedger, hub: ObjectStore) -> None:
    for number in (1, 2, 3):
        record(ledger, number)
    before = files(ledger)
    for name in ("000002.json", "000003.json"):
        (ledger.folder / name).unlink()
    assert again(ledger).read().next_release(2) == 2
    assert files(ledger) == before
    assert record(ledger, 4).sequence == 4


def test_a_lost_disk_does_not_allow_another_release(ledger: SiteLedger) -> None:
    first = record(ledger, 1)
    shutil.rmtree(ledger.folder)
    with pytest.raises(PrivacyError, match="already recorded another release"):
        record(ledger, 1, "b" * 64)
    assert record(ledger, 1) == first


@pytest.mark.parametrize("lost", [(3,), (2, 3), (1, 2, 3)])
def test_what_the_store_lost_is_written_again(ledger: SiteLedger, hub: ObjectStore, lost: tuple[int, ...]) -> None:
    for number in (1, 2, 3):
        record(ledger, number)
    remove(hub, ledger.study, *lost)
    assert len(stored(hub, ledger.study)) == 3 - len(lost)
    assert record(ledger, 4).sequence == 4
    assert stored(hub, ledger.study) == files(ledger)
    assert len(files(ledger)) == 4


@pytest.mark.parametrize("hole", [(1,), (2,), (2, 3)])
def test_a_hole_in_the_store_is_not_taken_for_the_end(
    ledger: SiteLedger, hub: ObjectStore, hole: tuple[int, ...]
) -> None:
    for number in range(1, 6):
        record(ledger, number)
    shutil.rmtree(ledger.folder)
    remove(hub, ledger.study, *hole)
    with pytest.raises(PrivacyError, match=rf"ledger/701/{hole[0]:06d}.json is missing, but .* is there"):
        ledger.read().next_release(6)
    assert files(ledger) == {}


# copies that disagree


@pytest.mark.parametrize("signer", [SITE, OTHER])
def test_two_entries_of_one_number_are_a_fork(
    ledger: SiteLedger, hub: ObjectStore, identities: Path, signer: str
) -> None:
    first, second = record(ledger, 1), record(ledger, 2)
    other = Link.seal(second.model_copy(update={"release_sha256": "f" * 64}), identities / signer)
    put_chain(hub, ledger.study, SITE, [other])
    before = files(ledger)
    with pytest.raises(PrivacyError) as refusal:
        record(ledger, 3)
    key = layout.ledger_entry(ledger.study, SITE, 2)
    assert f"two entries 2, {ledger.folder / '000002.json'} and {key} in the store" in str(refusal.value)
    assert files(ledger) == before
    assert len(stored(hub, ledger.study)) == 2
    assert first.sequence == 1


def test_a_fork_below_a_lost_entry_is_found(ledger: SiteLedger, hub: ObjectStore, identities: Path) -> None:
    record(ledger, 1)
    other = Link.seal(record(ledger, 2).model_copy(update={"server_round": 7}), identities / SITE)
    record(ledger, 3)
    put_chain(hub, ledger.study, SITE, [other])
    remove(hub, ledger.study, 3)
    with pytest.raises(PrivacyError, match="two entries 2"):
        ledger.read().next_release(4)


def _change_time(body: bytes) -> bytes:
    return body.replace(b'"recorded_at": "20', b'"recorded_at": "21')


DAMAGE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "changed in the middle": (
        "000003.json",
        lambda folder: _edit(folder / "000002.json", _change_time),
        "was made after another entry 2 than the one here, which is not signed by the site",
    ),
    "changed at the end": (
        "000003.json",
        lambda folder: _edit(folder / "000003.json", _change_time),
        "is not signed with the site's key",
    ),
    "missing": ("000002.json", lambda folder: (folder / "000002.json").unlink(), "is missing"),
    "empty": ("000002.json", lambda folder: (folder / "000002.json").write_bytes(b""), "is no ledger entry"),
    "twice": (
        "000002.json",
        lambda folder: shutil.copy(folder / "000002.json", folder / "000003.json"),
        "stands where entry 3 should",
    ),
}


def _edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    body = path.read_bytes()
    assert change(body) != body
    path.write_bytes(change(body))


@pytest.mark.parametrize(("name", "damage", "what"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_copy_releases_nothing_until_it_is_moved_away(
    ledger: SiteLedger, hub: ObjectStore, name: str, damage: Callable[[Path], object], what: str
) -> None:
    for number in (1, 2, 3):
        record(ledger, number)
    whole, before = files(ledger), stored(hub, ledger.study)
    damage(ledger.folder)
    with pytest.raises(PrivacyError) as refusal:
        ledger.record(4, gaussian_spend(4), release(4))
    assert f"{ledger.folder / name} {what}" in str(refusal.value)
    assert f"Move {ledger.folder} away" in str(refusal.value)
    assert stored(hub, ledger.study) == before
    ledger.folder.rename(ledger.folder.with_name("away"))
    assert ledger.read().next_release(4) == 4
    assert files(ledger) == whole


@pytest.mark.parametrize(
    ("changes", "signer", "what"),
    [
        ({"study": "study"}, SITE, "is of site 701 in study, not of site 701 in study_"),
        ({"site": OTHER}, OTHER, "is of site 702 in"),
        ({}, OTHER, "is not signed with the site's key"),
    ],
)
def test_what_the_store_gives_back_must_be_the_sites_own(
    ledger: SiteLedger, hub: ObjectStore, identities: Path, changes: dict[str, str], signer: str, what: str
) -> None:
    forged = entry(1, FIRST, **({"study": ledger.study} | changes))
    put_chain(hub, ledger.study, SITE, [Link.seal(forged, identities / signer)])
    with pytest.raises(PrivacyError) as refusal:
        ledger.read().next_release(1)
    assert f"{layout.ledger_entry(ledger.study, SITE, 1)} {what}" in str(refusal.value)
    assert files(ledger) == {}


# two processes of one site


def test_of_two_machines_with_one_release_both_get_the_first_ones_entry(
    ledger: SiteLedger, hub: ObjectStore, tmp_path: Path
) -> None:
    """Each has its own disk, so only the store stands between them."""
    won: list[LedgerEntry] = []
    slow = again(ledger, store=hooked(ledger.store, lambda: won.append(record(ledger, 1))), folder=tmp_path / "second")
    assert record(slow, 1) == won[0]
    assert files(slow) == files(ledger) == stored(hub, ledger.study)


def test_of_two_machines_with_two_releases_the_second_is_refused(
    ledger: SiteLedger, hub: ObjectStore, tmp_path: Path
) -> None:
    slow = again(ledger, store=hooked(ledger.store, lambda: record(ledger, 1)), folder=tmp_path / "second")
    with pytest.raises(PrivacyError, match="already recorded another release"):
        record(slow, 1, "b" * 64)
    assert files(slow) == files(ledger) == stored(hub, ledger.study)
    assert len(files(slow)) == 1


def test_of_two_machines_with_two_rounds_the_second_runs_again(
    ledger: SiteLedger, hub: ObjectStore, tmp_path: Path
) -> None:
    slow = again(ledger, store=hooked(ledger.store, lambda: record(ledger, 1)), folder=tmp_path / "second")
    with pytest.raises(PrivacyError, match=r"two rounds .* at once, and round 2 came second"):
        record(slow, 2)
    assert record(slow, 2).sequence == 2
    assert files(slow) == stored(hub, ledger.study)
    assert list(files(slow)) == ["000001.json", "000002.json"]


def test_processes_of_one_machine_take_turns(ledger: SiteLedger, hub: ObjectStore, identities: Path) -> None:
    refusals: list[str] = []
    too_late: set[int] = set()

    def task(number: int) -> None:
        for _ in range(20):
            try:
                record(again(ledger), number)
                return
            except PrivacyError as error:  # another release came in between next_release and record
                if "does not go back" in str(error):
                    too_late.add(number)
                    return
                refusals.append(str(error))

    threads = [threading.Thread(target=task, args=(number,)) for number in (1, 2, 3, 4, 1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("another release came in between" in refusal for refusal in refusals)
    assert stored(hub, ledger.study) == files(ledger)
    rounds = [Link.parse(body).entry.server_round for body in files(ledger).values()]
    assert rounds == sorted({1, 2, 3, 4} - too_late)
    assert rounds[-1] == 4
    report = verify_chain(files(ledger).values(), certificate(identities), {})
    assert (report.entries, report.problems) == (len(rounds), ())


# what the hub reads


def test_the_hub_reads_each_sites_newest_entry_and_no_other(
    ledger: SiteLedger,
    hub: ObjectStore,
    object_store,
    identities: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = SiteLedger(object_store.store("site-702"), ledger.study, OTHER, tmp_path / OTHER, identities / OTHER)
    expected = {SITE: [record(ledger, number) for number in (2, 5)][-1], OTHER: record(other, 9)}
    reads: list[str] = []
    get = ObjectStore.get
    monkeypatch.setattr(ObjectStore, "get", lambda self, key, **kw: (reads.append(key), get(self, key, **kw))[1])
    assert spent(hub, ledger.study) == expected
    assert reads == [layout.ledger_entry(ledger.study, SITE, 2), layout.ledger_entry(ledger.study, OTHER, 1)]


def _rewrite(hub: ObjectStore, where: str, **changes: Any) -> None:
    """Entry 3 claims something else; it need not be signed for this."""
    made = entry(3, FIRST, **({"study": where} | changes))
    hub.put(layout.ledger_entry(where, SITE, 3), made.model_dump_json().encode(), content_type="application/json")


SPOILT: dict[str, Callable[[ObjectStore, str], object]] = {
    "claims fewer entries than there are": lambda hub, study: _rewrite(hub, study, sequence=2),
    "claims fewer releases than there are": lambda hub, study: _rewrite(hub, study, spend=gaussian_spend(1)),
    "of another site": lambda hub, study: _rewrite(hub, study, site=OTHER),
    "of another study": lambda hub, study: _rewrite(hub, study, study="another"),
    "no entry": lambda hub, study: hub.put(layout.ledger_entry(study, SITE, 3), b"{}", content_type="text/plain"),
    "one taken from the middle": lambda hub, study: remove(hub, study, 2),
    "another object beside them": lambda hub, study: hub.put(
        f"{layout.ledger_prefix(study)}/{SITE}/note", b"", content_type="text/plain"
    ),
    "a deeper object": lambda hub, study: hub.put(
        f"{layout.ledger_prefix(study)}/{SITE}/000001.json/x", b"", content_type="text/plain"
    ),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_spoilt_ledger_is_none_and_keeps_the_hub_from_no_other(
    ledger: SiteLedger,
    hub: ObjectStore,
    object_store,
    identities: Path,
    tmp_path: Path,
    spoil: Callable[[ObjectStore, str], object],
) -> None:
    other = SiteLedger(object_store.store("site-702"), ledger.study, OTHER, tmp_path / OTHER, identities / OTHER)
    entries = [record(ledger, number) for number in (1, 2, 3)]
    theirs = record(other, 1)
    assert spent(hub, ledger.study) == {SITE: entries[-1], OTHER: theirs}
    spoil(hub, ledger.study)
    assert spent(hub, ledger.study) == {SITE: None, OTHER: theirs}


# any order of rounds, crashes and losses

ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["record", "record", "other bytes", *KILLS, "lose the disk", "old backup", "lose the store"]),
        st.integers(1, 6),
    ),
    min_size=3,
    max_size=14,
)
EXAMPLES = itertools.count()


@hypothesis_settings(
    max_examples=60,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(actions=ACTIONS)
def test_no_history_makes_a_gap_a_second_release_a_way_back_or_a_wrong_total(
    identities: Path, tmp_path: Path, actions: list[tuple[str, int]]
) -> None:
    hub = MemoryClient().store()
    enrol(hub, identities)
    ledger = SiteLedger(hub, "study", SITE, tmp_path / f"{next(EXAMPLES)}", identities / SITE)
    ledger.read().next_release(1)
    done: dict[int, LedgerEntry] = {}
    for action, number in actions:
        _act(ledger, hub, done, action, number)
    record(ledger, 99)
    chain = read_chain(hub, ledger.study, SITE)
    assert files(ledger) == stored(hub, ledger.study)
    assert [found.sequence for found in chain] == [*range(1, len(chain) + 1)]
    assert [found.spend for found in chain] == [gaussian_spend(count) for count in range(1, len(chain) + 1)]
    assert all(a.server_round < b.server_round for a, b in itertools.pairwise(chain))
    assert all(chain[made.sequence - 1] == made for made in done.values())
    assert set(done) <= {found.server_round for found in chain}


def _act(ledger: SiteLedger, hub: ObjectStore, done: dict[int, LedgerEntry], action: str, number: int) -> None:
    if action == "lose the disk":
        shutil.rmtree(ledger.folder, ignore_errors=True)
    elif action == "old backup":
        for path in sorted(ledger.folder.glob("*.json"))[number:]:
            path.unlink()
    elif action == "lose the store":
        ledger.read().next_release(99)  # losing both copies at once is losing the ledger
        remove(hub, ledger.study, *range(number, 8))
        ledger.read().next_release(99)
    else:
        _release(ledger, done, action, max(1, ledger.read().last_round + number - 3))


def _release(ledger: SiteLedger, done: dict[int, LedgerEntry], action: str, server_round: int) -> None:
    """A round from two before the newest to three after it."""
    before = files(ledger)
    rounds = {Link.parse(body).entry.server_round for body in before.values()}
    if server_round not in rounds and server_round < max(rounds, default=0):
        with pytest.raises(PrivacyError, match=f"does not go back to round {server_round}"):
            record(ledger, server_round)
        assert files(ledger) == before
    elif action == "other bytes":
        if server_round in done:
            with pytest.raises(PrivacyError, match="another release"):
                record(ledger, server_round, "f" * 64)
    elif action == "record":
        done.setdefault(server_round, record(ledger, server_round))
    else:
        record_and_die(ledger, server_round, KILLS[action])
