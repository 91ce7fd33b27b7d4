"""The import of exam 107 where it is at hand, of a made-up year with every quirk, and every bad input refused."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tasks.errors import DataError
from tasks.exam.bank.import_report import ImportReport
from tasks.exam.bank.importer import import_exam
from tasks.exam.bank.items import exam_folder, load_exam, save_exam
from tasks.exam.bank.records import Exam
from tests.exam.year_samples import (
    ENVIRONMENT,
    ESSENTIAL_TABLE,
    GENERAL_TABLE,
    exam_107_folder,
    write_lines,
    write_pictures,
    write_year,
)

PIECE = 20


def strings(value: Any) -> list[str]:
    """Every string in a JSON value."""
    if isinstance(value, dict):
        return [found for each in value.values() for found in strings(each)]
    if isinstance(value, list):
        return [found for each in value for found in strings(each)]
    return [value] if isinstance(value, str) else []


def comment_pieces(folder: Path) -> set[str]:
    """Pieces of the comments that occur in no stem and no choice of the exam."""
    lines = [json.loads(line) for line in (folder / "data.jsonl").read_text(encoding="utf-8").splitlines()]
    asked = "\n".join(text for line in lines for text in strings([line["problem_text"], line["choices"]]))
    comments = [line["comment"] for line in lines]
    pieces = {text[at : at + PIECE] for text in comments for at in range(0, len(text) - PIECE + 1, PIECE)}
    return {piece for piece in pieces if piece not in asked}


def has_a_piece(exam: Exam, pieces: set[str]) -> bool:
    """Whether any string of the exam holds one of the pieces."""
    windows = {
        text[at : at + PIECE] for text in strings(exam.model_dump(mode="json")) for at in range(len(text) - PIECE + 1)
    }
    return bool(windows & pieces)


def test_exam_107_comes_in_as_the_paper_has_it(
    tmp_path: Path, practice_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = exam_107_folder()
    if folder is None:
        with capsys.disabled():
            print(f"\n{ENVIRONMENT} is not set: the same checks run on our own exam and on a made-up year")
        ours = load_exam(exam_folder(practice_data, "practice"))
        assert (len(ours.items), sum(item.no_solution for item in ours.items)) == (66, 1)
        assert len({item.case for item in ours.items if item.case}) == 3
        folder = write_year(tmp_path / "107", "107", edit=like_107)
    exam, report = import_exam(folder, "107")
    check_counts(exam, report)
    pieces = comment_pieces(folder)
    assert len(pieces) > 300
    assert not has_a_piece(exam, pieces)
    broken = exam.model_copy(update={"title": f"a {min(pieces)} b"})
    assert has_a_piece(broken, pieces), "the search itself must find a comment"
    save_exam(exam, tmp_path / "saved")
    assert load_exam(tmp_path / "saved") == exam


def like_107(problems: dict[int, dict[str, Any]], metadata: dict[int, dict[str, Any]]) -> None:
    """What a made-up year needs to have exam 107's counts."""
    problems[328]["answer"] = ["解なし"]
    metadata[328]["note"] = "作例のため、解なし。"
    for number in range(5, 5 + 5 * 31, 5):
        problems[number]["choices"] = "IMAGES"
    for number in range(1, 346):
        problems[number]["text_only"] = number > 128 if number % 5 else number > 155
        problems[number]["comment"] += "".join(f"{word}{number}" for word in ("説明", "理由", "根拠", "補足"))
    for number in (199, 299):
        problems[number]["choices"] = problems[number]["choices"][:4]


def check_counts(exam: Exam, report: ImportReport) -> None:
    assert [item.number for item in exam.items] == list(range(1, 346))
    assert tuple(report.subjects["essential"].values()) == ESSENTIAL_TABLE
    assert tuple(report.subjects["general"].values()) == GENERAL_TABLE
    assert report.no_solution == ("107328",)
    assert len(report.pictured_choices) == 31
    assert report.unusual_choices == {"107199": 4, "107299": 4}
    seconds = exam.items[196:325:2]
    assert len(seconds) == 65
    for second in seconds:
        earlier = [item for item in exam.items if item.case == second.case and item.number < second.number]
        assert earlier
        assert earlier[-1].number == second.number - 1
        assert all(item.text["ja"].stem in (second.text["ja"].scenario or "") for item in earlier)
        assert second.case_pictured == any(item.diagram for item in earlier)
    assert all(item.diagram_source == "text_only" for item in exam.items)
    assert report.corrections == {}
    assert report.readings == report.unread_notes == report.by_note == ()
    assert exam.human_mean == 0.682


