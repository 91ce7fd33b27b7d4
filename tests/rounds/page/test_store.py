"""Publishing: what lies where, and which round a run closed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.errors import ConfigError, ObjectMissing, StoreError, StoreUnavailable
from tasks.rounds.page import store
from tasks.rounds.page.build import build_report
from tasks.study.sections import Study
from tests.rounds.page.report_samples import Rounds


class MemoryStore:
    """The three operations that reports need of the object store."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, str]] = {}

    def put(self, key: str, body: bytes, *, content_type: str) -> None:
        self.objects[key] = (body, content_type)

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        if key not in self.objects:
            raise ObjectMissing(key)
        return self.objects[key][0]

    def keys(self, prefix: str) -> Iterator[str]:
        return iter(sorted(key for key in self.objects if key.startswith(prefix)))


@pytest.fixture(scope="module")
def reports(study: Study, rounds: Rounds) -> dict[int, dict[str, bytes]]:
    return {n: build_report(study, rounds()[:n], None) for n in (1, 2, 3)}


@pytest.fixture
def remote(reports: dict[int, dict[str, bytes]], tmp_path: Path) -> MemoryStore:
    made = MemoryStore()
    for n, files in reports.items():
        store.publish_report(made, "xanomeline_derm56", n, files, tmp_path)
    return made


def test_publish_writes_store_and_disk(remote: MemoryStore, tmp_path: Path) -> None:
    types = {key.rsplit("/", 1)[1]: kind for key, (_, kind) in remote.objects.items() if "/0003/" in key}
    assert types.items() <= store.CONTENT_TYPES.items()
    assert {"report.html", "auc.png", "log_loss.png", "metrics.json", "run.json"} <= set(types)
    for name in types:
        on_disk = store.read_report("xanomeline_derm56", 3, name, tmp_path)
        assert on_disk == store.fetch_report(remote, "xanomeline_derm56", 3, name) is not None
    assert not list(tmp_path.rglob(".*"))


def test_index_lists_the_rounds_newest_first(remote: MemoryStore, tmp_path: Path) -> None:
    page = (tmp_path / "xanomeline_derm56" / "index.html").read_text()
    places = [page.index(f'href="000{n}/report.html"') for n in (3, 2, 1)]
    assert places == sorted(places)


def test_a_run_finds_its_round(remote: MemoryStore, tmp_path: Path, rounds: Rounds) -> None:
    for record in rounds():
        entry = store.find_run("xanomeline_derm56", record.run_id, tmp_path)
        assert entry is not None
        assert entry.server_round == record.server_round
    assert store.find_run("xanomeline_derm56", "manual__other", tmp_path) is None
    assert store.find_run("xanomeline_derm56", "../0003/run", tmp_path) is None
    assert [e.server_round for e in store.fetch_rounds(remote, "xanomeline_derm56")] == [1, 2, 3]
    assert store.list_studies(tmp_path) == ["xanomeline_derm56"]


class SpoiltStore(MemoryStore):
    """One whose objects of a round cannot be read."""

    def __init__(self, objects: dict[str, tuple[bytes, str]], error: type[StoreError]) -> None:
        self.objects, self.error = objects, error

    def get(self, key: str, *, max_bytes: int | None = None) -> bytes:
        if "/0002/" in key:
            raise self.error(f"{key} has 70000 bytes, more than {max_bytes}")
        return super().get(key, max_bytes=max_bytes)


def test_an_entry_that_cannot_be_read_hides_no_other(remote: MemoryStore) -> None:
    for error in (StoreError, ObjectMissing):
        found = store.fetch_rounds(SpoiltStore(remote.objects, error), "xanomeline_derm56")
        assert [entry.server_round for entry in found] == [1, 3]
    with pytest.raises(StoreUnavailable):
        store.fetch_rounds(SpoiltStore(remote.objects, StoreUnavailable), "xanomeline_derm56")


def test_publishing_again_replaces(remote: MemoryStore, study: Study, rounds: Rounds, tmp_path: Path) -> None:
    again = build_report(study, rounds(status="failed", message="resumed"), None)
    store.publish_report(remote, study.study, 3, again, tmp_path)
    assert b"resumed" in (store.read_report(study.study, 3, "report.html", tmp_path) or b"")
    assert len(store.list_rounds(study.study, tmp_path)) == 3


@pytest.mark.parametrize("study_name", ["..", "a/b", "", "A", "x" * 65, ".", "a\x00"])
def test_no_path_leaves_the_folder(study_name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no report can lie under"):
        store.read_report(study_name, 1, "report.html", tmp_path)
    with pytest.raises(ValueError, match="no report can lie under"):
        store.fetch_report(MemoryStore(), study_name, 1, "report.html")
    assert store.list_rounds(study_name, tmp_path) == []
    assert store.find_run(study_name, "run", tmp_path) is None


@pytest.mark.parametrize("name", ["../run.json", "secrets.json", "report.html/..", ""])
def test_only_known_files_are_read(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a report has no file"):
        store.read_report("study", 1, name, tmp_path)


def test_only_known_files_are_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a report has no file"):
        store.publish_report(MemoryStore(), "study", 1, {"evil.sh": b""}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_entry_of_another_version_is_left_out(remote: MemoryStore, tmp_path: Path) -> None:
    second = tmp_path / "xanomeline_derm56" / "0002" / "run.json"
    entry = json.loads(second.read_text())
    for content in ('{"version": 7}', json.dumps(entry | {"closed_at": "soon"}), "x" * (1 << 17), "[" * 100_000):
        second.write_text(content)
        assert [entry.server_round for entry in store.list_rounds("xanomeline_derm56", tmp_path)] == [1, 3]
    second.write_text(json.dumps(entry))
    assert len(store.list_rounds("xanomeline_derm56", tmp_path)) == 3


def test_a_planted_link_is_neither_served_nor_written_through(
    remote: MemoryStore, reports: dict[int, dict[str, bytes]], tmp_path: Path
) -> None:
    """Two folders of reports side by side: the other one's must not come out under our names, nor be overwritten."""
    other = tmp_path / "other"
    store.publish_report(remote, "xanomeline_derm56", 3, reports[3], other)
    before = (other / "xanomeline_derm56/0003/report.html").stat().st_mtime_ns
    root = tmp_path / "planted"
    (root / "xanomeline_derm56/audits/2026").mkdir(parents=True)
    (root / "xanomeline_derm56/0003").symlink_to(other / "xanomeline_derm56/0003")
    (root / "xanomeline_derm56/audits/2026/audit.html").symlink_to(other / "xanomeline_derm56/0003/report.html")
    assert (root / "xanomeline_derm56/0003/report.html").is_file(), "the control: the link leads there"
    assert store.read_report("xanomeline_derm56", 3, "report.html", root) is None
    assert store.list_rounds("xanomeline_derm56", root) == []
    assert store.read_audit("xanomeline_derm56", root) is None
    with pytest.raises(ConfigError, match="a link or file stands where a folder belongs"):
        store.publish_report(remote, "xanomeline_derm56", 3, reports[3], root)
    assert (other / "xanomeline_derm56/0003/report.html").stat().st_mtime_ns == before
    (root / "xanomeline_derm56/audits/2025").mkdir()
    (root / "xanomeline_derm56/audits/2025/audit.html").write_bytes(b"the newest that is ours")
    assert store.read_audit("xanomeline_derm56", root) == b"the newest that is ours"
