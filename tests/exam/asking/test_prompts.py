"""What a model is sent: the words, the labels, the scenario, and the refusals before a call is paid for."""

from __future__ import annotations

import pytest
import yaml

from tasks.errors import ConfigError, DataError
from tasks.exam.asking.prompts import load_prompt, user_text
from tasks.exam.asking.questions import Patience, items_to_ask, make_job, repeats_previous
from tasks.exam.bank.records import ItemText
from tasks.store import settings as project
from tests.exam.exam_samples import exam, item, settings, sha256, write_picture

JA, EN = load_prompt("ja/v1")[0], load_prompt("en/v1")[0]


@pytest.mark.parametrize(("language", "last"), [("ja", "「答え: n」"), ("en", '"Answer: n"')])
def test_one_answer_is_asked_for_on_the_last_line(language, last):
    prompt = {"ja": JA, "en": EN}[language]

    lines = user_text(prompt, item(7), language, picture=False).splitlines()

    assert last in lines[-1]
    assert "item-7;" in lines[0]
    assert [line for line in lines if line.startswith(("1. ", "5. "))] == (
        ["1. 甲", "5. 戊"] if language == "ja" else ["1. a", "5. e"]
    )


def test_two_answers_are_asked_for_with_their_form():
    text = user_text(JA, item(1, n_select=2, answers=(("1", "3"),)), "ja", picture=False)

    assert "2つ選べ" in text.splitlines()[-1]
    assert "「答え: 2, 5」" in text.splitlines()[-1]
    assert "答え: 1, 3" not in text, "the example is never the key"


def test_numeric_options_go_by_the_items_letters():
    numbers = item(
        1,
        labels=("A", "B", "C", "D", "E"),
        n_select=2,
        text={"ja": ItemText(stem="pHはどれか。", choices=("1", "2", "7", "12", "13"))},
    )

    lines = user_text(JA, numbers, "ja", picture=False).splitlines()

    assert "D. 12" in lines
    assert "「答え: B, E」" in lines[-1]
    assert "A, B, C, D, E" in lines[-1]


def test_a_linked_item_brings_its_scenario_first():
    linked = item(2, case="c1", text={"ja": ItemText(stem="問2", choices=tuple("甲乙丙丁戊"), scenario="68歳男性。")})

    text = user_text(JA, linked, "ja", picture=False)

    assert text.index("68歳男性。") < text.index("問2")
    assert "68歳男性。" not in user_text(JA, item(1), "ja", picture=False)


def test_the_question_before_is_told_as_such_and_without_its_options(tmp_path):
    """An imported pair: only the first item tells the case, in its stem, and asks something of its own."""
    stem = "68歳男性。処方の調製で適切なのはどれか。2つ選べ。"
    first = item(1, case="c", text={"ja": ItemText(stem=stem, choices=tuple("甲乙丙丁戊"))})
    second = item(
        2, case="c", text={"ja": ItemText(stem="前問の機構はどれか。", choices=tuple("かきくけこ"), scenario=stem)}
    )
    own = [
        item(n, case="d", text={"ja": ItemText(stem=f"問{n}", choices=tuple("甲乙丙丁戊"), scenario=stem)})
        for n in (3, 4)
    ]
    of = exam([first, second, *own])

    texts = [question.text for question in make_job(of, tmp_path, settings(of), 1, Patience()).questions]

    assert [repeats_previous(of, one, "ja") for one in of.items] == [False, True, False, False]
    assert [text.count(stem) for text in texts] == [1, 1, 1, 1]
    assert ["【前問" in text for text in texts] == [False, True, False, False]
    assert ["【共通の情報】" in text for text in texts] == [False, False, True, True]
    assert texts[1].index(stem) < texts[1].index("【問】") < texts[1].index("前問の機構") < texts[1].index("1. か")
    assert "甲" not in texts[1]
    assert texts[1].splitlines()[-1].startswith("選択肢（1, 2, 3, 4, 5）から1つ選べ")
    assert EN.previous.count("{text}") == 1


def test_braces_of_formulas_are_left_alone():
    formula = item(1, text={"ja": ItemText(stem="[OH^{-}] {stem} {0}", choices=tuple("甲乙丙丁戊"))})

    assert "[OH^{-}] {stem} {0}" in user_text(JA, formula, "ja", picture=False)


def test_options_in_the_picture_are_named_and_a_missing_picture_is_said():
    drawn = item(1, diagram=True, images=("f.png",), text={"ja": ItemText(stem="構造はどれか。", choices=())})

    shown = user_text(JA, drawn, "ja", picture=True)
    hidden = user_text(JA, drawn, "ja", picture=False)

    assert "選択肢は図に示されている（1, 2, 3, 4, 5）" in shown
    assert JA.no_picture not in shown
    assert JA.no_picture in hidden


def test_the_prompts_digest_is_its_files():
    assert load_prompt("ja/v1")[1] == sha256((project.PROJECT / "exams/prompts/ja/v1.yaml").read_bytes())


