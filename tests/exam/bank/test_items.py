"""An exam on disk, the checks that hold for any exam, and the labels of options."""

from __future__ import annotations

import io
import json
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFile

from tasks.errors import DataError
from tasks.exam.bank import items
from tasks.exam.bank.importer import import_exam
from tasks.exam.bank.items import check_exam, exam_folder, load_exam, picture_digest, save_exam, subject_table
from tasks.exam.bank.numeric import is_quantity, labels_for
from tasks.exam.bank.records import Exam
from tests.exam.year_samples import write_pictures, write_year


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Exam:
    return import_exam(write_year(tmp_path_factory.mktemp("year")), "100")[0]


def with_item(exam: Exam, index: int, /, **values: Any) -> Exam:
    """The exam with one item changed, unchecked."""
    items = list(exam.items)
    items[index] = items[index].model_copy(update=values)
    return exam.model_copy(update={"items": tuple(items)})


def with_text(exam: Exam, index: int, /, **values: Any) -> Exam:
    text = exam.items[index].text["ja"].model_copy(update=values)
    return with_item(exam, index, text={"ja": text})


def test_ten_options_are_sorted_by_number(exam: Exam) -> None:
    labels = tuple(str(number) for number in range(1, 11))
    ten = {"num_choices": 10, "labels": labels, "n_select": 2}
    wide = with_text(with_item(exam, 0, **ten, answers=(("2", "10"),)), 0, choices=labels)
    check_exam(wide)
    with pytest.raises(DataError, match="not 2 sorted options"):
        check_exam(with_item(wide, 0, answers=(("10", "2"),)))


def test_an_exam_survives_the_disk(exam: Exam, tmp_path: Path) -> None:
    folder = exam_folder(tmp_path, "100")
    assert folder == tmp_path / "exams" / "100"
    save_exam(exam, folder)
    first = (folder / "exam.json").read_bytes()
    save_exam(exam, folder)
    assert (folder / "exam.json").read_bytes() == first
    assert load_exam(folder) == exam
    assert load_exam(folder).digest == exam.digest
    assert sorted(path.name for path in folder.iterdir()) == ["exam.json", "images"]


def test_the_digest_sees_every_change(exam: Exam, tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path, ["a"])
    changed = [
        with_text(exam, 0, stem="another"),
        with_item(exam, 0, answers=(("1",),)),
        with_item(exam, 4, images=("a.png",), images_sha256=(picture_digest(pictures / "a.png", "a"),)),
        with_item(exam, 4, images=("a.png",), images_sha256=("0" * 64,)),
    ]
    assert len({exam.digest, *(other.digest for other in changed)}) == 5


def test_subject_table_has_every_cell(exam: Exam) -> None:
    table = subject_table(exam)
    assert list(table) == ["essential", "general"]
    assert [len(row) for row in table.values()] == [9, 9]
    assert sum(sum(row.values()) for row in table.values()) == 345
    few = exam.model_copy(update={"items": exam.items[:1]})
    assert subject_table(few)["general"]["practice"] == 0


