"""What the hub reads of the ledgers on a real object store, where a site may overwrite and delete its own entries."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.errors import AccessDenied, ConfigError, PrivacyError
from tasks.privacy.ledger.chain import Link
from tasks.privacy.ledger.evidence import Anchor, collect, export, load, read_chain
from tasks.privacy.ledger.spent import MAX_KEYS, keys_by_site, spent
from tasks.store import layout
from tasks.store.objects import ObjectStore, to_json
from tasks.store.records.round import Selection
from tests.privacy.ledger.ledger_samples import (
    OTHER,
    SITE,
    MemoryClient,
    clear,
    enrol,
    make_chain,
    make_identities,
    put_chain,
    remove,
    select,
)

LENGTH = 5


@dataclasses.dataclass(frozen=True)
class Published:
    """A study with the ledgers of both sites; the hub accepted the updates of rounds 2 and 4, of both."""

    study: str
    hub: ObjectStore
    site: ObjectStore
    identities: Path
    links: list[Link]
    theirs: list[Link]

    def problems(self) -> dict[str, tuple[str, ...]]:
        return {site: found.verify().problems for site, found in collect(self.hub, self.study).items()}

    def anew(self, **changes: object) -> list[Link]:
        """A chain of the same length with other content, valid links and valid signatures."""
        return make_chain(self.identities, LENGTH, **({"study": self.study, "release_sha256": "e" * 64} | changes))


@pytest.fixture(scope="module")
def _published(object_store, tmp_path_factory: pytest.TempPathFactory) -> Published:
    study, identities = next(object_store.names), make_identities(tmp_path_factory.mktemp("identities"))
    links = make_chain(identities, LENGTH, study=study)
    theirs = make_chain(identities, LENGTH, study=study, site=OTHER)
    return Published(study, object_store.store("hub"), object_store.store("site-701"), identities, links, theirs)


@pytest.fixture
def published(_published: Published) -> Iterator[Published]:
    made = _published
    enrol(made.hub, made.identities)
    put_chain(made.site, made.study, SITE, made.links)
    put_chain(made.hub, made.study, OTHER, made.theirs)
    for number in (2, 4):
        pinned = {SITE: made.links[number - 1], OTHER: made.theirs[number - 1]}
        select(made.hub, made.study, number, {site: (number, link.sha256) for site, link in pinned.items()})
    yield made
    clear(made.hub, made.study)


def test_what_is_whole_is_read_whole(published: Published) -> None:
    found = collect(published.hub, published.study, ["999"])
    assert list(found) == [SITE, OTHER, "999"]
    assert found[SITE].bodies == {link.entry.sequence: link.body for link in published.links}
    assert found[SITE].anchors == tuple(
        Anchor(server_round=number, sequence=number, sha256=published.links[number - 1].sha256) for number in (2, 4)
    )
    assert (found["999"].bodies, found["999"].anchors, found["999"].certificate_pem) == ({}, (), None)
    reports = {site: evidence.verify() for site, evidence in found.items()}
    assert {site: report.problems for site, report in reports.items()} == {SITE: (), OTHER: (), "999": ()}
    assert [report.signature for report in reports.values()] == ["valid", "valid", "not checked"]
    assert read_chain(published.hub, published.study, SITE) == [link.entry for link in published.links]
    assert read_chain(published.hub, published.study, "999") == []


def _overwrite(made: Published) -> None:
    put_chain(made.site, made.study, SITE, made.anew()[2:3])


def _rewrite_all(made: Published) -> None:
    put_chain(made.site, made.study, SITE, made.anew())


def _rewrite_shorter(made: Published) -> None:
    _rewrite_all(made)
    remove(made.site, made.study, 3, 4, 5)


def _replay_site(made: Published) -> None:
    for link in made.theirs:
        made.site.put(
            layout.ledger_entry(made.study, SITE, link.entry.sequence), link.body, content_type="application/json"
        )


def _replay_study(made: Published) -> None:
    put_chain(made.site, made.study, SITE, made.anew(study="another"))


def _unreadable(made: Published) -> None:
    made.site.put(layout.ledger_entry(made.study, SITE, 3), b"x" * (1 << 17), content_type="text/plain")


PINNED = "is not the one that the hub pinned when it accepted the update"
PAID = "is missing, but the hub accepted an update that it paid for"
TAMPERED: dict[str, tuple[Callable[[Published], None], str]] = {
    "one overwritten": (_overwrite, "entry 4 was made after another entry 3 than the one here"),
    "the newest pinned and after deleted": (lambda p: remove(p.site, p.study, 4, 5), f"entry 4 {PAID}"),
    "one in the middle deleted": (lambda p: remove(p.site, p.study, 3), "entry 3 is missing"),
    "all deleted": (lambda p: remove(p.site, p.study, *range(1, 6)), f"entry 2 {PAID}"),
    "all rewritten with valid signatures": (_rewrite_all, f"entry 2 {PINNED}"),
    "rewritten and shortened": (_rewrite_shorter, f"entry 4 {PAID}"),
    "another site's put in place": (_replay_site, "entry 1 is of site 702"),
    "another study's put in place": (_replay_study, "entry 1 is of site 701 in another"),
    "an entry of 128 kB": (_unreadable, "entry 3 cannot be read"),
}


@pytest.mark.parametrize(("tamper", "problem"), TAMPERED.values(), ids=TAMPERED)
def test_what_a_site_does_to_its_ledger_is_found(
    published: Published, tamper: Callable[[Published], None], problem: str
) -> None:
    tamper(published)
    problems = published.problems()
    assert problems[OTHER] == ()
    assert any(found.startswith(problem) for found in problems[SITE]), problems[SITE]
    with pytest.raises(PrivacyError, match=f"the ledger of site 701 in {published.study} is broken: entry"):
        read_chain(published.hub, published.study, SITE)
    assert len(read_chain(published.hub, published.study, OTHER)) == LENGTH


def test_the_newest_entry_that_nothing_pins_can_vanish_and_the_next_selection_shows_it(published: Published) -> None:
    """Until then only the site's own copy knows of it: an honest site writes it again."""
    remove(published.site, published.study, 5)
    assert published.problems()[SITE] == ()
    newest = spent(published.hub, published.study)[SITE]
    assert newest is not None
    assert newest.sequence == 4
    select(published.hub, published.study, 5, {SITE: (5, published.links[4].sha256)})
    assert published.problems()[SITE] == (f"entry 5 {PAID}",)


