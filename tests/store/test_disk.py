"""Room on disk: limits on real file systems where mounting is allowed, and a hub's disk that cannot hold a round."""

import os
from types import SimpleNamespace

import pytest
from torch import nn

from tasks.errors import RoundRefused
from tasks.rounds.hub.context import HubContext
from tasks.rounds.hub.open import open_round
from tasks.store import disk, layout
from tasks.store.disk import HOME, SCRATCH, Limits, Room, require_room_for_round, round_bytes
from tasks.store.settings import PROJECT
from tasks.study.channels import CKKS, PLAIN
from tasks.study.file import load_study

GB = 1_000_000_000


@pytest.mark.parametrize("small_disk", ["size=2m,nr_inodes=40"], indirect=True)
def test_a_small_disk_is_measured_in_bytes_and_files(small_disk):
    found = disk.room(small_disk / "not" / "there", HOME)
    assert (found.total, found.free <= found.total) == (2 << 20, True)
    assert 30 <= found.files <= 40
    assert (found.too_little, found.low) == (True, True)
    assert str(found) == f"2 MB of 2 MB and {found.files} files are free under {small_disk / 'not' / 'there'}"
    (small_disk / "file").write_bytes(b"x" * (1 << 20))
    assert disk.room(small_disk, HOME).free == found.free - (1 << 20)


@pytest.mark.parametrize("small_disk", ["size=2m,nr_inodes=40"], indirect=True)
def test_a_disk_without_files_left_is_full_however_many_bytes_are_free(small_disk):
    limits = Limits(needed=1000, low=1000, most=1000)
    refused = None
    for number in range(50):
        try:
            (small_disk / str(number)).touch()
        except OSError as error:
            refused = error.errno
            break
    assert refused in disk.FULL
    found = disk.room(small_disk, limits)
    assert (found.free > 1_000_000, found.files, found.too_little) == (True, 0, True)


@pytest.mark.parametrize(
    ("free", "total", "too_little", "low"),
    [
        (1.9 * GB, 100 * GB, True, True),
        (2.0 * GB, 100 * GB, False, True),
        (3.9 * GB, 10 * GB, False, True),  # the absolute limit: 4 GB
        (4.0 * GB, 10 * GB, False, False),
        (4.9 * GB, 100 * GB, False, True),  # the relative one: 5 % of the disk
        (5.1 * GB, 100 * GB, False, False),
        (19 * GB, 10_000 * GB, False, True),  # which ends at 20 GB
        (21 * GB, 10_000 * GB, False, False),
    ],
)
def test_limits_are_absolute_and_relative(tmp_path, free, total, too_little, low):
    room = Room(tmp_path, int(free), int(total), None, HOME)
    assert (room.too_little, room.low) == (too_little, low)


@pytest.mark.parametrize(
    ("files", "too_little", "low"), [(1_999, True, True), (2_000, False, True), (20_000, False, False)]
)
def test_files_have_limits_of_their_own(tmp_path, files, too_little, low):
    room = Room(tmp_path, 90 * GB, 100 * GB, files, HOME)
    assert (room.too_little, room.low) == (too_little, low)


def test_a_disk_that_was_full_needs_more_room_to_count_as_not(tmp_path, monkeypatch):
    """So that the object store, which is started again then, is not at every megabyte."""
    for free, first, again in ((63_000_000, True, True), (65_000_000, False, True), (540_000_000, False, False)):
        found = Room(tmp_path, free, 100 * GB, None, HOME)
        monkeypatch.setattr(disk, "room", lambda place, limits, found=found: found)
        assert (disk.is_full(tmp_path), disk.is_full(tmp_path, was_full=True)) == (first, again)


def test_home_and_scratch_files_are_both_watched(tmp_path, monkeypatch):
    monkeypatch.setattr(disk.tempfile, "gettempdir", lambda: str(tmp_path / "scratch"))
    home, scratch = disk.rooms(tmp_path / "home")
    assert (home.place, home.limits, scratch.place, scratch.limits) == (
        tmp_path / "home",
        HOME,
        tmp_path / "scratch",
        SCRATCH,
    )


@pytest.mark.parametrize("small_disk", ["size=2m,nr_inodes=40"], indirect=True)
def test_a_warning_has_place_figures_and_remedy(small_disk):
    warnings = [line for line in disk.warnings(small_disk) if str(small_disk) in line]
    assert len(warnings) == 1
    assert "2 MB of 2 MB" in warnings[0]
    assert disk.REMEDY in warnings[0]


@pytest.fixture
def study():
    return load_study(PROJECT / "studies" / "xanomeline_derm56.yaml")


def test_what_a_round_writes_grows_with_sites_model_and_kind_of_sum(study):
    assert (study.channel.name, len(study.sites)) == ("masks", 13)
    small, large = (round_bytes(study, size) for size in (1_000_000, 2_000_000))
    assert large - small == 1_000_000 * (2 + 13 * 6)  # two of the model, and a site's copies: 2 + 2 uploads of 2
    plain = study.model_copy(update={"channel": PLAIN})
    encrypted = study.model_copy(update={"channel": CKKS})
    assert round_bytes(plain, 10**6) < small < round_bytes(encrypted, 10**6)


@pytest.mark.parametrize("small_disk", ["size=2m,nr_inodes=40"], indirect=True)
def test_no_round_is_opened_that_the_disk_cannot_hold(study, small_disk):
    with pytest.raises(RoundRefused) as caught:
        require_room_for_round(study, nn.Linear(3, 1), small_disk)
    message = str(caught.value)
    assert "2 MB of 2 MB" in message
    assert "332 MB and 2000 files are needed" in message
    assert disk.REMEDY in message
    assert "Nothing was paid" in message


def test_a_model_larger_than_the_disk_is_refused_and_a_small_one_is_not(study, tmp_path, monkeypatch):
    room = Room(tmp_path, 1 * GB, 100 * GB, None, HOME)
    monkeypatch.setattr(disk, "room", lambda place, limits: room)
    require_room_for_round(study, nn.Linear(100, 1), tmp_path)
    with pytest.raises(RoundRefused, match=r"1\.0 GB of 100\.0 GB .* 1\.6 GB .* needed"):
        require_room_for_round(study, nn.Linear(2000, 2000), tmp_path)


def test_a_disk_that_counts_no_files_is_not_short_of_them(tmp_path, monkeypatch):
    found = SimpleNamespace(f_favail=0, f_files=0, f_bavail=10, f_frsize=4096, f_blocks=20)
    monkeypatch.setattr(os, "statvfs", lambda place: found)
    room = disk.room(tmp_path, Limits(1, 1, 1))
    assert (room.files, room.too_little, room.low, room.free) == (None, False, False, 40960)


def test_a_hub_without_room_writes_no_plan(study, object_store, study_name, tmp_path, monkeypatch):
    hub = HubContext(study.model_copy(update={"study": study_name}), object_store.store("hub"))
    room = Room(tmp_path, 300_000_000, 100 * GB, None, HOME)
    monkeypatch.setattr(disk, "room", lambda place, limits: room)
    with pytest.raises(RoundRefused, match=r"300 MB of 100\.0 GB are free"):
        open_round(hub, "night-1")
    assert list(hub.store.keys(layout.study_prefix(study_name))) == []
