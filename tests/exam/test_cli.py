"""`pharmafed exam` on the practice exam, with answers made by hand and no engine."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tasks import cli
from tasks.exam import evaluate
from tasks.exam.asking import ask as asking
from tasks.exam.bank import practice
from tasks.exam.bank.items import exam_folder, load_exam
from tasks.exam.bank.records import Exam, ExamItem
from tasks.exam.comparing.archive import load_scored
from tasks.exam.comparing.compare import compare
from tasks.exam.page.store import exam_index_page, list_entries
from tasks.exam.runs.run_files import write_run
from tasks.exam.scoring.statistics import percent_of
from tests.exam.evaluated_runs import FakeModel, draw_nothing
from tests.exam.paper_samples import response, run
from tests.exam.year_samples import write_year


@pytest.fixture(scope="module")
def data(practice_data: Path) -> Path:
    return practice_data


@pytest.fixture(scope="module")
def exam(data: Path) -> Exam:
    return load_exam(exam_folder(data, "practice"))


@pytest.fixture(autouse=True)
def project(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands see this data folder, and a deployment's directory of their own."""
    monkeypatch.setattr(evaluate, "data_dir", lambda: data)
    monkeypatch.setenv("PHARMAFED_HOME", str(tmp_path / "home"))


def call(*arguments: object) -> tuple[int, str]:
    """Exit code and all output of `pharmafed exam ...`, line ends and the panel's borders made spaces."""
    result = CliRunner().invoke(cli.app, ["exam", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.replace("│", " ").split())


def saved(of: Exam, folder: Path, right: Collection[int], *, minute: int | None = None, **settings: object) -> Path:
    """A saved run in which these items are right."""
    given = [
        response(item, item.answers[0] if item.number in right else _not_accepted(item))
        for item in of.items
        if not item.no_solution
    ]
    made = run(of, given, folder.name, **settings)
    if minute is not None:
        at = datetime(2026, 1, 1, 0, minute, tzinfo=UTC)
        made = made.model_copy(update={"started_at": at, "finished_at": at})
    write_run(folder, made, given)
    return folder


def _not_accepted(item: ExamItem) -> tuple[str, ...]:
    options = [str(number + 1) for number in range(item.num_choices)]
    return next(chosen for chosen in combinations(options, item.n_select) if chosen not in item.answers)


def test_prepare_builds_our_own_exam(exam: Exam, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Path] = []

    def build(folder: Path) -> Exam:
        """The building itself has tests of its own, and takes seconds."""
        built.append(folder)
        return exam

    monkeypatch.setattr(practice, "build_practice", build)
    code, output = call("prepare")
    assert code == 0
    assert "exam practice: 66 items" in output
    assert built == [data]


def test_import_writes_the_exam_and_reports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "data_dir", lambda: tmp_path / "data")
    code, output = call("import", write_year(tmp_path / "year", "100"), "--exam", "100")
    assert code == 0
    assert "exam 100: 345 items" in output
    assert len(load_exam(exam_folder(tmp_path / "data", "100")).items) == 345


def test_import_of_an_empty_folder_is_an_error_and_leaves_nothing(data: Path, tmp_path: Path) -> None:
    code, output = call("import", tmp_path, "--exam", "107")
    assert code == cli.USAGE_ERROR
    assert "DataError" in output
    assert not exam_folder(data, "107").exists()


