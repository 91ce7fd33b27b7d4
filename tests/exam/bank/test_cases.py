"""Items that share a patient, in made-up years: who is told what, who is shown what, and what is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tasks.errors import DataError
from tasks.exam.asking.engine import _sample
from tasks.exam.asking.prompts import load_prompt
from tasks.exam.asking.questions import Patience, Question, make_job
from tasks.exam.bank.import_report import ImportReport
from tasks.exam.bank.importer import import_exam
from tasks.exam.bank.items import load_exam, save_exam
from tasks.exam.bank.records import Exam, ExamItem
from tasks.exam.page.items import items_by_subject
from tasks.exam.page.tables import facts
from tasks.exam.scoring.score import score
from tests.exam.exam_samples import settings
from tests.exam.paper_samples import response, run
from tests.exam.year_samples import write_pictures, write_year

NO_PICTURE = load_prompt("ja/v1")[0].no_picture
Stems = dict[int, str]


def ask(text: str) -> str:
    return f"{text}1つ選べ。"


def year(folder: Path, stems: Stems, **flags: list[int]) -> Path:
    """A year with these stems; items in `drawn` have a diagram, all others none; `swapped` pairs change places."""

    def edit(problems: dict[int, dict[str, Any]], metadata: dict[int, dict[str, Any]]) -> None:
        for number in problems:
            problems[number]["text_only"] = number not in flags.get("drawn", [])
            if number in stems:
                problems[number] |= {"problem_text": ask(stems[number]), "answer": ["1"]}
        for number in flags.get("swapped", []):
            one, other = metadata[number], metadata[number + 1]
            one["category"], other["category"] = other["category"], one["category"]

    return write_year(folder, edit=edit)


def imported(folder: Path, stems: Stems, **flags: list[int]) -> tuple[dict[int, ExamItem], ImportReport, Exam]:
    exam, report = import_exam(year(folder, stems, **flags), "100")
    return {item.number: item for item in exam.items}, report, exam


def told(item: ExamItem) -> str:
    return item.text["ja"].scenario or ""


THREE = {
    133: "庭で倒れた男性の上着から白い粉末Zが見つかった。粉末Zはどれか。",
    134: "法令上、この粉末Zが該当するのはどれか。",
    135: "この男性に投与すべき解毒薬はどれか。",
}


def test_three_items_of_theory_share_a_case(tmp_path: Path) -> None:
    items, report, _ = imported(tmp_path, THREE)
    assert [items[number].case for number in (132, 133, 134, 135, 136)] == [None, *["100133-135"] * 3, None]
    assert told(items[134]) == ask(THREE[133])
    assert told(items[135]) == f"{ask(THREE[133])}\n\n{ask(THREE[134])}"
    assert report.linked_by_text == ("100134", "100135")
    assert report.cases["100133-135"] == 3
    assert "66 cases (65 of 2 items, 1 of 3 items)" in report.table()


FOUR = {
    274: "51歳女性。体重48 kg。薬物Qの点滴を始める。初めに確認するのはどれか。",
    275: "この患者の血中濃度を10 mg/Lに保つ点滴速度はどれか。",
    276: "この患者に前問で求めた速度で点滴する。必要な薬液量はどれか。",
    277: "この患者で薬物Qと併用してはならないのはどれか。",
}


def test_four_items_by_their_words_and_the_options_of_the_question_before(tmp_path: Path) -> None:
    items, report, _ = imported(tmp_path, FOUR)
    assert {items[number].case for number in range(274, 278)} == {"100274-277"}
    assert "1. 作例275の記述アである。" in told(items[276])
    assert "5. 作例275の記述オである。" in told(items[276])
    assert "作例274の記述" not in told(items[276])
    assert "作例276の記述" not in told(items[277])
    assert [ask(FOUR[number]) in told(items[277]) for number in (274, 275, 276)] == [True] * 3
    assert report.linked_by_text == ("100276",)


def test_four_items_by_their_subjects(tmp_path: Path) -> None:
    """Practice and practice, then two others: no word says so, but a pair has one item on practice."""

    def edit(problems: dict[int, Any], metadata: dict[int, Any]) -> None:
        metadata[201]["category"], metadata[202]["category"] = "Practice", metadata[201]["category"]

    exam, report = import_exam(write_year(tmp_path, edit=edit), "100")
    assert {item.case for item in exam.items if 200 <= item.number <= 203} == {"100200-203"}
    assert (report.linked_by_text, report.linked_by_subject) == ((), ("100202",))
    assert "linked by the subjects of two pairs alone: 1 - 100202" in report.table()


def test_four_items_by_an_announcement(tmp_path: Path) -> None:
    items, _, _ = imported(tmp_path, {286: "60歳男性。次の文を読み、問２８６～２８９に答えよ。正しいのはどれか。"})
    assert {items[number].case for number in range(286, 290)} == {"100286-289"}
    assert items[290].case == "100290-291"


def test_a_pair_is_a_pair_without_any_word(tmp_path: Path) -> None:
    items, report, _ = imported(tmp_path, {})
    assert (items[196].case, items[197].case) == ("100196-197", "100196-197")
    assert told(items[197]) == items[196].text["ja"].stem
    assert (report.linked_by_text, report.unlinked) == ((), ())


@pytest.mark.parametrize(
    ("stems", "named"),
    [
        ({1: "この患者に投与する薬物はどれか。"}, "100001"),
        ({150: "酵素の反応速度はどれか。", 151: "この患者に投与する薬物はどれか。"}, "100151"),
        ({330: "45歳女性。頭痛がある。", 332: "この患者に投与する薬物はどれか。"}, "100332"),
        ({198: "この粉末Yの構造はどれか。"}, "100198"),
        ({150: "45歳女性。", 151: "作例。", 152: "この患者に問150で求めた量を投与する。"}, "100152"),
    ],
)
def test_what_refers_back_and_has_no_case_is_named(tmp_path: Path, stems: Stems, named: str) -> None:
    items, report, _ = imported(tmp_path, stems)
    assert report.unlinked == (named,)
    assert not told(items[int(named[3:])])
    assert f"refer back to what they are not told: 1 - {named}" in report.table()


def test_a_second_item_that_its_pair_does_not_tell_is_named(tmp_path: Path) -> None:
    stems = {196: "酵素の反応速度はどれか。", 197: "この患者への対応はどれか。", 199: "問190で求めた値はどれか。"}
    items, report, _ = imported(tmp_path / "a", stems)
    assert report.unlinked == ("100197",), "no case is as long as from 190 to 199: that is another number"
    _, report, _ = imported(tmp_path / "b", stems | {199: "問195で求めた値はどれか。"}, drawn=[196, 198])
    assert report.unlinked == ("100199",), "what the picture of 196 shows is not known"
    assert told(items[197]) == ask(stems[196])


def test_a_correction_decides_what_goes_on(tmp_path: Path) -> None:
    stems = {150: "酵素の反応速度はどれか。", 151: "この患者に投与する薬物はどれか。"} | THREE
    folder = year(tmp_path / "year", stems)
    file = tmp_path / "corrections.yaml"
    file.write_text(
        "- {item: 100151, follows: true, reason: so it stands in the paper}\n"
        "- {item: 100134, follows: false, reason: a question of its own}\n"
        "- {item: 100197, follows: false, reason: the pair was split}\n"
    )
    exam, report = import_exam(folder, "100", corrections=file)
    items = {item.number: item for item in exam.items}
    assert told(items[151]) == ask(stems[150])
    assert (items[133].case, items[196].case, items[197].case) == (None, None, None)
    assert items[135].case is None, "the question before it tells of no man"
    assert report.unlinked == ("100134", "100135")


def test_a_flag_that_the_stem_contradicts_is_named(tmp_path: Path) -> None:
    stems = {
        180: "図は、反応の経時変化である。正しいのはどれか。",
        206: "図は、反応の経時変化である。正しいのはどれか。",
    }
    _, report, _ = imported(tmp_path / "a", stems)
    assert report.unpictured == ("100180", "100206")
    _, report, _ = imported(tmp_path / "b", stems | {207: "図中の化合物はどれか。"}, drawn=[180, 206])
    assert report.unpictured == (), "the picture of 206 may be the one that 207 speaks of"


# pictures


@pytest.fixture
def drawn(tmp_path: Path) -> tuple[Exam, Path]:
    """206 has a prescription that 207 asks about, 208 and 209 one each, 133 a spectrum; saved with its pictures."""
    stems = THREE | {206: "75歳女性。以下の処方箋を持参した。適切なのはどれか。", 207: "処方薬の性質はどれか。"}
    folder = year(tmp_path / "year", stems, drawn=[133, 206, 208, 209])
    pictures = write_pictures(tmp_path / "pictures", ["100133", "100206-1", "100206-2", "100208"])
    Image.new("RGB", (8, 8), "black").save(pictures / "100209.png")
    exam, report = import_exam(folder, "100", images=pictures)
    assert (report.images, report.case_images, report.without_picture) == (5, 4, ())
    save_exam(exam, tmp_path / "saved", images=pictures)
    assert load_exam(tmp_path / "saved") == exam
    return exam, tmp_path / "saved" / "images"


def questions(exam: Exam, images: Path, *, sent: bool) -> dict[str, Question]:
    asked = settings(exam, images=sent, exam=exam.id)
    return {one.item: one for one in make_job(exam, images, asked, 1, Patience()).questions}


def names(paths: tuple[str, ...]) -> list[str]:
    return [Path(path).name for path in paths]


def test_a_picture_goes_with_every_item_of_its_case(drawn: tuple[Exam, Path]) -> None:
    found = questions(*drawn, sent=True)
    assert {item: names(one.case_images) for item, one in found.items() if one.case_images} == {
        "100134": ["100133.png"],
        "100135": ["100133.png"],
        "100207": ["100206-1.png", "100206-2.png"],
        "100209": ["100208.png"],
    }
    assert names(found["100209"].images) == ["100209.png"]
    assert not [one.item for one in found.values() if NO_PICTURE in one.text]


def test_a_picture_stands_where_it_was_told(drawn: tuple[Exam, Path]) -> None:
    content = _sample(questions(*drawn, sent=True)["100209"], "system").input[1].content
    assert isinstance(content, list)
    kinds = [part.type for part in content]
    assert kinds == ["text", "image", "text", "image"]
    assert content[0].text.endswith("作例208の記述のうち、正しいのはどれか。1つ選べ。")
    assert content[2].text.strip().startswith("【問】")
    single = _sample(questions(*drawn, sent=True)["100208"], "system").input[1].content
    assert isinstance(single, list)
    assert [part.type for part in single] == ["text", "image"]


def test_a_run_without_pictures_says_that_one_of_the_case_is_missing(drawn: tuple[Exam, Path]) -> None:
    found = questions(*drawn, sent=False)
    assert [one.item for one in found.values() if NO_PICTURE in one.text] == ["100134", "100135", "100207"]
    assert not {"100133", "100206", "100208", "100209"} & found.keys()
    assert not any(one.case_images or one.images for one in found.values())


def test_an_exam_without_pictures_says_so_too(tmp_path: Path) -> None:
    items, report, exam = imported(tmp_path, {}, drawn=[206])
    assert report.without_picture == ("100206", "100207")
    assert items[207].lacks_a_picture(sent=True)
    found = questions(exam, tmp_path, sent=True)
    assert [one.item for one in found.values() if NO_PICTURE in one.text] == ["100206", "100207"]


UNSOUND: dict[str, tuple[Callable[[ExamItem], dict[str, object]], str]] = {
    "another's picture": (lambda item: {"case_images": ("a.png",)}, "100207 has a picture that no earlier item"),
    "an undigested picture": (lambda item: {"case_images_sha256": ()}, "digests are not as many"),
    "a picture unsaid": (lambda item: {"case_pictured": False}, "pictures of its case and is said to have none"),
    "a case gone": (lambda item: {"case": None}, "100207 has pictures of a case and is of none"),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_pictures_of_a_case_that_contradict_it_are_refused(drawn: tuple[Exam, Path], name: str, tmp_path: Path) -> None:
    change, message = UNSOUND[name]
    exam, images = drawn
    items = tuple(item.model_copy(update=change(item)) if item.number == 207 else item for item in exam.items)
    with pytest.raises(DataError, match=message):
        save_exam(exam.model_copy(update={"items": items}), tmp_path / "again", images=images)


def test_a_report_shows_the_pictures_of_a_case_and_counts_what_was_missing(drawn: tuple[Exam, Path]) -> None:
    exam, images = drawn
    given = [response(item, item.answers[0]) for item in exam.items]
    seeing = run(exam, given, images=True)
    scores = score(exam, seeing, given)
    shown = {
        one.number: one for group in items_by_subject(exam, seeing, given, scores, images).values() for one in group
    }
    assert [len(shown[number].pictures) for number in (206, 207, 208, 209)] == [2, 2, 1, 2]
    assert shown[209].pictures[0] == shown[208].pictures[0] != shown[209].pictures[1]
    assert dict(facts(exam, seeing, scores))["Diagrams"] == "sent as pictures"
    asked = [one for one in given if not exam.items[int(one.item[3:]) - 1].diagram]
    blind = run(exam, asked, images=False)
    told = dict(facts(exam, blind, score(exam, blind, asked)))["Diagrams"]
    assert told == "not sent; 4 items left out for it; 3 items asked without, of the item or of its case, and told so"
