"""The exam's pages: complete in themselves, plain about what they say, and safe whatever a model said."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from tasks.errors import DataError
from tasks.exam.bank.records import ExamRun, Response
from tasks.exam.comparing.compare import compare
from tasks.exam.comparing.comparison_records import RunComparison
from tasks.exam.page import plots
from tasks.exam.page.items import SHOWN
from tasks.exam.page.report import build_exam_report, build_history
from tasks.exam.scoring.score import scored_run
from tasks.exam.scoring.score_records import ScoredRun, Scores
from tests.exam.exam_samples import PNG
from tests.exam.paper_samples import NOW, UNSOLVED, gpt_4_right, gpt_35_right, paper_exam, response, responses, run

PAPER = paper_exam()
RIGHT = gpt_4_right(PAPER)
LOST = sorted(RIGHT - {UNSOLVED})[::7][:20]
NASTY = "</pre><script>alert(1)</script><img src=x onerror=alert(2)> \u202eAB\x00\x1b[31m " + "y" * SHOWN
HREF = re.compile(r'(?:src|href)="([^"]*)"')


def sitting(
    given: Sequence[Response], name: str = "run", days: int = 0, **settings: object
) -> tuple[ExamRun, list[Response], ScoredRun]:
    """A scored run that finished so many days later."""
    made = run(PAPER, given, name, **settings).model_copy(update={"finished_at": NOW + timedelta(days=days)})
    return made, list(given), scored_run(PAPER, made, given)


@pytest.fixture(scope="module", autouse=True)
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pictures of the exam's diagrams are; each is another one by its last byte."""
    Where.images = tmp_path_factory.mktemp("images")
    for one in PAPER.items:
        for name in one.images:
            (Where.images / name).write_bytes(PNG + bytes([one.number % 256]))
    return Where.images


class Where:
    """Set by the fixture, for the helpers below."""

    images: Path


def page_of(
    given: Sequence[Response],
    before: ScoredRun | None = None,
    baseline: ScoredRun | None = None,
    anchor: ScoredRun | None = None,
    **settings: object,
) -> str:
    """The report on these responses, without its plots, which take the longest and are tested apart."""
    made, kept, found = sitting(given, "now", 30, **settings)
    against = [compare(PAPER, one, found, alpha=0.025) if one else None for one in (before, baseline, anchor)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "draw_run", lambda *_: [])
        files = build_exam_report(PAPER, made, kept, found.scores, *against[:2], anchor=against[2], images=Where.images)
        return files["report.html"].decode()


def banners(page: str) -> list[tuple[str, str]]:
    """Tone and title of each."""
    return re.findall(r'<section class="banner (\w+)">\s*<strong>([^<]*)</strong>', page)


@pytest.fixture(scope="module")
def before() -> ScoredRun:
    return sitting(responses(PAPER, RIGHT), "earlier")[2]


def test_a_drift_is_told_at_the_top_and_every_flip_is_listed(before: ScoredRun) -> None:
    page = page_of(responses(PAPER, RIGHT - set(LOST)), before)
    assert banners(page) == [("bad", "Not passed"), ("bad", "Drift: worse")]
    flips = re.findall(r'<tr><td><a href="#item-(\d+)">.*?<span class="tag bad">lost</span>', page)
    assert [int(number) for number in flips] == LOST
    assert "20 lost, 0 gained of 345 items; net −20" in html.unescape(page)


def test_a_change_of_five_items_is_not_called_drift(before: ScoredRun) -> None:
    page = page_of(responses(PAPER, RIGHT - set(LOST[:5])), before)
    assert banners(page)[1] == ("good", "No drift")
    assert page.count('<span class="tag bad">lost</span>') == 5


def test_the_paper_s_figures_are_on_the_page() -> None:
    page = page_of(responses(PAPER, RIGHT))
    assert banners(page) == [("good", "Passed")]
    total = re.search(r'<tr class="total">(.*?)</tr>', page)
    assert total is not None
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", total[1])
    assert cells == ["total", "73/90", "81.1", "81.1", "177/255", "69.4", "69.4", "250/345", "72.5", "72.5"]
    assert "67.5–76.9%" in page
    assert "<b>500</b><small>of 690</small>" in page


def test_the_page_is_complete_and_runs_nothing(before: ScoredRun, images: Path) -> None:
    made, given, found = sitting(responses(PAPER, RIGHT), "now", 30)
    files = build_exam_report(PAPER, made, given, found.scores, compare(PAPER, before, found), images=images)
    assert sorted(files) == ["exam_slices.png", "exam_subjects.png", "report.html"]
    assert all(body.startswith(b"\x89PNG") for name, body in files.items() if name.endswith(".png"))
    page = files["report.html"].decode()
    assert page.count("<svg ") == 2
    assert page.count("human mean") == 2
    assert [url for url in HREF.findall(page) if not url.startswith(("#", "data:image/png;base64,"))] == []
    assert page.count('id="item-') == 345
    assert "<script" not in page
    assert files == build_exam_report(PAPER, made, given, found.scores, compare(PAPER, before, found), images=images)