def test_ask_scores_what_the_model_answers(exam: Exam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_nothing(monkeypatch)
    model = FakeModel({item.number for item in exam.items})
    monkeypatch.setattr(asking, "ask", model)
    out = tmp_path / "out"
    how = ("--language", "en", "--no-images", "--temperature", 0.5, "--max-tokens", 77)
    code, output = call("ask", "practice", "--model", "openai/x", *how, "--out", out)
    assert code == 0
    assert f"points {2 * sum(not item.diagram for item in exam.items)} of 132" in output
    asked = model.asked[0]
    assert (asked.prompt, asked.images, asked.epochs, asked.limit) == ("en/v1", False, 1, None)
    assert (asked.temperature, asked.max_tokens) == (0.5, 77)
    assert (out / "scores.json").exists()
    assert (out / "report.html").exists()
    assert f"report {out / 'report.html'} history none" in output
    assert f"run {out.name} is the first of its kind" in output


def test_ask_compares_with_the_last_run_and_tells_drift(exam: Exam, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_nothing(monkeypatch)
    right = {item.number for item in exam.items}
    monkeypatch.setattr(asking, "ask", FakeModel(right, right, right - set(range(1, 21))))
    ids = iter(("r1", "r2", "r3"))
    monkeypatch.setattr(evaluate, "new_run_id", lambda: next(ids))
    call("ask", "practice", "--model", "openai/x")
    code, output = call("ask", "practice", "--model", "openai/x")
    assert (code, "no drift against run r1, the run before" in output) == (0, True)
    code, output = call("ask", "practice", "--model", "openai/x")
    assert code == 1
    assert "openai/x on exam practice in ja is worse than in run r2, the run before" in output
    page = exam_index_page(list_entries(), heading="Exams", base="").decode()
    assert page.count("nothing to compare with") == 1
    assert (page.count(">no drift<"), page.count(">drift<")) == (1, 1)


def test_a_report_written_again_is_compared_with_the_run_before(
    exam: Exam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_nothing(monkeypatch)
    place = tmp_path / "home" / "exams" / "practice" / "openai--gpt-test" / "ja"
    for name, minute in (("r1", 1), ("r2", 2)):
        saved(exam, place / name, range(1, 34), minute=minute)
    assert call("report", place / "r2")[0] == 0
    assert (place / "r2" / "comparison.json").exists()
    assert not (place / "r1" / "comparison.json").exists()
    page = exam_index_page(list_entries(), heading="Exams", base="").decode()
    assert (page.count(">no drift<"), page.count("nothing to compare with")) == (1, 0)


def test_ask_finds_a_folder_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_nothing(monkeypatch)
    monkeypatch.setattr(asking, "ask", FakeModel({1, 2}))
    assert call("ask", "practice", "--model", "openai/x", "--limit", "5")[0] == 0
    place = tmp_path / "home" / "exams" / "practice" / "openai--x"
    assert len(list((place / "ja").glob("*/scores.json"))) == len(list((place / "ja").glob("*/report.html"))) == 1
    assert (place / "history.html").exists()


def test_a_saved_run_is_scored_again(exam: Exam, tmp_path: Path) -> None:
    solved = [item.number for item in exam.items if not item.no_solution]
    folder = saved(exam, tmp_path / "a", solved[:30])
    code, output = call("score", folder)
    correct = 30 + len(exam.items) - len(solved)
    assert code == 0
    assert f"points {2 * correct} of 132" in output
    assert "run a: failed" in output
    assert (folder / "scores.json").exists()


def test_a_saved_run_is_reported_offline(exam: Exam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_nothing(monkeypatch)
    alone = saved(exam, tmp_path / "a", range(1, 30))
    code, output = call("report", alone)
    assert code == 0
    assert f"report {alone / 'report.html'} history none" in output
    page = (alone / "report.html").read_text()
    assert page.count('<img src="data:image/png;base64,') == sum(len(item.images) for item in exam.items) > 0
    archived = tmp_path / "home" / "exams" / "practice" / "openai--gpt-test" / "ja" / "a"
    code, output = call("report", saved(exam, archived, range(1, 30)))
    assert code == 0
    assert f"history {archived.parents[1] / 'history.html'}" in output


def test_scoring_and_comparing_leave_no_report(exam: Exam, tmp_path: Path) -> None:
    a, b = (saved(exam, tmp_path / name, range(1, 30)) for name in "ab")
    assert [call("score", a)[0], call("compare", a, b)[0]] == [0, 0]
    assert sorted(path.name for path in a.iterdir()) == ["responses.jsonl", "run.json", "scores.json"]


def test_scores_are_shown_by_subject_and_section_with_both_accuracies(exam: Exam, tmp_path: Path) -> None:
    """Of the subject's essential items three are right of four entered and, with its drawing left blank, of five."""
    solved = [item for item in exam.items if not item.no_solution]
    right = {item.number for item in solved} - {next(one.number for one in solved if not one.diagram)}
    entered = [one for one in solved if not one.diagram]
    given = [response(one, one.answers[0] if one.number in right else _not_accepted(one)) for one in entered]
    given[-1] = given[-1].model_copy(update={"raw": "Answer: 1, 2, 3 or 4"})
    write_run(tmp_path / "a", run(exam, given, "a", images=False), given)
    code, output = call("score", tmp_path / "a")
    found = load_scored(exam, tmp_path / "a").scores
    assert code == 0
    for row in found.table:
        cells = [
            f"{one.correct}/{one.entered} {percent_of(one.correct, one.entered)} {percent_of(one.correct, one.items)}"
            for one in (row.essential, row.general, row.total)
        ]
        assert f"{row.subject} {' '.join(cells)}" in output
    assert any(row.total.entered < row.total.items for row in found.table)
    assert f"not readable 1: items {entered[-1].number} cut off 0" in output


def test_a_run_without_some_items_is_a_range_without_a_verdict(exam: Exam, tmp_path: Path) -> None:
    given = [response(one, one.answers[0]) for one in exam.items if not one.no_solution][2:]
    write_run(tmp_path / "a", run(exam, given, "a"), given)
    code, output = call("score", tmp_path / "a")
    assert code == 0
    assert "run a: not evaluable" in output
    assert "points 128 to 132 of 132" in output
    assert "all 64/66 = 97.0% to 66/66 = 100.0%" in output
    assert "not answered 2: items" in output


def test_a_comparison_has_both_chi_squares_and_letters_where_the_item_has(exam: Exam, tmp_path: Path) -> None:
    solved = [item for item in exam.items if not item.no_solution]
    lettered = next(item for item in solved if item.labels[0] == "A" and item.n_select == 1)
    right = {item.number for item in solved}
    a, b = saved(exam, tmp_path / "a", right), saved(exam, tmp_path / "b", right - {lettered.number})
    _, output = call("compare", a, b)
    before, after = (lettered.labels[int(one[0]) - 1] for one in (lettered.answers[0], _not_accepted(lettered)))
    assert f"{lettered.id} {before} -> {after}" in output
    found = compare(exam, load_scored(exam, a), load_scored(exam, b)).unpaired
    assert found.yates
    assert found.plain
    assert f"with Yates, as the paper: {found.yates[0]:.4f}, p = {found.yates[1]:.4g}" in output
    assert f"without Yates: {found.plain[0]:.4f}, p = {found.plain[1]:.4g}" in output


def test_a_history_that_cannot_be_written_is_one_sentence(exam: Exam, tmp_path: Path, monkeypatch) -> None:
    draw_nothing(monkeypatch)
    place = tmp_path / "home" / "exams" / "practice" / "openai--gpt-test"
    folder = saved(exam, place / "ja" / "a", range(1, 30))
    (place / "lock").mkdir()
    code, output = call("report", folder)
    assert code == cli.USAGE_ERROR
    assert "could not be written (Is a directory): mend its rights and try again" in output


@pytest.mark.parametrize("command", [("score",), ("report",), ("compare", "no-run")])
def test_a_file_in_place_of_a_run_is_one_sentence(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "file").write_text("mine")
    code, output = call(*command, tmp_path / "file")
    assert code == cli.USAGE_ERROR
    assert "is a file): name a run's folder" in output


def test_metrics_that_cannot_be_written_are_one_sentence(exam: Exam, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    code, output = call("score", saved(exam, tmp_path / "a", range(1, 30)), "--out", tmp_path / "file" / "m.json")
    assert code == cli.USAGE_ERROR
    assert "cannot be written" in output


def test_an_edited_run_is_refused(exam: Exam, tmp_path: Path) -> None:
    path = saved(exam, tmp_path / "a", range(1, 30)) / "responses.jsonl"
    path.write_bytes(path.read_bytes().replace(b"Answer", b"answer", 1))
    code, output = call("score", tmp_path / "a")
    assert code == cli.USAGE_ERROR
    assert "it was changed after the run" in output
    assert not (tmp_path / "a" / "scores.json").exists()


def test_drift_is_exit_code_1_with_every_lost_item(exam: Exam, tmp_path: Path) -> None:
    solved = [item for item in exam.items if not item.no_solution]
    right = {item.number for item in solved}
    a = saved(exam, tmp_path / "a", right)
    b = saved(exam, tmp_path / "b", right - {item.number for item in solved[:10]})
    code, output = call("compare", a, b)
    assert code == 1
    assert output.startswith("drift: b is worse")
    assert "lost 10, gained 0 of 66 items; exact McNemar p = 0.001953" in output
    assert sum(f" {item.id} " in output for item in solved) == 10
    code, output = call("compare", b, a)
    assert (code, output.startswith("drift: b is better")) == (1, True)


def test_a_small_change_is_exit_code_0(exam: Exam, tmp_path: Path) -> None:
    right = {item.number for item in exam.items if not item.no_solution}
    a = saved(exam, tmp_path / "a", right)
    b = saved(exam, tmp_path / "b", right - set(sorted(right)[:5]))
    code, output = call("compare", a, b)
    assert code == 0
    assert output.startswith("no drift")


def test_two_models_differ_but_do_not_drift(exam: Exam, tmp_path: Path) -> None:
    right = {item.number for item in exam.items if not item.no_solution}
    a = saved(exam, tmp_path / "a", right)
    b = saved(exam, tmp_path / "b", (), model="openai/other")
    code, output = call("compare", a, b)
    assert code == 0
    assert output.startswith("difference: b is worse")
    assert "differs: model: openai/gpt-test, then openai/other" in output


def test_a_run_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    code, output = call("score", tmp_path / "nothing")
    assert code == cli.USAGE_ERROR
    assert "there is no finished run" in output


def test_scoring_for_a_pipeline_leaves_the_folder_alone(exam: Exam, tmp_path: Path) -> None:
    folder = saved(exam, tmp_path / "r1", range(1, 34))
    before = sorted(path.name for path in folder.iterdir())
    code, _ = call("score", folder, "--out", tmp_path / "out" / "exam.json")
    assert code == 0
    assert sorted(path.name for path in folder.iterdir()) == before
    figures = json.loads((tmp_path / "out" / "exam.json").read_bytes())
    right = sum(item.number < 34 or item.no_solution for item in exam.items)
    assert (figures["items"], figures["correct"]) == (len(exam.items), right)
    assert figures["points"] == 2 * right
