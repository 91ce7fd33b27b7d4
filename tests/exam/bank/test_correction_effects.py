"""A correction changes its item or is refused, and is read as it is written. All items are made up."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import DataError
from tasks.exam.bank.corrections import read_corrections
from tasks.exam.bank.import_pictures import read_diagrams
from tasks.exam.bank.importer import import_exam
from tests.exam.year_samples import Items, write_year


def write(path: Path, *entries: dict[str, Any]) -> Path:
    """A file of corrections; JSON is YAML."""
    path.write_text(json.dumps([{"reason": "the published paper", **entry} for entry in entries], ensure_ascii=False))
    return path


def odd(problems: Items, metadata: Items) -> None:
    """Items that a correction may mend, or not: without a solution, with a note, with options in the picture."""
    metadata[7]["note"] = "設問に誤りがあるため、解なし。"
    problems[8]["answer"] = ["解なし"]
    metadata[10]["note"] = "3又は4を正解とする。"
    problems[10]["answer"] = ["3"]
    problems[25] |= {"choices": "IMAGES", "text_only": False}
    metadata[33]["note"] = "字句の訂正があった。"


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_year(tmp_path_factory.mktemp("years") / "100", edit=odd)


def test_a_corrected_answer_beats_the_published_note(year: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "c.yaml", {"item": "100007", "answer": ["2"]}, {"item": "100010", "answer": ["5"]})
    exam, report = import_exam(year, "100", corrections=file)
    assert (exam.items[6].answers, exam.items[6].no_solution) == ((("2",),), False)
    assert exam.items[9].answers == (("5",),)
    assert "100007: its note is left aside, as its answer is corrected" in report.readings


IDLE: dict[str, tuple[dict[str, Any], str]] = {
    "the published answer": ({"item": "100004", "answer": ["1"]}, "`answer` of item 100004 changes nothing"),
    "the published answer beside a change": (
        {"item": "100004", "answer": ["1"], "problem_text": "別の作例。1つ選べ。"},
        "`answer` of item 100004 changes nothing",
    ),
    "the published stem": (
        {"item": "100004", "problem_text": " 作例4の記述のうち、正しいのはどれか。1つ選べ。 "},
        "`problem_text` of item 100004 changes nothing",
    ),
    "the published flag": ({"item": "100004", "text_only": True}, "`text_only` of item 100004 changes nothing"),
    "a flag where the options are in the picture": (
        {"item": "100025", "text_only": True},
        "`text_only` of item 100025 changes nothing",
    ),
    "an answer that the given note takes out": (
        {"item": "100007", "answer": ["2"], "note": "正答なし。"},
        "`answer` of item 100007 changes nothing",
    ),
    "a note without the answer": (
        {"item": "100008", "note": "2又は4を正解とする。"},
        "the key has no solution, and the note says what is right",
    ),
    "a note that nobody reads": ({"item": "100033", "note": ""}, "`note` of item 100033 changes nothing"),
    "a line that is not there": ({"item": "100004", "line": 99999}, "to be line 99999, which has no item"),
    "its own line": ({"item": "100004", "line": 4}, "line 4 is item 100004 as it was published"),
    "a whole item in a line that is not there": (
        {"item": "100004", "line": 400, "problem_text": "1つ選べ。", "choices": ["ア", "イ"], "answer": ["2"]}
        | {"text_only": False},
        "to be line 400, which has no item",
    ),
    "the first item follows": ({"item": "100001", "follows": True}, "`follows` of item 100001 says"),
    "the second of a pair follows": ({"item": "100197", "follows": True}, "`follows` of item 100197 says"),
    "an item without a case does not follow": ({"item": "100120", "follows": False}, "`follows` of item 100120 says"),
    "no value": ({"item": "100004", "answer": ["2"], "follows": None}, "entry 1: `follows` has no value"),
}


@pytest.mark.parametrize("name", IDLE)
def test_what_changes_nothing_is_refused(year: Path, tmp_path: Path, name: str) -> None:
    entry, message = IDLE[name]
    with pytest.raises(DataError, match=re.escape(message)):
        import_exam(year, "100", corrections=write(tmp_path / "c.yaml", entry))


@pytest.mark.parametrize(("item", "flag"), [("100005", True), ("100004", False)])
def test_a_flag_is_idle_where_a_list_says_what_has_a_diagram(year: Path, tmp_path: Path, item: str, flag: bool) -> None:
    """Items 4 and 5 have one by the list, whatever their flags say; item 6 has none and tells that one is missing."""
    diagrams = tmp_path / "diagrams.txt"
    diagrams.write_text("4 5 25")
    idle = write(tmp_path / "idle.yaml", {"item": item, "text_only": flag})
    with pytest.raises(DataError, match=f"`text_only` of item {item} changes nothing"):
        import_exam(year, "100", corrections=idle, diagrams=diagrams)
    other = write(tmp_path / "other.yaml", {"item": "100006", "text_only": False})
    exam, _ = import_exam(year, "100", corrections=other, diagrams=diagrams)
    assert (exam.items[5].diagram, exam.items[5].pictured) == (False, True)


def test_of_lines_that_contradict_each_other_the_right_one_may_be_named(tmp_path: Path) -> None:
    folder = write_year(tmp_path / "100")
    lines = (folder / "data.jsonl").read_text(encoding="utf-8").splitlines()
    other = json.loads(lines[3]) | {"answer": ["5"]}
    (folder / "data.jsonl").write_text("\n".join([*lines, json.dumps(other)]), encoding="utf-8")
    with pytest.raises(DataError, match="contradicts line 4"):
        import_exam(folder, "100")
    exam, _ = import_exam(folder, "100", corrections=write(tmp_path / "c.yaml", {"item": "100004", "answer": ["1"]}))
    assert exam.items[3].answers == (("1",),)


def test_answer_and_note_are_judged_together(year: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "c.yaml", {"item": "100008", "answer": ["2", "4"], "note": "2又は4を正解とする。"})
    assert import_exam(year, "100", corrections=file)[0].items[7].answers == (("2",), ("4",))


def test_words_and_numbers_are_taken_as_they_are_written(year: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "- item: 100004\n  reason: 2024-05-01\n  choices: [1:2, 0.10, 1_000, 5.00, no]\n  answer: [0x3]\n"
        "- {item: 100006, reason: r, choices: [010, 1e3, +5, .5, 2001-01-01], follows: true}\n"
    )
    found = read_corrections(path, "100")
    assert found["100004"].choices == ("1:2", "0.10", "1_000", "5.00", "no")
    assert (found["100004"].reason, found["100004"].answer) == ("2024-05-01", ("0x3",))
    assert found["100006"].choices == ("010", "1e3", "+5", ".5", "2001-01-01")
    assert found["100006"].follows is True


def test_two_items_of_one_line_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "c.yaml", {"item": "100004", "line": 9}, {"item": "100005", "line": 9})
    with pytest.raises(DataError, match="entry 2: line 9 is named twice"):
        read_corrections(file, "100")


def test_a_folder_is_no_file_of_corrections_or_diagrams(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder: name the file of corrections"):
        read_corrections(tmp_path, "100")
    with pytest.raises(DataError, match="is a folder: name the list of items"):
        read_diagrams(tmp_path, "100")


@pytest.mark.parametrize(
    ("line", "note", "says"),
    [
        ({"choices": ["IMAGES"] * 5}, "", "IMAGES stands among the options"),
        ({"choices": ["ア", "イ", "ウ", "エ", " ア "]}, "", "two options are the same"),
        ({"choices": ["ア", "イ", "ウ", "IMAGES"]}, "", "IMAGES stands among the options"),
        ({"answer": ["1"]}, "1又は2を正解としない。", "names options that it does not accept"),
        ({"answer": ["1"]}, "1、2のいずれかを選んだものは不正解とする。", "names options that it does not accept"),
        ({"answer": ["1"]}, "1又は2は、いずれかを正答とは認められない。", "names options that it does not accept"),
        ({"answer": ["1", "2（いずれかは不正解）"]}, "", "names options that it does not accept"),
    ],
)
def test_lines_that_say_no_item_are_refused(tmp_path: Path, line: dict[str, Any], note: str, says: str) -> None:
    def edit(problems: Items, metadata: Items) -> None:
        problems[4] |= line
        metadata[4]["note"] = note

    with pytest.raises(DataError, match=says):
        import_exam(write_year(tmp_path, edit=edit), "100")


def test_a_note_may_say_why_more_is_right(tmp_path: Path) -> None:
    def edit(problems: Items, metadata: Items) -> None:
        metadata[4]["note"] = "正解を1つと判断できないため、1又は3を正解とする。"

    assert import_exam(write_year(tmp_path, edit=edit), "100")[0].items[3].answers == (("1",), ("3",))


def test_two_slips_that_cancel_each_other_are_told_by_their_items(tmp_path: Path) -> None:
    def edit(problems: Items, metadata: Items) -> None:
        one, other = metadata[209], metadata[210]
        one["category"], other["category"] = other["category"], one["category"]

    _, report = import_exam(write_year(tmp_path, edit=edit), "100")
    assert (report.linked_by_text, report.linked_by_subject) == ((), ("100210",))
