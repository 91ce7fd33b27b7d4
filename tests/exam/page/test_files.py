"""Reports on disk: written whole, rebuilt offline to the same bytes, and put into the store with the run."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tasks.errors import DataError
from tasks.exam import evaluate
from tasks.exam.asking import ask as asking
from tasks.exam.bank.items import exam_folder, save_exam
from tasks.exam.comparing.archive import model_folder
from tasks.exam.evaluate import Evaluated
from tasks.exam.page.files import write_history, write_report
from tasks.exam.page.publish import publish
from tasks.exam.page.store import HISTORY_TYPES, REPORT_TYPES, find_entries, list_entries, read_entry
from tasks.exam.runs import run_files
from tasks.exam.runs.run_files import load_run
from tests.exam.evaluated_runs import ALL, EXAM, MODEL, FakeModel, draw_nothing, save_small_exam

PLACE = "exams/paper/openai--gpt-test"
WITHOUT_PLOTS = ["entry.json", "report.html", "responses.jsonl", "run.json", "scores.json"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A deployment's directory, and a project with the small exam. Plots are not drawn."""
    save_small_exam(tmp_path)
    draw_nothing(monkeypatch)
    monkeypatch.setattr(evaluate, "data_dir", lambda: tmp_path / "data")
    monkeypatch.setattr(asking, "ask", FakeModel(ALL, ALL - {1}, ALL))
    return tmp_path / "home"


def run_once(home: Path, run_id: str) -> Evaluated:
    """One evaluation of the fake model, as part of a run of Airflow."""
    return evaluate.evaluate("paper", MODEL, "ja", home=home, run_id=run_id, dag_run=f"manual__{run_id}")


def files_of(folder: Path) -> dict[str, bytes]:
    """Content by name, without folders."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


class Store:
    """Keeps what is put."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put(self, key: str, body: bytes, *, content_type: str) -> None:
        """As ObjectStore.put."""
        self.objects[key] = body


def test_an_evaluation_leaves_its_report_and_its_models_history(home: Path) -> None:
    first, second = run_once(home, "r1"), run_once(home, "r2")
    assert sorted(files_of(first.folder)) == WITHOUT_PLOTS
    page = (second.folder / "report.html").read_text()
    assert "Against run <code>r1</code>" in page
    history = (home / PLACE / "history.html").read_text()
    assert [f'href="ja/r{n}/report.html"' in history for n in (1, 2)] == [True, True]
    entry = read_entry(second.folder)
    assert entry is not None
    assert (entry.dag_run, entry.correct, entry.verdict) == ("manual__r2", 39, "no drift")
    assert home / "exams" / entry.report == second.folder / "report.html"
    assert home / "exams" / entry.history == home / PLACE / "history.html"
    assert [one.run for one in list_entries(home)] == ["r2", "r1"]
    assert [one.run for one in find_entries(list_entries(home), "manual__r1")] == ["r1"]


def test_a_report_is_rebuilt_offline_to_the_same_bytes(home: Path, tmp_path: Path) -> None:
    folder = run_once(home, "r1").folder
    before = {**files_of(folder), **files_of(home / PLACE)}
    for name in ("report.html", "entry.json"):
        (folder / name).write_bytes(before[name][:100] if name == "report.html" else before[name])
    assert write_report(EXAM, tmp_path, folder) == folder / "report.html"
    assert write_history(EXAM, folder) == home / PLACE / "history.html"
    assert {**files_of(folder), **files_of(home / PLACE)} == before


def test_a_run_by_itself_has_a_report_and_no_history(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copied"
    run_once(home, "r1").folder.rename(folder)
    assert model_folder(folder, load_run(folder)[0]) is None
    assert write_report(EXAM, tmp_path, folder).exists()
    assert write_history(EXAM, folder) is None
    assert not (tmp_path / "history.html").exists()


def test_a_full_disk_leaves_no_half_report(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = run_files.write_private

    def full(path: Path, content: bytes) -> None:
        if path.name == "entry.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(run_files, "write_private", full)
        with pytest.raises(DataError, match=r"r1 could not be written \(No space left on device\): free space"):
            run_once(home, "r1")
    folder = home / PLACE / "ja" / "r1"
    assert sorted(files_of(folder)) == ["responses.jsonl", "run.json", "scores.json"]
    assert list_entries(home) == []


def test_runs_of_another_edition_of_the_exam_are_left_out_of_the_history(home: Path) -> None:
    run_once(home, "r1")
    edited = EXAM.model_copy(update={"title": "corrected"})
    save_exam(edited, exam_folder(home.parent / "data", "paper"))
    assert run_once(home, "r2").previous is None
    history = (home / PLACE / "history.html").read_text()
    assert "1 run; 1 of another edition of the exam left out" in history
    assert "ja/r1/" not in history


def test_a_runs_files_go_to_the_store_with_its_plots(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(evaluate, "data_dir", lambda: home.parent / "data")
    monkeypatch.setattr(asking, "ask", FakeModel(ALL))
    store = Store()
    keys = publish(run_once(home, "r1").folder, store)  # type: ignore[arg-type]
    names = ["run.json", "responses.jsonl", "scores.json", *REPORT_TYPES]
    assert keys == [f"{PLACE}/ja/r1/{name}" for name in names] + [f"{PLACE}/{name}" for name in HISTORY_TYPES]
    assert all(store.objects[key] == (home / key).read_bytes() for key in keys)
    assert all(body.startswith(b"\x89PNG") for key, body in store.objects.items() if key.endswith(".png"))