def test_an_unknown_prompt_names_those_that_exist():
    with pytest.raises(ConfigError, match=r"no prompt 'ja/v9'.*en/v1, .*ja/v1"):
        load_prompt("ja/v9")


@pytest.mark.parametrize(
    ("old", "new"), [("{stem}", ""), ("{stem}", "{stem} {sten}"), ("system:", "systm:"), ("item: |-", "item: [")]
)
def test_a_broken_prompt_is_refused_when_it_is_read(tmp_path, monkeypatch, old, new):
    good = (project.PROJECT / "exams/prompts/ja/v1.yaml").read_text()
    path = tmp_path / "exams/prompts/ja/v1.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(good.replace(old, new))
    monkeypatch.setenv("PHARMAFED_PROJECT", str(tmp_path))

    with pytest.raises(ConfigError, match=r"v1\.yaml( does not hold a prompt|:\d+: not readable as YAML)"):
        load_prompt("ja/v1")


def test_items_without_a_solution_are_never_asked():
    items = [item(3), item(1), item(2, no_solution=True, answers=())]

    of = exam(items)

    assert [asked.number for asked in items_to_ask(of, settings(of))] == [1, 3]
    assert [asked.number for asked in items_to_ask(of, settings(of, limit=2))] == [1]


def test_a_text_only_run_leaves_diagrams_out_and_one_with_pictures_does_not(tmp_path):
    picture = (write_picture(tmp_path),)
    of = exam([item(1), item(2, diagram=True, images=picture), item(3, diagram=True), item(4)])

    text_only, seeing = settings(of), settings(of, images=True)

    assert [one.number for one in items_to_ask(of, text_only)] == [1, 4]
    assert [one.number for one in items_to_ask(of, settings(of, limit=2))] == [1], "the limit cuts first"
    questions = make_job(of, tmp_path, seeing, 1, Patience()).questions
    assert [question.images for question in questions] == [(), (str(tmp_path / picture[0]),), (), ()]
    assert [JA.no_picture in question.text for question in questions] == [False, False, True, False]
    assert JA.no_picture not in str(make_job(of, tmp_path, text_only, 1, Patience()).questions)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.png", None, r"gone\.png of item t001 is missing"),
        ("text.png", b"<html>not found", r"text\.png of item t001 is not a PNG"),
        ("empty.png", b"", r"empty\.png of item t001 is not a PNG"),
        ("../outside.png", b"\x89PNG\r\n\x1a\n", "is not in"),
    ],
)
def test_a_picture_that_is_none_is_refused(tmp_path, name, content, message):
    folder = tmp_path / "images"
    folder.mkdir()
    if content is not None:
        (folder / name).write_bytes(content)
    pictured = item(1, diagram=True, images=("a.png",)).model_copy(update={"images": (name,)})
    of = exam([pictured])  # a record that was read cannot name a file outside: here it is made

    with pytest.raises(DataError, match=message):
        make_job(of, folder, settings(of, images=True), 1, Patience())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exam_digest": "0" * 64}, "exam test has digest"),
        ({"prompt_digest": "0" * 64}, "prompt ja/v1 has digest"),
    ],
)
def test_a_job_is_only_made_of_what_the_settings_pin(tmp_path, changes, message):
    of = exam([item(1)])

    with pytest.raises(ConfigError, match=message):
        make_job(of, tmp_path, settings(of, **changes), 1, Patience())


def test_an_item_without_the_language_is_refused(tmp_path):
    of = exam([item(1, text={"ja": ItemText(stem="s", choices=tuple("甲乙丙丁戊"))})])

    with pytest.raises(ConfigError, match="item t001 of exam test has no text in 'en'"):
        make_job(of, tmp_path, settings(of, language="en", prompt="en/v1"), 1, Patience())


def test_a_run_without_a_question_is_refused(tmp_path):
    of = exam([item(1, no_solution=True, answers=()), item(2)])

    with pytest.raises(ConfigError, match="exam test with limit 1, pictures not sent, has nothing to ask"):
        make_job(of, tmp_path, settings(of, limit=1), 1, Patience())


@pytest.mark.parametrize("field", ["{text:>9999999999}", "{text!r}", "{text.__class__}", "{text[0]}", "{text} {other}"])
def test_a_template_has_plain_placeholders(field, tmp_path, monkeypatch):
    monkeypatch.setenv("PHARMAFED_PROJECT", str(tmp_path))
    path = tmp_path / "exams/prompts/en/v1.yaml"
    path.parent.mkdir(parents=True)
    content = EN.model_dump()
    path.write_text(yaml.safe_dump(content))
    assert load_prompt("en/v1")[0] == EN
    path.write_text(yaml.safe_dump(content | {"scenario": field}))
    with pytest.raises(ConfigError, match=r"placeholders must be \{text\}"):
        load_prompt("en/v1")
