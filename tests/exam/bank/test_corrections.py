"""Years as they were published, with what is wrong in them, and the file that mends it. All items are made up."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tasks import cli
from tasks.errors import DataError
from tasks.exam import evaluate
from tasks.exam.bank.corrections import read_corrections
from tasks.exam.bank.importer import import_exam
from tasks.exam.bank.items import exam_folder, load_exam, save_exam
from tasks.exam.evaluate import settings_for
from tasks.exam.runs.run_files import write_run
from tests.exam.evaluated_runs import draw_nothing
from tests.exam.paper_samples import response
from tests.exam.paper_samples import run as made_run
from tests.exam.year_samples import Edit, Items, write_year


def write(path: Path, *entries: dict[str, Any]) -> Path:
    """A file of corrections; JSON is YAML."""
    path.write_text(json.dumps([{"reason": "the published paper", **entry} for entry in entries], ensure_ascii=False))
    return path


def call(*arguments: object) -> str:
    """What `pharmafed exam ...` says."""
    result = CliRunner().invoke(cli.app, ["exam", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def faults_105(problems: Items, metadata: Items) -> None:
    """Three items whose key, note or stem contradict each other, and one that lost a character."""
    problems[20] |= {"problem_text": "作例20。1つ選べ。", "answer": ["1", "3"]}
    problems[110] |= {"problem_text": "作例110。2つ選べ。", "answer": ["4"]}
    problems[210] |= {"problem_text": "作例210。1つ選べ。", "answer": ["6"]}
    problems[211]["problem_text"] = "作例211の\ufffdはどれか。1つ選べ。"


def test_all_faults_of_a_year_are_told_at_once_and_mended_by_one_file(tmp_path: Path) -> None:
    folder = write_year(tmp_path / "105", "105", edit=faults_105, repeat_metadata=4)
    with pytest.raises(DataError) as refused:
        import_exam(folder, "105")
    message = str(refused.value)
    assert message.startswith("4 faults, and nothing has been imported:\n")
    for place in ("line 20 (105020)", "line 110 (105110)", "line 210 (105210)", "line 211 (105211)"):
        assert message.count(place) == 1
    file = write(
        tmp_path / "c.yaml",
        {"item": 105020, "answer": [3]},
        {"item": "105110", "problem_text": "作例110。1つ選べ。"},
        {"item": "105210", "note": "1又は2を正解とする。", "answer": ["1", "2"]},
        {"item": "105211", "problem_text": "作例211の記述はどれか。1つ選べ。"},
    )
    exam, report = import_exam(folder, "105", corrections=file)
    items = {item.number: item for item in exam.items}
    assert items[20].answers == (("3",),)
    assert items[110].n_select == 1
    assert items[210].answers == (("1",), ("2",))
    assert "\ufffd" not in items[211].text["ja"].stem
    assert report.corrections == {
        "105020": ("answer",), "105110": ("problem_text",), "105210": ("answer", "note"), "105211": ("problem_text",)
    }  # fmt: skip
    assert "corrections: 4 - 105020 (answer), 105110 (problem_text)" in report.table()


def practice_pair(problems: Items, metadata: Items) -> None:
    """Biology 19 and practice 96: both items of a pair are filed under practice."""
    for number in (216, 217):
        metadata[number]["category"] = "Practice"


def pharmacology_pairs(problems: Items, metadata: Items) -> None:
    """Pharmacology 35 and pharmaceutics 15: ten pairs of pharmaceutics are filed under pharmacology."""
    for number in range(266, 286):
        if metadata[number]["category"] == "Pharmacy":
            metadata[number]["category"] = "Pharmacology"


def essential_swap(problems: Items, metadata: Items) -> None:
    metadata[26]["category"] = "Hygiene"


@pytest.mark.parametrize(
    ("exam", "edit", "says", "mended"),
    [
        (
            "106",
            practice_pair,
            "the general section has practice 86 instead of 85, biology 14 instead of 15; it may be 106216, 106217. ",
            {"106217": "Biology"},
        ),
        (
            "108",
            pharmacology_pairs,
            "has pharmacology 35 instead of 25, pharmaceutics 15 instead of 25; it may be 108267, 108269, 108271, "
            "108273, 108275, 108277, 108279, 108281, 108283, 108285. ",
            {f"108{number}": "Pharmacy" for number in range(267, 286, 2)},
        ),
        (
            "100",
            essential_swap,
            "the essential section has hygiene 11 instead of 10, pharmacology 14 instead of 15; it may be 100026. ",
            {"100026": "Pharmacology"},
        ),
    ],
)
def test_a_table_of_another_shape_is_questioned_with_its_items(
    tmp_path: Path, exam: str, edit: Edit, says: str, mended: dict[str, str]
) -> None:
    folder = write_year(tmp_path / exam, exam, edit=edit)
    with pytest.raises(DataError, match=re.escape(says)):
        import_exam(folder, exam)
    file = write(tmp_path / "c.yaml", *({"item": item, "category": name} for item, name in mended.items()))
    _, report = import_exam(folder, exam, corrections=file)
    assert tuple(report.subjects["general"].values()) == (15, 15, 15, 30, 25, 25, 25, 20, 85)
    assert tuple(report.subjects["essential"].values()) == (5, 5, 5, 10, 15, 15, 15, 10, 10)


def test_a_table_that_a_person_confirms_is_taken(tmp_path: Path) -> None:
    folder = write_year(tmp_path / "106", "106", edit=practice_pair)
    one = write(tmp_path / "one.yaml", {"item": "106216", "category": "Practice"})
    with pytest.raises(DataError, match="it may be 106216, 106217"):
        import_exam(folder, "106", corrections=one)
    both = write(tmp_path / "c.yaml", *({"item": f"106{n}", "category": "Practice"} for n in (216, 217)))
    _, report = import_exam(folder, "106", corrections=both)
    assert report.subjects["general"]["practice"] == 86


@pytest.mark.parametrize(
    "answer",
    [
        ["2", "4"],
        [],
        ["1", "2", "3", "4", "5"],
        ["解答なし"],
        ["9"],
        ["2", "4（作例の図に不備があり", "解なしとなった）"],  # one remark, cut at its comma
    ],
)
def test_a_note_that_takes_an_item_out_decides(tmp_path: Path, answer: list[str]) -> None:
    def edit(problems: Items, metadata: Items) -> None:
        problems[330] |= {"answer": answer, "problem_text": "作例330。2つ選べ。"}
        metadata[330]["note"] = "設問中の図が不適切で正解が得られないため、解なし。"

    exam, report = import_exam(write_year(tmp_path, "109", edit=edit), "109")
    assert (report.no_solution, report.by_note, report.unread_notes) == (("109330",), ("109330",), ())
    assert exam.items[329].answers == ()


@pytest.mark.parametrize(
    ("note", "says"),
    [
        ("解なしではなく、2を正解とする。", "the note speaks of 解なし and ends otherwise"),
        ("選択肢の解なしは誤植である。", "the note speaks of 解なし and ends otherwise"),
    ],
)
def test_a_note_that_speaks_of_no_solution_and_means_another_is_asked_about(
    tmp_path: Path, note: str, says: str
) -> None:
    def edit(problems: Items, metadata: Items) -> None:
        metadata[331]["note"] = note

    with pytest.raises(DataError, match=says):
        import_exam(write_year(tmp_path, edit=edit), "100")


@pytest.mark.parametrize(
    "note", ["正答なし。", "正解がないため、解なしとし、全員に加点する。", "解無しとする", "解なし（削除）"]
)
def test_other_words_for_no_solution(tmp_path: Path, note: str) -> None:
    def edit(problems: Items, metadata: Items) -> None:
        metadata[331]["note"] = note

    exam, _ = import_exam(write_year(tmp_path, edit=edit), "100")
    assert exam.items[330].no_solution


def test_an_item_under_a_wrong_id_and_one_that_is_missing(tmp_path: Path) -> None:
    def edit(problems: Items, metadata: Items) -> None:
        problems[12]["problem_id"] = "100011"
        problems[13]["problem_id"] = "1000013"
        del problems[14]

    folder = write_year(tmp_path / "100", edit=edit)
    with pytest.raises(DataError) as refused:
        import_exam(folder, "100")
    assert "line 12 (100011): it contradicts line 11" in str(refused.value)
    assert "line 13 (1000013): `problem_id` is not as" in str(refused.value)
    assert "lacks 3 of 345 ids: 100012, 100013, 100014" in str(refused.value)
    whole = {"problem_text": "作例14。1つ選べ。", "choices": ["ア", "イ"], "text_only": True, "answer": [2]}
    file = write(
        tmp_path / "c.yaml",
        {"item": 100012, "line": 12},
        {"item": 100013, "line": 13},
        {"item": 100014, **whole},
    )
    exam, _ = import_exam(folder, "100", corrections=file)
    assert [item.text["ja"].stem[:4] for item in exam.items[11:14]] == ["作例12", "作例13", "作例14"]
    assert exam.items[13].answers == (("2",),)


def test_a_line_that_cannot_be_read_is_given_whole(tmp_path: Path) -> None:
    data = write_year(tmp_path / "100") / "data.jsonl"
    lines = data.read_text(encoding="utf-8").splitlines()
    lines[13] = lines[13][:40]
    data.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError, match=r"(?s)line 14: broken JSON.*lacks 1 of 345 ids: 100014"):
        import_exam(data.parent, "100")
    whole = {"problem_text": "作例14。1つ選べ。", "choices": ["ア", "イ"], "text_only": True, "answer": [2]}
    exam, _ = import_exam(
        data.parent, "100", corrections=write(tmp_path / "c.yaml", {"item": 100014, "line": 14, **whole})
    )
    assert exam.items[13].answers == (("2",),)


BAD: dict[str, tuple[str, str]] = {
    "no list": ("item: 1", "is not a list of corrections"),
    "nothing": ("", "is not a list of corrections"),
    "no mapping": ("- 100001", "entry 1: not a mapping with `item` and `reason`"),
    "no reason": ("- {item: 100001, answer: [1]}", "entry 1: `reason` is not as a correction has it"),
    "a field misspelt": ("- {item: 100001, reason: r, anwser: [1]}", "entry 1: `anwser` is not as"),
    "a flag in words": ("- {item: 100001, reason: r, text_only: perhaps}", "entry 1: `text_only` is not as"),
    "nothing to change": ("- {item: 100001, reason: r}", "item 100001 is given no field"),
    "another exam": ("- {item: 101001, reason: r, answer: [1]}", "item 101001 is not of exam 100"),
    "an item twice": ("- &a {item: 100001, reason: r, answer: [1]}\n- *a", "entry 2: item 100001 is named twice"),
    "no YAML": ("- {item: 100001", "not readable as YAML"),
    "a number of hundreds of digits": (f"- {{item: {'9' * 60}, reason: r, answer: [1]}}", "`item` is not as"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_of_corrections_is_refused(tmp_path: Path, name: str) -> None:
    content, message = BAD[name]
    path = tmp_path / "c.yaml"
    path.write_text(content)
    with pytest.raises(DataError, match=re.escape(message)):
        read_corrections(path, "100")


def test_all_faults_of_a_file_of_corrections_are_told(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("\n".join(content for content, _ in (BAD["no mapping"], BAD["no reason"], BAD["another exam"])))
    with pytest.raises(DataError, match=r"(?s)3 faults, .*entry 1: .*entry 2: .*entry 3: "):
        read_corrections(path, "100")
    with pytest.raises(DataError, match="is missing: name the file of corrections"):
        read_corrections(tmp_path / "nowhere", "100")


def test_a_correction_of_no_item_or_to_nonsense_is_refused(tmp_path: Path) -> None:
    folder = write_year(tmp_path / "100")
    file = write(tmp_path / "c.yaml", {"item": "100346", "answer": ["1"]}, {"item": "100004", "answer": ["6"]})
    with pytest.raises(DataError) as refused:
        import_exam(folder, "100", corrections=file)
    assert "item 100346 is not in the files" in str(refused.value)
    assert "line 4 (100004): an answer outside its 5 options" in str(refused.value)


def test_corrections_are_kept_with_the_exam_and_each_run_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "data_dir", lambda: tmp_path / "data")
    draw_nothing(monkeypatch)
    folder = write_year(tmp_path / "109", "109")
    file = write(tmp_path / "c.yaml", {"item": "109004", "answer": ["3"], "reason": "key of the ministry, 2024"})
    output = call("import", folder, "--exam", "109", "--corrections", file)
    assert "corrections: 1 - 109004 (answer)" in output
    exam = load_exam(exam_folder(tmp_path / "data", "109"))
    asked = settings_for(exam, "openai/gpt-4o", "ja")
    assert [(one.item, one.reason) for one in asked.corrections] == [("109004", "key of the ministry, 2024")]
    given = [response(item, item.answers[0]) for item in exam.items if not item.no_solution]
    write_run(tmp_path / "runs" / "r1", made_run(exam, given, "r1").model_copy(update={"settings": asked}), given)
    assert "key of the ministry, 2024" in (tmp_path / "runs" / "r1" / "run.json").read_text()
    call("report", tmp_path / "runs" / "r1")
    page = (tmp_path / "runs" / "r1" / "report.html").read_text()
    assert "109004 answer: key of the ministry, 2024" in page


def test_an_exam_without_corrections_has_the_digest_that_it_had(tmp_path: Path) -> None:
    exam, _ = import_exam(write_year(tmp_path / "100"), "100")
    save_exam(exam, tmp_path / "saved")
    text = (tmp_path / "saved" / "exam.json").read_text()
    assert "corrections" not in text
    assert "pictured" not in text.replace("case_pictured", "")