def test_every_picture_is_on_the_page_beside_its_item(images: Path) -> None:
    page = page_of(responses(PAPER, RIGHT))
    shown = re.findall(r'<img src="data:image/png;base64,([^"]*)" alt="Picture 1 of item (\d+)">', page)
    assert len(shown) == 60
    for content, number in shown:
        assert base64.b64decode(content) == (images / f"{number}.png").read_bytes()


def test_a_picture_that_is_gone_is_named(tmp_path: Path) -> None:
    made, given, found = sitting(responses(PAPER, RIGHT), "now", 30)
    with pytest.raises(DataError, match=r"picture .*1\.png of item p001 is missing"):
        build_exam_report(PAPER, made, given, found.scores, None, images=tmp_path)


def test_a_baseline_is_told_besides(before: ScoredRun) -> None:
    other = sitting(responses(PAPER, gpt_35_right(PAPER)), "other", 0, model="openai/<b>old</b>\u202e")[2]
    page = page_of(responses(PAPER, RIGHT), before, other)
    assert "Against earlier, the run before: 0 lost" in page
    assert [title for _, title in banners(page)] == ["Passed", "No drift", "Difference: better"]
    assert "Against other of openai/&lt;b&gt;old&lt;/b&gt;\ufffd in ja, the baseline:" in page
    assert "\u202e" not in page
    assert page.count("<h2>Against run") == 2
    assert page.count('<span class="tag bad">lost</span>') == len(gpt_35_right(PAPER) - RIGHT)
    assert page_of(responses(PAPER, RIGHT), before, before).count("<h2>Against run") == 1, "the same run, told once"


def test_slow_drift_is_told_with_the_run_that_it_shows_against(before: ScoredRun) -> None:
    middle = sitting(responses(PAPER, RIGHT - set(LOST[:5])), "middle")[2]
    given = responses(PAPER, RIGHT - set(LOST[:10]))
    page = html.unescape(page_of(given, middle, None, before))
    assert [title for _, title in banners(page)] == ["Passed", "No drift", "Drift: worse"]
    assert "Against middle, the run before: 5 lost" in page
    assert "Against earlier, the anchor of slow drift: 10 lost" in page
    assert "at level 0.025 per comparison" in page
    assert "2.5% per comparison, at most 5% for the run" in page
    assert "twelve runs at 5% raise a false alarm with a probability of up to 46%" in page
    assert page.count("<h2>Against run") == 2
    alone = page_of(given, before, None, before)
    assert alone.count("<h2>Against run") == 1, "the same run, told once"
    assert "Alarm level" not in page_of(given)


def test_lost_items_without_a_readable_reply_are_counted_in_the_alarm(before: ScoredRun) -> None:
    """An alarm may be of the form of the replies and not of what the model knows: the reader must see which."""
    given = [
        one.model_copy(update={"raw": "?"}) if int(one.item[1:]) in LOST else one for one in responses(PAPER, RIGHT)
    ]
    page = page_of(given, before)
    assert ("bad", "Drift: worse") in banners(page)
    assert "Of 20 of the lost items the new reply is unreadable" in page
    assert "new reply is unreadable" not in page_of(responses(PAPER, RIGHT - set(LOST)), before)


def test_replies_that_were_cut_off_are_told_apart_from_unreadable_ones() -> None:
    given = responses(PAPER, RIGHT)
    given[3] = given[3].model_copy(update={"stop_reason": "max_tokens"})
    page = html.unescape(page_of(given))
    assert "<b>0</b><small>of 345 entered; 1 more cut off</small>" in page
    assert "items 4: the limit of tokens ended the reply, so it counts as no answer; raise max_tokens" in page
    assert '<span class="tag warn">cut off</span>' in page
    assert "Unparsed replies: 0" in page