def test_flags_and_letters_of_exam_107(capsys: pytest.CaptureFixture[str], practice_data: Path) -> None:
    folder = exam_107_folder()
    if folder is None:
        with capsys.disabled():
            print(f"\n{ENVIRONMENT} is not set: letters are checked on our own exam")
        items = load_exam(exam_folder(practice_data, "practice")).items
        assert [item.id for item in items if item.labels[0] == "A"][:3] == ["phys-1", "hyg-2", "hyg-3"]
        return
    exam, report = import_exam(folder, "107")
    assert (report.diagrams, report.two_answers) == (345 - 217, 156)
    assert Counter(report.cases.values()) == {2: 62, 3: 1, 4: 2}
    assert report.linked_by_text == ("107134", "107135", "107157")
    assert report.linked_by_subject == ("107206", "107274")
    assert (report.unlinked, report.unpictured) == ((), ("107094", "107180", "107329"))
    pairs = [(exam.items[number - 1], exam.items[number]) for number in range(196, 326, 2)]
    assert sum(first.diagram for first, _ in pairs) == 40
    assert sum(first.diagram and not second.diagram for first, second in pairs) == 30
    assert all(second.lacks_a_picture(sent=True) for first, second in pairs if first.diagram)
    numbers = "001 003 004 045 072 094 096 136 150 169 175 178 198 269 270 341 342 343"
    assert report.lettered == tuple(f"107{number}" for number in numbers.split())
    assert exam.items[0].labels == ("A", "B", "C", "D", "E")
    assert exam.items[27].labels == ("1", "2", "3", "4", "5")


def quirks(problems: dict[int, dict[str, Any]], metadata: dict[int, dict[str, Any]]) -> None:
    """One item for every quirk that other years are known to have."""
    problems[2] |= {"answer": ["解なし（選択肢に誤りがあるため）"]}
    problems[3] |= {"answer": ["1", "3", "5（いずれか2つを選んでいれば正解）"]}
    problems[4] |= {"problem_text": "作例4。1つ選べ。", "answer": ["2", "4"]}
    metadata[4]["note"] = "選択肢に疑義があるため、2又は4を正解とする。"
    problems[6] |= {"problem_text": "作例6。２つ選べ。", "answer": ["１", "２", "４"]}
    metadata[6]["note"] = "複数の正解が考えられる。選択肢1、2及び4のうち、いずれか2つを正解とする。"
    problems[7] |= {"problem_text": "作例7。二つ選べ。", "choices": "IMAGES", "text_only": True, "answer": ["2", "6"]}
    problems[8] |= {"choices": ["1.0×10^{-3} mol/L", "2.0 mol/L", "３mol/L", "1/8 mol/L", "1:2"]}
    problems[9] |= {"problem_text": "作例9。正しい二者はどれか。"}
    metadata[10]["note"] = "出題の意図に関する一般的な説明である。"
    problems[11] |= {"answer": ["解なし"]}
    metadata[11]["note"] = "選択肢3は誤りであり、正解は3又は4となるため、解なし。"
    problems[12] |= {"choices": problems[12]["choices"][:4], "answer": ["2", "4"]}


def test_a_year_with_every_quirk(tmp_path: Path) -> None:
    exam, report = import_exam(write_year(tmp_path, "097", edit=quirks, repeat_metadata=4, shuffle=True), "097")
    items = {item.number: item for item in exam.items}
    assert report.no_solution == ("097002", "097011")
    pairs = (("1", "3"), ("1", "5"), ("3", "5"))
    fours = (("1", "2"), ("1", "4"), ("2", "4"))
    assert report.any_of == {"097003": pairs, "097004": (("2",), ("4",)), "097006": fours}
    assert items[7].text["ja"].choices == ()
    assert (items[7].num_choices, items[7].n_select, items[7].diagram) == (6, 2, True)
    assert items[8].labels == ("A", "B", "C", "D", "E")
    assert (items[9].n_select, items[12].num_choices) == (2, 4)
    assert report.unread_notes == ("097010",)
    assert report.readings == (
        "metadata.jsonl: 1035 repeated lines dropped",
        "097002: words in the key read by rule",
        "097003: words in the key read by rule",
        "097007: IMAGES for choices, so it has a diagram",
        "097009: the stem does not say how many, the key has 2",
    )
    assert tuple(report.subjects["essential"].values()) == ESSENTIAL_TABLE
    assert "any-of rules: 3 - 097003 (1+3/1+5/3+5)" in report.table()