UNSOUND: dict[str, tuple[Callable[[Exam], Exam], str]] = {
    "no items": (lambda exam: exam.model_copy(update={"items": ()}), "it has no items"),
    "a number twice": (lambda exam: with_item(exam, 1, number=1), "2 items have the number 1"),
    "an id twice": (lambda exam: with_item(exam, 1, id="100001"), "2 items have the id 100001"),
    "out of order": (lambda exam: with_item(exam, 0, number=400), "its items are not ordered by number"),
    "another exam's": (lambda exam: with_item(exam, 0, exam="099"), "100001: it is of exam 099"),
    "a language too many": (lambda exam: exam.model_copy(update={"languages": ("ja", "en")}), "not ja, en"),
    "an empty stem": (lambda exam: with_text(exam, 0, stem=" "), r"100001: an empty stem or choice \(ja\)"),
    "a choice too few": (lambda exam: with_text(exam, 0, choices=("a",)), "100001: 1 choices instead of 5"),
    "no choices, no picture": (lambda exam: with_text(exam, 0, choices=()), "100001: 0 choices instead of 5"),
    "an answer outside": (lambda exam: with_item(exam, 0, answers=(("6",),)), "an answer outside its 5 options"),
    "one answer of two": (lambda exam: with_item(exam, 2, answers=(("1",),)), "not 2 sorted options"),
    "unsorted answers": (lambda exam: with_item(exam, 2, answers=(("5", "1"),)), "not 2 sorted options"),
    "no answer": (lambda exam: with_item(exam, 0, answers=()), "either answers or no solution"),
    "a solution after all": (lambda exam: with_item(exam, 0, no_solution=True), "either answers or no solution"),
    "equal labels": (lambda exam: with_item(exam, 0, labels=("1",) * 5), "its labels do not name its options"),
    "a fatal right answer": (lambda exam: with_item(exam, 0, contraindicated=("2",)), "with a contraindicated option"),
    "fatal and outside": (lambda exam: with_item(exam, 0, contraindicated=("7",)), "contraindicated option outside"),
    "an undigested picture": (lambda exam: with_item(exam, 4, images=("a.png",)), "and their digests are not as many"),
    "a picture without diagram": (
        lambda exam: with_item(exam, 0, images=("a.png",), images_sha256=("0",)),
        "pictures and no diagram",
    ),
    "a diagram from nowhere": (lambda exam: with_item(exam, 4, diagram_source="none"), "diagram from no source"),
    "half a case": (lambda exam: with_item(exam, 195, case=None), "case 100196-197 has 1 items instead of 2"),
    "a case without scenario": (lambda exam: with_text(exam, 196, scenario=None), "100197 is linked and has no scen"),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_an_exam_that_contradicts_itself_is_refused(exam: Exam, tmp_path: Path, name: str) -> None:
    edit, message = UNSOUND[name]
    check_exam(exam)
    with pytest.raises(DataError, match=message):
        check_exam(edit(exam))
    with pytest.raises(DataError, match=message):
        save_exam(edit(exam), tmp_path / "exam")
    assert not (tmp_path / "exam").exists()


def test_every_problem_is_named_at_once(exam: Exam) -> None:
    with pytest.raises(DataError) as caught:
        check_exam(with_item(with_item(exam, 0, answers=()), 1, answers=()))
    assert "100001: " in str(caught.value)
    assert "100002: " in str(caught.value)


def test_a_folder_without_a_sound_exam_is_refused(exam: Exam, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run `pharmafed exam prepare` or `pharmafed exam import`"):
        load_exam(tmp_path)
    path = tmp_path / "exam.json"
    for content in (b"", b"\xff", b"[]", b'{"id": "100"}'):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"exam\.json is not an exam"):
            load_exam(tmp_path)
    save_exam(exam, tmp_path)
    value = json.loads(path.read_bytes())
    value["items"][0]["answers"] = [["9"]]
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match="100001: an answer outside its 5 options"):
        load_exam(tmp_path)


def test_pictures_are_needed_to_save_and_left_overs_go(exam: Exam, tmp_path: Path) -> None:
    images = write_pictures(tmp_path / "images", ["a", "b"])
    digests = {name: picture_digest(images / name, "a") for name in ("a.png", "b.png")}
    one = with_item(exam, 4, images=("a.png",), images_sha256=(digests["a.png"],))
    both = with_item(exam, 4, images=tuple(digests), images_sha256=tuple(digests.values()))
    with pytest.raises(DataError, match="give the folder of images"):
        save_exam(one, tmp_path / "saved")
    save_exam(both, tmp_path / "saved", images=images)
    save_exam(one, tmp_path / "saved", images=images)
    assert [path.name for path in (tmp_path / "saved" / "images").iterdir()] == ["a.png"]
    Image.new("RGB", (8, 8), "black").save(images / "a.png")
    with pytest.raises(DataError, match="has changed since the import"):
        save_exam(one, tmp_path / "again", images=images)
    assert not (tmp_path / "again").exists()


QUANTITIES = (
    "3", "０．５", "1,000", "-2", "−0.5", "±3", "1/8", "1：2", "1〜3", "12.5%", "7.5 mL", "15.4g", "10日間", "8時間",
    "20万円/人", "1.0\\times 10^{-19} mol/L", "2.0×10^−8 mol/L", "3 μg/kg/min", "0.10 h^{-1}", "約30", "37^{\\circ} C",
    "5 \\microg/mL", "1.73 m^{2}", "40 mmHg", "100 Bq",
)  # fmt: skip
WORDS = (
    "5-FU", "1型糖尿病", "5％ブドウ糖注射液", "CYP1A2", "a", "α", "", "3つの受容体", "1日1回", "5-HT",
    "2-ナフチルアミン", "100 mg錠を増量する", "4g以上", "60kgの患者", "10 tablets of aspirin",
)  # fmt: skip


