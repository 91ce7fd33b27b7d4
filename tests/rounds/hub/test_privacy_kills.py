"""A site that is killed around sanitise, ledger and upload never releases what is not recorded, and never pays twice.

Each kill hits another round of one study, so that the ledger grows to a chain of dozens under the kills.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tasks.errors import ObjectMissing, PharmafedError
from tasks.privacy.ledger.chain import ChainCheck, Link
from tasks.privacy.secure_sum.records import RoundKeys
from tasks.rounds.hub.phases import freeze_roster
from tasks.rounds.site import steps
from tasks.store import layout, settings
from tasks.store.identity import load_key
from tasks.store.objects import to_json
from tasks.store.weights import sha256
from tests.rounds.hub.federation import _FORKS, FEW, LOCAL_DP, Federation, site_step
from tests.rounds.hub.kills import UNRECORDED, Watch, start, watched

SITE = "717"
STEP = "privatize_and_upload"
#: Mechanism -> its study, and the writes of the step: release, ledger here and there, tensors, manifest, raw removed;
#: behind masks also the others' words that are kept, the roster that is joined and the secrets that are blanked.
STUDIES: dict[str, tuple[dict[str, Any], int]] = {
    "local_dp": ({"privacy": LOCAL_DP, "channel": "plain", "evaluation": {"score_bins": None}}, 6),
    "distributed_dp": ({"channel": "masks"}, 9),
}
SEED = 20261122
RANDOM_KILLS = 10


@dataclass
class Killed:
    """One site in one study whose step is killed in every round."""

    fed: Federation
    study: str
    scratch: Path
    masked: bool
    number: int = 0
    released: dict[int, str] = field(default_factory=dict)
    entries: list[bytes] = field(default_factory=list)
    kills: int = 0
    raw: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def new(cls, fed: Federation, scratch: Path, mechanism: str) -> Killed:
        rounds = {"total": 100, "min_sites": 3, "deadline_seconds": 3600}
        study = fed.new_study(sites=FEW, rounds=rounds, **STUDIES[mechanism][0])
        fed.open(study)
        return cls(fed, study, scratch, masked=mechanism == "distributed_dp")

    def next_round(self) -> None:
        """A round in which the site has trained, and has a roster to mask against."""
        self.number += 1
        if self.number > 1:
            self.fed.put_plan(self.fed.hub(self.study).plan(1).model_copy(update={"server_round": self.number}))
        sites = FEW if self.masked else (SITE,)
        assert self.fed.run_sites(self.study, self.number, sites, names=("train",)) == {}
        if self.masked:
            freeze_roster(self.fed.hub(self.study), self.number)
        (self.scratch / str(self.number)).mkdir()
        self.raw = load_file(self.folder / "raw.safetensors")["raw.sum"]

    @property
    def folder(self) -> Path:
        return self.fed.home / "sites" / SITE / "rounds" / self.study / f"{self.number:04d}"

    @property
    def step(self) -> Callable[[], object]:
        return site_step(STEP, self.study, SITE, self.number)

    def watch(self, **options: Any) -> Watch:
        key = layout.ledger_entry(self.study, SITE, self.number)
        return Watch(self.scratch / str(self.number), key, **options)

    def kill(self, *, at: int | None = None, after: float | None = None) -> bool:
        """Kill the step at a boundary, or so many seconds after its start; whether that was before its end."""
        child, begun = start(self.fed, self.step, self.watch(kill_at=at))
        assert begun.wait(60)
        child.join(after)
        child.kill()
        child.join(60)
        assert child.exitcode in (0, -signal.SIGKILL), f"the step failed by itself: {child.exitcode}"
        self.kills += child.exitcode != 0
        self.check()
        return bool(child.exitcode)

    def finish(self) -> Watch:
        """Run the step to its end."""
        watch = self.watch()
        with watched(watch):
            steps.privatize_and_upload(self.fed.site(self.study, SITE), self.number)
        self.check()
        return watch

    def update(self, number: int) -> bytes | None:
        try:
            return self.fed.store().get(layout.update_tensors(self.study, number, SITE))
        except ObjectMissing:
            return None

    def check(self) -> None:
        """What must hold at any moment, whatever has died."""
        entries = list(self.fed.objects(f"{layout.ledger_prefix(self.study)}/{SITE}/").values())
        assert entries[: len(self.entries)] == self.entries, "an entry was written again"
        self.entries = entries
        links = self._chain()
        assert len(links) - len(self.released) in (0, 1)
        paid = {link.entry.server_round: link.entry.release_sha256 for link in links}
        assert len(paid) == len(links), "a round has two entries"
        body = self.update(self.number)
        if body is not None:
            assert paid.get(self.number) == sha256(body), "what was released is not what was recorded"
            assert self.released.setdefault(self.number, sha256(body)) == sha256(body)
        own = sorted((self.fed.home / "sites" / SITE / "ledger" / self.study).glob("0*.json"))
        assert len(own) - len(entries) in (0, 1)
        assert [path.read_bytes() for path in own][: len(entries)] == entries
        self._nothing_in_clear()

    def _chain(self) -> list[Link]:
        key = load_key(settings.site_secrets(SITE) / "signing_key.pem").public_key()
        chain = ChainCheck(self.study, SITE, key)
        links = [Link.parse(body) for body in self.entries]
        for sequence, link in enumerate(links, 1):
            chain.add(link)
            assert link.is_signed_by(key)
            assert link.entry.sequence == link.entry.spend.releases == sequence
        assert chain.problems == []
        return links

    def _nothing_in_clear(self) -> None:
        """Neither the raw update nor what was to be masked is in the store: no pair of its integers."""
        objects = self.fed.objects(f"{layout.site_round_prefix(self.study, self.number, SITE)}/")
        if self.masked:
            key = layout.key_message(self.study, self.number, SITE)
            objects[key] = self.fed.store().get(key)
        vectors = [self.raw, *self.watch().contributions()]
        for values in vectors:
            assert np.count_nonzero(values) > 10
            needles = [values[i : i + 2].tobytes() for i in range(values.size - 1) if values[i : i + 2].all()]
            assert not [key for key, body in objects.items() if any(needle in body for needle in needles)]

    def check_round(self) -> None:
        """What must hold once the step has run to its end: one release, which every attempt to upload was of."""
        assert len(self.entries) == len(self.released) == self.number
        attempts = [line for line in self.watch().lines() if line["event"].startswith("before put")]
        uploads = [line for line in attempts if line["event"].endswith("/update.safetensors")]
        assert uploads
        assert {line["paid"] for line in uploads} == {self.released[self.number]} != {UNRECORDED}
        assert {line["sha256"] for line in uploads} == {self.released[self.number]}
        assert self.fed.manifest(self.study, self.number, SITE).sha256 == self.released[self.number]
        assert not self.fed.store().exists(layout.refusal(self.study, self.number, SITE))
        assert not self.masked or self.watch().contributions()
        prefix = layout.site_round_prefix(self.study, self.number, SITE)
        assert len(list(self.fed.store().keys(f"{prefix}/"))) == 2, "else the search in clear looks at other keys"

    def check_end(self) -> None:
        """All rounds again, at the end: nothing has moved since."""
        links = self._chain()
        assert [link.entry.server_round for link in links] == list(range(1, self.number + 1))
        for link in links:
            body = self.update(link.entry.server_round)
            assert body is not None
            assert sha256(body) == link.entry.release_sha256 == self.released[link.entry.server_round]


@pytest.fixture(params=STUDIES)
def killed(fed: Federation, tmp_path: Path, request: pytest.FixtureRequest) -> Killed:
    return Killed.new(fed, tmp_path, request.param)


def boundaries(killed: Killed) -> int:
    """How many there are in one undisturbed run, in a process of its own."""
    killed.next_round()
    child, _ = start(killed.fed, killed.step, killed.watch())
    child.join(60)
    assert child.exitcode == 0
    killed.check()
    killed.check_round()
    return len(killed.watch().lines())


def test_killed_at_every_write(killed: Killed, request: pytest.FixtureRequest) -> None:
    """At each boundary; the retry is killed at another one, drawn at random, every other time."""
    draw = random.Random(SEED)
    count = boundaries(killed)
    assert count == 2 * STUDIES[request.node.callspec.params["killed"]][1]
    for at in range(count):
        killed.next_round()
        assert killed.kill(at=at), f"the step was not killed at boundary {at}"
        if at % 2:
            killed.kill(at=draw.randrange(count))
        killed.finish()
        killed.check_round()
    assert killed.kills >= count
    killed.check_end()


def test_killed_at_random_moments(killed: Killed) -> None:
    """Twenty in all, ten a mechanism: anywhere in the step, and the retry too every other time."""
    draw = random.Random(SEED + 1)
    boundaries(killed)
    killed.next_round()
    child, begun = start(killed.fed, killed.step, killed.watch())
    assert begun.wait(60)
    started = time.monotonic()
    child.join(60)
    seconds = time.monotonic() - started
    killed.check()
    killed.check_round()
    for number in range(RANDOM_KILLS):
        killed.next_round()
        killed.kill(after=draw.uniform(0, seconds))
        if number % 2:
            killed.kill(after=draw.uniform(0, seconds))
        killed.finish()
        killed.check_round()
    assert killed.kills >= RANDOM_KILLS // 2
    killed.check_end()


# a zombie beside its retry


MEETINGS = ("start", "before replace release.safetensors", "after replace release.safetensors", "manifest.json")


@pytest.mark.parametrize("place", MEETINGS)
def test_two_processes_at_once_release_one_thing(killed: Killed, place: str) -> None:
    """They meet at one place, so that they run on side by side from there; whichever comes second gives way."""
    killed.next_round()
    barrier = _FORKS.Barrier(2)
    watch = killed.watch(meet=(place, barrier))
    step = partial(_together, killed.step, barrier) if place == "start" else killed.step
    started = [start(killed.fed, step, watch) for _ in range(2)]
    for child, _ in started:
        child.join(60)
    killed.check()
    codes = [child.exitcode for child, _ in started]
    assert 0 in codes, f"neither process has come to its end: {codes}"
    killed.finish()
    killed.check_round()
    assert codes == [0, 0], "one of them has failed, and told the hub so"
    assert_no_secrets(killed)


def _together(step: Callable[[], object], barrier: Any) -> None:
    barrier.wait(30)
    step()


@pytest.mark.parametrize("place", ["before replace release.safetensors", "after replace release.safetensors"])
def test_one_of_two_dies_and_the_other_releases(killed: Killed, place: str) -> None:
    """A zombie stands still for a while, its retry overtakes it or waits for it, and the retry is then killed."""
    killed.next_round()
    slow, standing = start(killed.fed, killed.step, killed.watch(slow=(place, 0.5)))
    assert standing.wait(60)
    retry, begun = start(killed.fed, killed.step, killed.watch())
    assert begun.wait(60)
    retry.join(0.2)
    retry.kill()
    for child in (retry, slow):
        child.join(60)
    killed.check()
    killed.finish()
    killed.check_round()
    assert_no_secrets(killed)


# what a kill leaves on the site's disk


def assert_no_secrets(killed: Killed) -> None:
    """After the release: no raw update, no contribution, no secret of the masks in any file of the round."""
    kept = {path.name: path.read_bytes() for path in killed.folder.iterdir()}
    for values in (killed.raw, *killed.watch().contributions()):
        assert [name for name, body in kept.items() if values.tobytes() in body] == []
    assert not [name for name in kept if name.startswith(".")], "a half-written file was left"
    if killed.masked:
        keys = RoundKeys.model_validate_json(kept["round_keys.json"])
        assert (keys.mask_private_key, keys.self_seed) == (bytes(32), bytes(32))


@pytest.mark.parametrize("name", ["raw.safetensors", "round_keys.json", "release.safetensors"])
def test_a_kill_in_the_middle_of_a_file_leaves_no_secret(fed: Federation, tmp_path: Path, name: str) -> None:
    killed = Killed.new(fed, tmp_path, "distributed_dp")
    if name != "release.safetensors":
        die_before(killed, "train", name, Watch(tmp_path, ""))
    killed.next_round()
    if name == "release.safetensors":
        die_before(killed, STEP, name, killed.watch())
    before = RoundKeys.model_validate_json((killed.folder / "round_keys.json").read_bytes())
    assert before.self_seed != bytes(32) != before.mask_private_key
    killed.finish()
    killed.check_round()
    assert_no_secrets(killed)


def die_before(killed: Killed, step: str, name: str, watch: Watch) -> None:
    """The file is written whole beside its place; the process dies before it is moved there, in round 1."""
    watch.slow = (f"before replace {name}", 60)
    child, _ = start(killed.fed, site_step(step, killed.study, SITE, 1), watch)
    until = time.monotonic() + 60
    while not any(line["event"] == f"before replace {name}" for line in watch.lines()):
        assert child.is_alive(), f"the step has ended: {child.exitcode}"
        assert time.monotonic() < until
        time.sleep(0.02)
    child.kill()
    child.join(60)


# the same checks see what they should


def test_an_unrecorded_release_is_seen(killed: Killed) -> None:
    """A step that uploads before it records fails the checks, and so does one that draws again at each try."""
    killed.next_round()
    key = layout.update_tensors(killed.study, killed.number, SITE)
    killed.fed.store().put(key, b"unrecorded", content_type="application/octet-stream")
    with pytest.raises(AssertionError, match="what was released is not what was recorded"):
        killed.check()
    killed.fed.delete(key)
    killed.finish()
    killed.fed.store().put(key, b"drawn again", content_type="application/octet-stream")
    with pytest.raises(AssertionError, match="what was released is not what was recorded"):
        killed.check()


def test_a_double_spend_and_a_changed_entry_are_seen(killed: Killed) -> None:
    killed.next_round()
    killed.finish()
    link = killed._chain()[0]
    spend = link.entry.spend.model_copy(update={"releases": 2})
    again = link.entry.model_copy(update={"sequence": 2, "previous": link.sha256, "spend": spend})
    forged = Link.seal(again, settings.site_secrets(SITE))
    key = layout.ledger_entry(killed.study, SITE, 2)
    killed.fed.store().put(key, forged.body, content_type="application/json")
    with pytest.raises(AssertionError):
        killed.check()
    killed.fed.delete(key)
    first = layout.ledger_entry(killed.study, SITE, 1)
    killed.entries = [link.body]
    killed.fed.store().put(first, to_json(link.entry) + b" ", content_type="application/json")
    with pytest.raises(AssertionError, match="an entry was written again"):
        killed.check()


def test_a_contribution_in_clear_is_seen(killed: Killed) -> None:
    killed.next_round()
    key = layout.update_manifest(killed.study, killed.number, SITE)
    killed.fed.store().put(key, b"x" + killed.raw[3:9].tobytes(), content_type="application/json")
    with pytest.raises(AssertionError):
        killed.check()
    killed.fed.delete(key)
    with pytest.raises(PharmafedError):
        killed.fed.manifest(killed.study, killed.number, SITE)
    killed.check()