def test_two_rounds_that_pin_one_entry_differently_show_a_rewrite(published: Published) -> None:
    anew = published.anew()
    put_chain(published.site, published.study, SITE, anew)
    select(published.hub, published.study, 6, {SITE: (4, anew[3].sha256)})
    assert "entry 4 was pinned twice, and differently, in rounds 4 and 6" in published.problems()[SITE]


def select_anew(made: Published) -> bytes:
    """A selection of round 3 that pins another entry 3 of site 701 than the one in its ledger."""
    body = made.hub.get(layout.selection(made.study, 2))
    selection = Selection.model_validate_json(body)
    chosen = tuple(
        item.model_copy(update={"ledger_sequence": 3, "ledger_sha256": "f" * 64}) for item in selection.chosen
    )
    return to_json(selection.model_copy(update={"server_round": 3, "chosen": chosen[:1]}))


def test_a_site_cannot_pass_off_a_selection(published: Published) -> None:
    """The store takes it nowhere where evidence is read; what lies below the site's own prefix is no selection.

    A right with a `*` in its middle would let it write below the hub's keys, under its own name.
    """
    study, forged = published.study, select_anew(published)
    records = f"{layout.study_prefix(study)}/records"
    denied = [
        layout.selection(study, 2),
        layout.selection(study, 3),
        f"{records}/0003/sites/{SITE}/rounds/0003/selection.json",
        f"{records}/0003/updates/{SITE}/selection.json",
        f"{records}/sites/{SITE}/selection.json",
        f"{layout.round_prefix(study, 3)}/updates/{SITE}/selection.json",
        f"{layout.round_prefix(study, 3)}/sites/{SITE}/selection.json",
    ]
    before = {key: published.hub.get(key) for key in published.hub.keys(layout.study_prefix(study) + "/")}
    for key in denied:
        with pytest.raises(AccessDenied, match=f"put_object {layout.BUCKET}/{key} as site-{SITE}"):
            published.site.put(key, forged, content_type="application/json")
    assert {key: published.hub.get(key) for key in before} == before
    assert set(published.hub.keys(layout.study_prefix(study) + "/")) == before.keys()
    own = f"{layout.site_round_prefix(study, 3, SITE)}/selection.json"
    published.site.put(own, forged, content_type="application/json")
    assert published.problems() == {SITE: (), OTHER: ()}
    published.hub.put(layout.selection(study, 3), forged, content_type="application/json")
    assert published.problems()[SITE] == (f"entry 3 {PINNED}",), "from the hub, it counts"


def test_an_object_beside_the_entries_is_named(published: Published) -> None:
    key = f"{layout.ledger_prefix(published.study)}/{SITE}/note.txt"
    published.site.put(key, b"hello", content_type="text/plain")
    assert published.problems() == {SITE: ("'note.txt' lies in the ledger and is no entry",), OTHER: ()}


def test_entries_without_a_certificate_are_a_problem(published: Published) -> None:
    published.hub.client.delete_object(Bucket=layout.BUCKET, Key=layout.enrolment(SITE))
    assert published.problems()[SITE] == ("site 701 has no certificate, so its signature cannot be checked",)


# the exported folder


def test_an_export_is_verified_as_the_store_is(published: Published, tmp_path: Path) -> None:
    folder = tmp_path / "evidence"
    export(published.hub, published.study, folder)
    assert load(folder) == collect(published.hub, published.study)
    assert all(found.verify().ok for found in load(folder).values())
    entry = folder / "ledger" / SITE / "000003.json"
    assert entry.read_bytes() == published.links[2].body
    assert json.loads(entry.read_text())["server_round"] == 3
    assert "pharmafed privacy verify evidence" in (folder / "README.txt").read_text()