def test_order_and_names_of_the_files_make_no_difference(tmp_path: Path) -> None:
    plain, _ = import_exam(write_year(tmp_path / "a"), "100")
    names = ("100.jsonl", "metadata_100.jsonl")
    mixed, _ = import_exam(write_year(tmp_path / "b", shuffle=True, repeat_metadata=4, names=names), "100")
    assert plain == mixed
    content = (tmp_path / "a" / "data.jsonl").read_bytes()
    (tmp_path / "a" / "data.jsonl").write_bytes(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"))
    assert import_exam(tmp_path / "a", "100")[0] == plain


def drop(which: str, number: int) -> Callable[..., None]:
    def edit(problems: dict[int, Any], metadata: dict[int, Any]) -> None:
        del {"data": problems, "metadata": metadata}[which][number]

    return edit


def change(which: str, number: int, **values: Any) -> Callable[..., None]:
    def edit(problems: dict[int, Any], metadata: dict[int, Any]) -> None:
        {"data": problems, "metadata": metadata}[which][number] |= values

    return edit


REFUSALS = {
    "an item is missing": (drop("data", 12), "data.jsonl lacks 1 of 345 ids: 100012"),
    "its subject is missing": (drop("metadata", 12), "metadata.jsonl lacks 1 of 345 ids: 100012"),
    "no id": (change("data", 7, problem_id=None), "data.jsonl line 7: `problem_id` is not as"),
    "another year's id": (change("data", 7, problem_id="101007"), "line 7 (101007): the id is not one of 100001"),
    "an id past the last item": (change("metadata", 7, problem_id="100346"), "line 7 (100346): the id is not one of"),
    "two items of one id": (change("data", 7, problem_id="100006"), "line 7 (100006): it contradicts line 6"),
    "two subjects of one id": (change("metadata", 9, problem_id="100001"), "line 9 (100001): it contradicts line 1"),
    "answer outside": (change("data", 4, answer=["6"]), "line 4 (100004): an answer outside its 5 options"),
    "answer zero": (change("data", 4, answer=["0"]), "line 4 (100004): an answer outside its 5 options"),
    "a picture's answer outside": (
        change("data", 5, choices="IMAGES", answer=["11"]),
        "line 5 (100005): an answer outside its 10 options",
    ),
    "no end of digits": (change("data", 4, answer=["9" * 5000]), "the key is not a list of option numbers"),
    "no answer": (change("data", 4, answer=[]), "line 4 (100004): the key is not a list of option numbers"),
    "words": (change("data", 4, answer=["2（作例）"]), "line 4 (100004): the key has words that are neither"),
    "half a solution": (change("data", 4, answer=["2", "解なし"]), "the key has both options and no solution"),
    "too many answers": (change("data", 4, answer=["1", "2"]), "asks for 1 options and the key accepts 2 of 2"),
    "two demands": (change("data", 4, problem_text="1つ選べ。2つ選べ。"), "the stem asks for 1 and for 2 options"),
    "unknown subject": (change("metadata", 4, category="薬理"), "line 4 (100004): the subject '薬理' is unknown"),
    "choices in words": (change("data", 4, choices="FIGURES"), "line 4 (100004): `choices` is not as the layout"),
    "one choice": (change("data", 4, choices=["a"]), "line 4 (100004): `choices` is not as the layout"),
    "an empty choice": (change("data", 4, choices=["a", " "]), "line 4 (100004): `choices` is not as the layout"),
    "a flag in words": (change("data", 4, text_only="yes"), "line 4 (100004): `text_only` is not as the layout"),
    "lost characters": (change("data", 4, problem_text="正し\ufffd"), "line 4 (100004): characters were lost"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_bad_input_is_refused_with_its_place(tmp_path: Path, name: str) -> None:
    edit, message = REFUSALS[name]
    folder = write_year(tmp_path, edit=edit)
    with pytest.raises(DataError, match=re.escape(message)):
        import_exam(folder, "100")


def test_other_encodings_are_refused_with_the_remedy(tmp_path: Path) -> None:
    write_year(tmp_path)
    path = tmp_path / "data.jsonl"
    text = path.read_text(encoding="utf-8")
    for codec, name in (("cp932", "CP932"), ("euc_jp", "EUC-JP")):
        path.write_bytes(text.encode(codec))
        with pytest.raises(DataError, match=rf"line 1: not UTF-8, it reads as {name}.*iconv -f {name} -t UTF-8"):
            import_exam(tmp_path, "100")
    path.write_bytes(text.encode("utf-16"))
    with pytest.raises(DataError, match="is UTF-16: convert it"):
        import_exam(tmp_path, "100")
    lines = text.splitlines()
    path.write_bytes(b"\n".join(line.encode("cp932" if at == 41 else "utf-8") for at, line in enumerate(lines)))
    with pytest.raises(
        DataError, match=r"line 42: not UTF-8 while other lines are: the file mixes encodings \(.*CP932"
    ):
        import_exam(tmp_path, "100")


def test_broken_lines_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = write_year(tmp_path) / "data.jsonl"
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: len(text) // 2], encoding="utf-8")
    with pytest.raises(DataError, match=r"data\.jsonl line \d+: broken JSON at column \d+"):
        import_exam(tmp_path, "100")
    path.write_text(text.replace("作例1の記述ア", "\\ud800", 1), encoding="utf-8")
    with pytest.raises(DataError, match=r"line 1 \(100001\): `choices` is not as the layout"):
        import_exam(tmp_path, "100")
    write_lines(path, [])
    with pytest.raises(DataError, match="has no lines"):
        import_exam(tmp_path, "100")
    path.write_text("[1]\n")
    with pytest.raises(DataError, match="line 1: not a JSON object"):
        import_exam(tmp_path, "100")
    path.unlink()
    with pytest.raises(DataError, match=r"needs data\.jsonl and metadata\.jsonl or 100\.jsonl"):
        import_exam(tmp_path, "100")
    with pytest.raises(DataError, match="give three digits"):
        import_exam(tmp_path, "../1")


@pytest.fixture
def pictured(tmp_path: Path) -> tuple[Path, Path]:
    """A year and the folder of its pictures."""
    folder = write_year(tmp_path / "year", edit=change("data", 5, choices="IMAGES"))
    return folder, write_pictures(tmp_path / "pictures", [f"100{number:03}" for number in range(5, 346, 5)])


def test_pictures_come_with_their_digest(pictured: tuple[Path, Path], tmp_path: Path) -> None:
    folder, images = pictured
    (images / "100010.png").rename(images / "100010-1.png")
    write_pictures(images, ["100010-2"])
    exam, report = import_exam(folder, "100", images=images)
    assert report.images == 70
    assert exam.items[9].images == ("100010-1.png", "100010-2.png")
    save_exam(exam, tmp_path / "saved", images=images)
    assert load_exam(tmp_path / "saved") == exam
    Image.new("RGB", (8, 8), "black").save(tmp_path / "saved" / "images" / "100005.png")
    with pytest.raises(DataError, match=r"100005\.png \(100005\) has changed since the import"):
        load_exam(tmp_path / "saved")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("100010.png", None, r"lacks the pictures of 1 of 69 items: 100010\.png"),
        ("100010.png", b"<html>404 Not Found</html>", r"100010\.png \(100010\) is not a whole image"),
        ("100010.png", b"", r"100010\.png \(100010\) is not a whole image"),
        ("100010.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, r"100010\.png \(100010\) is not a whole image"),
        ("100010.png", b"GIF", r"is GIF by its content: give it the right ending"),
        ("100011.png", b"PNG", r"belongs to an item without a diagram \(100011, text_only\)"),
        ("100999.png", b"PNG", r"100999\.png belongs to no item"),
        ("notes.txt", b"PNG", r"notes\.txt is not named as a picture"),
    ],
)
def test_bad_pictures_are_refused(pictured: tuple[Path, Path], name: str, content: bytes | None, message: str) -> None:
    folder, images = pictured
    if content is None:
        (images / name).unlink()
    else:
        (images / name).write_bytes(content if len(content) != 3 else sample(images, content.decode()))
    with pytest.raises(DataError, match=message):
        import_exam(folder, "100", images=images)


def test_what_desktops_leave_among_the_pictures_is_left_aside(pictured: tuple[Path, Path]) -> None:
    folder, images = pictured
    without, _ = import_exam(folder, "100", images=images)
    for name in ("._100005.png", "Thumbs.db", "desktop.ini", ".DS_Store"):
        (images / name).write_bytes(b"\0\5\x16\7")
    exam, report = import_exam(folder, "100", images=images)
    assert (exam, report.images) == (without, 69)


def sample(images: Path, kind: str) -> bytes:
    """A whole picture of a kind."""
    path = images.parent / "sample"
    with Image.open(images / "100005.png") as image:
        image.save(path, kind)
    return path.read_bytes()


def test_a_missing_folder_of_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder of images"):
        import_exam(write_year(tmp_path), "100", images=tmp_path / "nowhere")