@pytest.mark.parametrize("text", QUANTITIES)
def test_quantities(text: str) -> None:
    assert is_quantity(text)


@pytest.mark.parametrize("text", WORDS)
def test_words(text: str) -> None:
    assert not is_quantity(text)


def test_only_all_quantities_are_lettered() -> None:
    assert labels_for(("1", "2", "3", "4"), 4) == ("A", "B", "C", "D")
    assert labels_for(("1", "2", "3", "なし"), 4) == ("1", "2", "3", "4")
    assert labels_for((), 5) == ("1", "2", "3", "4", "5")


# pictures of strangers


def png(width: int, height: int) -> bytes:
    """A PNG that says it has this size, and holds one byte of pixels: 100 bytes that ask for gigabytes."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0")),
        (b"IEND", b""),
    ]
    chunks = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def gif(size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("P", size).save(buffer, "GIF")
    return buffer.getvalue()


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
PICTURES: dict[str, tuple[str, bytes, str]] = {
    "169 megapixels": ("a.png", png(13_000, 13_000), "has more than 40 million pixels: make it smaller"),
    "41 megapixels": ("a.png", png(41_000, 1_000), "has more than 40 million pixels"),
    "a bomb": ("a.png", png(100_000, 100_000), "has more than 40 million pixels"),
    "the largest there is": ("a.png", png(2**31 - 1, 2**31 - 1), "has more than 40 million pixels"),
    "a wide GIF": ("a.gif", gif((8, 8))[:6] + struct.pack("<HH", 65_535, 65_535) + gif()[10:], "40 million pixels"),
    "too many bytes": ("a.png", b"x" * (items.MAX_PICTURE_BYTES + 1), "20,971,521 bytes, more than the 20,971,520"),
    "a script": ("a.png", SVG, "is not a whole image"),
    "a GIF by another name": ("a.png", gif(), "is GIF by its content: give it the right ending"),
    "an ending that no picture has": ("a.svg", gif(), "is GIF by its content"),
    "half a picture": ("a.png", png(10, 10), "is not a whole image"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_refused_before_it_is_decoded(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, content, says = PICTURES[name]
    (tmp_path / file).write_bytes(content)
    decoded: list[Image.Image] = []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: (decoded.append(self), load(self))[1])
    with pytest.raises(DataError, match=re.escape(says)):
        picture_digest(tmp_path / file, "100001")
    assert bool(decoded) == (name in ("a GIF by another name", "an ending that no picture has", "half a picture"))


def test_a_large_page_is_taken(tmp_path: Path) -> None:
    Image.new("1", (5_000, 7_000)).save(tmp_path / "a.png")
    assert len(picture_digest(tmp_path / "a.png", "100001")) == 64


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "a/../../b.png", "a\\b.png", "a\0.png", ".a.png", "..", ""])
def test_a_picture_or_exam_that_is_named_outside_its_folder_is_none(name: str, exam: Exam, tmp_path: Path) -> None:
    save_exam(exam, tmp_path)
    value = json.loads((tmp_path / "exam.json").read_bytes())
    for place, change in (
        ("images.0", {"items": [{**value["items"][4], "images": [name], "images_sha256": ["0" * 64]}]}),
        ("id", {"id": name}),
    ):
        (tmp_path / "exam.json").write_text(json.dumps(value | change))
        with pytest.raises(DataError, match=rf"is not an exam, first at .*{place}"):
            load_exam(tmp_path)


def test_an_exam_is_not_written_through_planted_links(exam: Exam, tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "source", ["a"])
    digest = picture_digest(pictures / "a.png", "a")
    pictured = with_item(exam, 4, images=("a.png",), images_sha256=(digest,))
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "exam/images").mkdir(parents=True)
    for planted in ("exam/images/a.png", "exam/exam.json"):
        (tmp_path / planted).symlink_to(tmp_path / "victim")
    save_exam(pictured, tmp_path / "exam", images=pictures)
    assert (tmp_path / "victim").read_text() == "mine"
    assert load_exam(tmp_path / "exam") == pictured


def test_a_file_where_the_folder_of_exams_should_be_is_one_sentence(practice_data: Path, tmp_path: Path) -> None:
    exam = load_exam(exam_folder(practice_data, "practice"))
    (tmp_path / "data").write_text("")
    bare = exam.model_copy(update={"items": tuple(one for one in exam.items if not one.images and not one.case)})
    with pytest.raises(DataError, match="cannot be made"):
        save_exam(bare, exam_folder(tmp_path / "data", "practice"))