def test_an_export_that_was_opened_on_a_desktop_is_verified_alike(published: Published, tmp_path: Path) -> None:
    """What it leaves in the folder of ledgers is no site."""
    export(published.hub, published.study, tmp_path / "evidence")
    before = load(tmp_path / "evidence")
    (tmp_path / "evidence/ledger/.DS_Store").write_bytes(b"\0")
    assert load(tmp_path / "evidence") == before


def test_an_export_holds_no_token_and_no_key(published: Published, tmp_path: Path) -> None:
    export(published.hub, published.study, tmp_path / "evidence")
    files = [path for path in (tmp_path / "evidence").rglob("*") if path.is_file()]
    assert len(files) == 2 * LENGTH + 2 + 2
    for path in files:
        assert b"token" not in path.read_bytes()
        assert b"PRIVATE" not in path.read_bytes()


def test_a_broken_ledger_stays_broken_in_its_export(published: Published, tmp_path: Path) -> None:
    _rewrite_shorter(published)
    published.site.put(f"{layout.ledger_prefix(published.study)}/{SITE}/note.txt", b"", content_type="text/plain")
    export(published.hub, published.study, tmp_path / "evidence")
    found = {site: evidence.verify().problems for site, evidence in load(tmp_path / "evidence").items()}
    assert found == published.problems()
    assert len(found[SITE]) == 3
    assert found[OTHER] == ()


FOLDER_DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a ledger removed": (lambda folder: shutil.rmtree(folder / "ledger" / SITE), f"entry 2 {PAID}"),
    "an entry removed": (lambda folder: (folder / "ledger" / SITE / "000001.json").unlink(), "entry 1 is missing"),
    "a certificate removed": (
        lambda folder: (folder / "certificates" / f"{SITE}.pem").unlink(),
        "site 701 has no certificate",
    ),
    "another site's certificate": (
        lambda folder: shutil.copy(folder / "certificates" / f"{OTHER}.pem", folder / "certificates" / f"{SITE}.pem"),
        "entry 5 is not signed with the site's key",
    ),
    "no certificate at all": (
        lambda folder: (folder / "certificates" / f"{SITE}.pem").write_text("none"),
        "site 701 has no certificate",
    ),
    "a file added": (lambda folder: (folder / "ledger" / SITE / "x").write_bytes(b""), "'x' lies in the ledger"),
}


@pytest.mark.parametrize(("damage", "problem"), FOLDER_DAMAGE.values(), ids=FOLDER_DAMAGE)
def test_a_damaged_export_is_found(
    published: Published, tmp_path: Path, damage: Callable[[Path], object], problem: str
) -> None:
    export(published.hub, published.study, tmp_path / "evidence")
    damage(tmp_path / "evidence")
    found = {site: evidence.verify().problems for site, evidence in load(tmp_path / "evidence").items()}
    assert found[OTHER] == ()
    assert any(text.startswith(problem) for text in found[SITE]), found[SITE]


def test_an_export_replaces_nothing(published: Published, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    for folder in (tmp_path, tmp_path / "mine"):
        with pytest.raises(ConfigError, match="is not an empty folder: name a new one"):
            export(published.hub, published.study, folder)


def test_a_folder_that_is_no_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no readable anchors.json \(FileNotFoundError\)"):
        load(tmp_path)
    (tmp_path / "anchors.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"has no readable anchors.json \(ValidationError\)"):
        load(tmp_path)


# what a site may pile up in its ledger


def _piled_up(published: Published, names: list[str]) -> ObjectStore:
    """The published entries and these names beside them, in memory."""
    store = MemoryClient().store()
    for link in published.links:
        store.client.objects[layout.ledger_entry(published.study, SITE, link.entry.sequence)] = link.body
    for name in names:
        store.client.objects[f"{layout.ledger_prefix(published.study)}/{SITE}/{name}"] = b"x"
    return store


def test_a_heap_of_objects_costs_the_hub_no_more_than_a_full_ledger(published: Published) -> None:
    store = _piled_up(published, [f"{number:06d}.json" for number in range(100, 100 + 2 * MAX_KEYS)])
    assert len(list(store.keys(layout.ledger_prefix(published.study)))) > 2 * MAX_KEYS
    assert len(keys_by_site(store, published.study)[SITE]) == MAX_KEYS
    assert spent(store, published.study) == {SITE: None}
    evidence = collect(store, published.study)[SITE]
    assert len(evidence.bodies) == MAX_KEYS
    assert not evidence.verify().ok


def test_a_name_in_other_digits_is_no_entry(published: Published) -> None:
    """`int` reads them: they would stand in for the entry of the same number."""
    store = _piled_up(published, ["00000١.json", "００００01.json"])
    evidence = collect(store, published.study)[SITE]
    assert evidence.bodies[1] == published.links[0].body
    assert set(evidence.strays) == {"00000١.json", "００００01.json"}
