"""Which items count as having a diagram: the files' own flag, or a list, as the paper's text-only arm needs it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import DataError
from tasks.exam.asking.prompts import load_prompt
from tasks.exam.asking.questions import Patience, items_to_ask, make_job
from tasks.exam.bank.import_pictures import read_diagrams
from tasks.exam.bank.importer import import_exam
from tasks.exam.bank.items import load_exam, save_exam
from tasks.exam.bank.records import Exam
from tests.exam.exam_samples import settings
from tests.exam.year_samples import Edit, write_pictures, write_year

NO_PICTURE = load_prompt("ja/v1")[0].no_picture
#: Of the 69 items whose flag says so (every fifth), and one whose flag says that it has none.
LIST = [*range(5, 300, 5), 1]


def write_list(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def asked(exam: Exam, *, images: bool) -> list[int]:
    return [item.number for item in items_to_ask(exam, settings(exam, images=images, exam=exam.id))]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("3\n107005\n", {3, 5}),
        ("3, 5 7-9  # as the paper has them\n\n#all\n", {3, 5, 7, 8, 9}),
        ("107340-107342\r\n", {340, 341, 342}),
        ("\ufeff003", {3}),
        ("107340-342", {340, 341, 342}),
    ],
)
def test_a_list_in_any_hand(tmp_path: Path, text: str, numbers: set[int]) -> None:
    assert read_diagrams(write_list(tmp_path / "list", text), "107") == numbers


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("3\n346", "line 2: not the number or range of an item of the exam"),
        ("0", "line 1: not the number"),
        ("9-7", "line 1: not the number"),
        ("106003", "line 1: not the number"),
        ("三", "line 1: not the number"),
        ("3;5", "line 1: not the number"),
        ("1-99999999999999999999", "line 1: not the number"),
        ("x\ny\nz", "line 1: not the number or range of an item of the exam (and line 2, line 3)"),
        ("# nothing", "names no item"),
        ("", "names no item"),
    ],
)
def test_a_bad_list_is_refused_with_every_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=re.escape(says)):
        read_diagrams(write_list(tmp_path / "list", text), "107")


def test_a_list_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing: name the list"):
        read_diagrams(tmp_path / "nowhere", "107")
    (tmp_path / "list").write_bytes("３".encode("cp932"))
    with pytest.raises(DataError, match="is not text in UTF-8"):
        read_diagrams(tmp_path / "list", "107")


def test_a_list_makes_the_text_only_arm(tmp_path: Path) -> None:
    folder = write_year(tmp_path / "year")
    listed = write_list(tmp_path / "list", " ".join(map(str, LIST)))
    exam, report = import_exam(folder, "100", diagrams=listed)
    flagged, _ = import_exam(folder, "100")
    assert (report.diagrams, len(asked(exam, images=False))) == (60, 285)
    assert len(asked(flagged, images=False)) == 345 - 69
    assert {item.diagram_source for item in exam.items} == {"list"}
    assert [item.number for item in exam.items if item.pictured] == list(range(300, 346, 5))
    job = make_job(exam, tmp_path, settings(exam, images=False, exam=exam.id), 1, Patience())
    told = {int(one.item[3:]) for one in job.questions if NO_PICTURE in one.text}
    assert told >= set(range(300, 346, 5)), "the files say that there is a picture, and the list leaves it to the text"
    assert told - set(range(300, 346, 5)) == {
        item.number for item in exam.items if item.case_pictured and not item.diagram
    }


def test_pictures_of_items_outside_the_list_are_sent_too(tmp_path: Path) -> None:
    folder = write_year(tmp_path / "year")
    listed = write_list(tmp_path / "list", " ".join(map(str, LIST)))
    images = write_pictures(tmp_path / "images", [f"100{n:03}" for n in {*LIST, *range(300, 346, 5)}])
    exam, report = import_exam(folder, "100", diagrams=listed, images=images)
    assert (report.images, report.without_picture) == (70, ())
    save_exam(exam, tmp_path / "saved", images=images)
    assert load_exam(tmp_path / "saved") == exam
    job = make_job(exam, images, settings(exam, images=True, exam=exam.id), 1, Patience())
    assert sum(len(one.images) for one in job.questions) == 70


def test_options_in_a_picture_need_the_list(tmp_path: Path) -> None:
    edit: Edit = lambda problems, metadata: problems[8].update(choices="IMAGES")  # noqa: E731
    folder = write_year(tmp_path / "year", edit=edit)
    with pytest.raises(DataError, match=r"line 8 \(100008\): its options are only in the picture, and the list"):
        import_exam(folder, "100", diagrams=write_list(tmp_path / "list", "5"))


def test_all_faults_of_the_pictures_are_told_with_those_of_the_files(tmp_path: Path) -> None:
    def edit(problems: dict[int, Any], metadata: dict[int, Any]) -> None:
        problems[4]["answer"] = ["6"]
        metadata[9]["category"] = "Magic"

    images = write_pictures(tmp_path / "images", [f"100{n:03}" for n in range(15, 346, 5)])
    (images / "100010.png").write_bytes(b"<html>")
    (images / "Thumbs.db").write_bytes(b"")  # what desktops leave behind is left aside
    (images / "notes.txt").write_bytes(b"")
    write_pictures(images, ["100011"])
    with pytest.raises(DataError) as refused:
        import_exam(write_year(tmp_path / "year", edit=edit), "100", images=images)
    for says in (
        "6 faults", "(100004): an answer outside", "(100009): the subject 'Magic'", "lacks the pictures of 1 of 69",
        "100010.png (100010) is not a whole image", "notes.txt is not named", "100011.png belongs to an item without",
    ):  # fmt: skip
        assert says in str(refused.value)
