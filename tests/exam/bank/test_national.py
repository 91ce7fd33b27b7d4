"""The examination's legal shape, and what a year has of its own: pass rules, mean, options that harm."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.errors import DataError
from tasks.exam.bank.importer import import_exam
from tasks.exam.bank.national import year_facts
from tasks.exam.bank.records import Exam, PassRules
from tasks.exam.scoring.pass_criteria import criteria
from tasks.exam.scoring.score import score
from tasks.store import settings
from tests.exam.paper_samples import exam as small_exam
from tests.exam.paper_samples import item, responses, run
from tests.exam.year_samples import ENVIRONMENT, write_year


@pytest.fixture
def facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the years' facts, in a project of its own."""
    monkeypatch.setenv("PHARMAFED_PROJECT", str(tmp_path))
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    folder = tmp_path / "exams" / "national"
    folder.mkdir(parents=True)
    return folder


def judged(exam: Exam, right: int) -> dict[str, tuple[bool | None, str]]:
    """Each criterion when the first `right` items are right, and its note."""
    verdicts = {one.id: "correct" if one.number <= right else "wrong" for one in exam.items}
    answers = {one.id: ("2",) for one in exam.items}
    found = criteria(exam, verdicts, answers)  # type: ignore[arg-type]
    return {one.name: (one.passed, one.note) for one in found}


def test_a_year_with_its_own_bound(facts: Path, tmp_path: Path) -> None:
    (facts / "109.yaml").write_text("points: 420\nessential_percent: 70\nhuman_mean: 0.6\n")
    exam, report = import_exam(write_year(tmp_path / "109", "109"), "109")
    assert (exam.human_mean, exam.pass_rules) == (0.6, PassRules(points=420, essential_percent=70))
    assert "pass rules: points 420, essential_percent 70" in report.table()
    assert judged(exam, 210)["points"] == (True, "")
    assert judged(exam, 209)["points"] == (False, "")


def test_a_year_without_facts_has_no_verdict(facts: Path, tmp_path: Path) -> None:
    exam, report = import_exam(write_year(tmp_path / "104", "104"), "104")
    assert (exam.human_mean, exam.pass_rules) == (None, PassRules())
    assert "unknown, so there is no verdict: write exams/national/104.yaml" in report.table()
    found = judged(exam, 345)
    assert {name: passed for name, (passed, _) in found.items()} == dict.fromkeys(found)
    assert "exams/national/104.yaml gave no points that pass" in found["points"][1]


def test_the_rules_of_the_107th_are_not_those_of_an_exam_that_has_its_own() -> None:
    items = [item(number) for number in range(1, 11)]
    ours = small_exam(items)
    assert judged(ours, 7)["points"] == (True, ""), "434 of 690 points are 12.6 of 20"
    assert judged(ours, 6)["points"] == (False, "")
    own = ours.model_copy(update={"pass_rules": PassRules(points=10, essential_percent=50)})
    assert judged(own, 5) == {
        "points": (True, ""),
        "essential": (True, ""),
        "contraindicated": (None, "not evaluable: the exam lists no contraindicated options"),
    }
    given = responses(own, {1, 2, 3, 4, 5})
    assert score(own, run(own, given), given).passed


def test_options_that_harm_are_data_of_a_year(facts: Path, tmp_path: Path) -> None:
    (facts / "110.yaml").write_text('points: 426\nmax_contraindicated: 0\ncontraindicated: {"110004": ["2"]}\n')
    exam, _ = import_exam(write_year(tmp_path / "110", "110"), "110")
    assert exam.items[3].contraindicated == ("2",)
    assert judged(exam, 345)["contraindicated"] == (False, "")
    (facts / "110.yaml").write_text('contraindicated: {"110004": ["1"], "110346": ["1"]}\n')
    with pytest.raises(DataError, match="`contraindicated` has 110346, which is no item"):
        import_exam(tmp_path / "110", "110")
    (facts / "110.yaml").write_text('contraindicated: {"110004": ["1"]}\n')
    with pytest.raises(DataError, match="110004: an accepted set with a contraindicated option"):
        import_exam(tmp_path / "110", "110")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("points: 700", "`points` is not as a year's facts have it"),
        ("point: 420", "`point` is not as"),
        ("human_mean: 68.2", "`human_mean` is not as"),
        ("- 420", "`the file` is not as"),
        ("", "`the file` is not as"),
        ("contraindicated: {a: 1}", "`contraindicated.a` is not as"),
        ("points: {", "not readable as YAML"),
    ],
)
def test_bad_facts_are_refused(facts: Path, content: str, says: str) -> None:
    (facts / "107.yaml").write_text(content)
    with pytest.raises(DataError, match=says):
        year_facts("107")


def test_the_facts_that_the_project_has() -> None:
    found = {path.stem: year_facts(path.stem) for path in (settings.PROJECT / "exams" / "national").iterdir()}
    assert {exam: facts.points for exam, facts in found.items()} == {"107": 434, "109": 420, "110": 426}
    assert {exam: facts.human_mean for exam, facts in found.items()} == {"107": 0.682, "109": None, "110": None}


def test_an_examination_of_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"exam 096 had another form, without 345 items"):
        import_exam(write_year(tmp_path, "096"), "096")