def test_what_a_model_says_stays_text(before: ScoredRun) -> None:
    given = responses(PAPER, RIGHT)
    given[0] = response(PAPER.items[0], None, raw=NASTY, model="<b>gpt</b>\u202e")
    given[1] = response(PAPER.items[1], None, raw="")
    page = page_of(given, before, model="openai/<i>x</i>")
    assert not re.search(r'<(script|img (?!src="data:)|b>gpt|i>x)', page)
    assert not re.search("[\x00\x1b\u202e]", page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "more characters in responses.jsonl]" in page
    assert page.count("y" * (SHOWN // 2)) == 1
    assert "Unparsed replies: 2" in page
    assert "answered by gpt-test-1, then by &lt;b&gt;gpt&lt;/b&gt;\ufffd" in page
    assert "(an empty reply)" in page


def test_a_model_that_guesses_is_called_weak() -> None:
    guessed = {one.number for one in PAPER.items[::7]}
    assert ("warn", "Near guessing") in banners(page_of(responses(PAPER, guessed)))
    assert ("warn", "Near guessing") not in banners(page_of(responses(PAPER, gpt_35_right(PAPER))))


def test_without_every_response_there_is_no_verdict() -> None:
    page = page_of(responses(PAPER, RIGHT)[:40], limit=40)
    assert banners(page)[0] == ("warn", "No pass verdict")
    assert "305 items have no complete response" in page
    criteria = page.split("Pass criteria")[1].split("</table>")[0]
    assert ">open</span>" in criteria
    assert ">not met</span>" not in criteria, "responses that are missing can still meet it"


def test_diagrams_that_were_not_shown_are_told_beside_the_verdict() -> None:
    page = page_of(responses(PAPER, RIGHT, diagrams=False), images=False)
    assert banners(page)[0] == ("good", "Passed")
    assert "456 of 690 points, with 60 diagrams left blank" in page
    assert page.count(">Not asked.<") == 61


def test_a_cost_that_is_not_known_is_not_nothing() -> None:
    given = responses(PAPER, RIGHT)
    given[3] = given[3].model_copy(update={"cost": None})
    assert "<span>Cost</span><b>unknown</b>" in page_of(given)
    assert "<span>Cost</span><b>$0.34</b>" in page_of(responses(PAPER, RIGHT))


def test_epochs_are_shown_each(before: ScoredRun) -> None:
    given = [one for epoch in (1, 2) for one in responses(PAPER, RIGHT, epoch=epoch)]
    given.sort(key=lambda one: (one.item, one.epoch))
    given[0] = response(PAPER.items[0], None, raw="(nothing")
    page = page_of(given, epochs=2)
    assert re.search(r'href="#item-1">1</a></td><td><bdi>\(nothing</bdi>', page)
    assert "<h2>Epochs</h2>" in page
    assert page.count("Epoch 2, gpt-test-1") == 344
    assert "<h2>Epochs</h2>" not in page_of(responses(PAPER, RIGHT))


def test_scores_or_a_comparison_of_another_run_are_refused(before: ScoredRun, images: Path) -> None:
    made, given, found = sitting(responses(PAPER, RIGHT), "now", 30)
    with pytest.raises(DataError, match="scores of run earlier are not of run now"):
        build_exam_report(PAPER, made, given, before.scores, None, images=images)
    with pytest.raises(DataError, match="comparison is of run earlier"):
        build_exam_report(PAPER, made, given, found.scores, compare(PAPER, found, before), images=images)
    with pytest.raises(DataError, match="comparison is of run earlier"):
        build_exam_report(PAPER, made, given, found.scores, None, compare(PAPER, found, before), images=images)
    with pytest.raises(DataError, match="replies are not those that run now is sealed with"):
        build_exam_report(PAPER, made, given[1:], found.scores, None, images=images)


def history() -> list[tuple[ExamRun, Scores, RunComparison | None]]:
    """Three runs a month apart; the last one has drifted."""
    entries: list[tuple[ExamRun, Scores, RunComparison | None]] = []
    last: ScoredRun | None = None
    for month, right in enumerate((RIGHT, RIGHT, RIGHT - set(LOST))):
        made, _, found = sitting(responses(PAPER, right), f"run-{month}", 30 * month)
        entries.append((made, found.scores, compare(PAPER, last, found) if last else None))
        last = found
    return entries


def test_the_history_marks_the_drift() -> None:
    entries = history()
    files = build_history(PAPER, "openai/gpt-test", [entries[2], entries[0], entries[1]])
    page = files["history.html"].decode()
    assert re.findall(r'<span class="tag \w+">(no drift|drift: worse)</span>', page) == ["drift: worse", "no drift"]
    assert [url for url in HREF.findall(page) if not url.startswith("#")] == [
        f"ja/run-{month}/report.html" for month in (2, 1, 0)
    ]
    assert page.count("changed</text>") == 1
    calm = build_history(PAPER, "openai/gpt-test", entries[:2], left_out=3)
    assert b"changed</text>" not in calm["history.html"]
    assert b"2 runs; 3 of another edition of the exam left out" in calm["history.html"]
    assert files["exam_history.png"].startswith(b"\x89PNG")
    assert files["exam_history.png"] != calm["exam_history.png"]
    assert files == build_history(PAPER, "openai/gpt-test", entries)


def test_a_history_of_one_run_is_drawn_and_of_none_or_another_model_refused() -> None:
    entries = history()[:1]
    assert b"nothing to compare with" in build_history(PAPER, "openai/gpt-test", entries)["history.html"]
    with pytest.raises(DataError, match="no run of exam paper yet"):
        build_history(PAPER, "openai/gpt-test", [])
    with pytest.raises(DataError, match="not of openai/other"):
        build_history(PAPER, "openai/other", entries)


def test_the_history_has_a_range_of_points_where_responses_are_missing() -> None:
    made, _, found = sitting(responses(PAPER, RIGHT)[:40], limit=40)
    page = build_history(PAPER, "openai/gpt-test", [(made, found.scores, None)])["history.html"].decode()
    assert f"{found.scores.points} to {found.scores.most[1]} of 690" in page
