"""Slow drift: a model that loses a little every month is found against an older run, once, and at the level stated."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.errors import DataError, DriftFound
from tasks.exam import evaluate
from tasks.exam.asking import ask as asking
from tasks.exam.comparing.archive import load_comparison
from tasks.exam.comparing.comparison_records import RunComparison, most_telling
from tasks.exam.comparing.drift import ALPHA, check_drift
from tasks.exam.evaluate import Evaluated
from tasks.exam.page import files as report_files
from tests.exam.evaluated_runs import ALL, FakeModel, save_small_exam

#: Each month the model loses five items more: p = 0.06 against the month before, 0.002 against two months before.
MONTHS = [ALL - set(range(1, 1 + 5 * month)) for month in range(6)]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A deployment's directory, and a project with the small exam. No reports: they have tests of their own."""
    save_small_exam(tmp_path)
    monkeypatch.setattr(evaluate, "data_dir", lambda: tmp_path / "data")
    for name in ("write_report", "write_history"):
        monkeypatch.setattr(report_files, name, lambda *_, **__: None)
    return tmp_path / "home"


def evaluate_months(
    home: Path, monkeypatch: pytest.MonkeyPatch, months: list[frozenset[int]] | None = None
) -> list[Evaluated]:
    """A run a month, r0 to the last."""
    months = months or MONTHS
    monkeypatch.setattr(asking, "ask", FakeModel(*months))
    return [evaluate.evaluate("paper", "a/x", "ja", home=home, run_id=f"r{month}") for month in range(len(months))]


def against(found: Evaluated, name: str) -> RunComparison | None:
    return load_comparison(found.folder / name)


def test_five_items_lost_every_month_are_drift_against_the_anchor(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = evaluate_months(home, monkeypatch)
    assert [one.previous for one in found] == [None, "r0", "r1", "r2", "r3", "r4"]
    assert [one.verdict for one in found] == [None, "no drift", "drift", "no drift", "drift", "no drift"]
    anchors = [one.a.run if (one := against(month, "anchor.json")) else None for month in found]
    assert anchors == [None, None, "r0", None, "r2", None], "an alarm makes its run the anchor, and is raised once"
    assert (found[2].against, found[3].against) == ("r0", "r2")
    with pytest.raises(DriftFound) as alarm:
        check_drift(found[2].folder)
    said = str(alarm.value)
    assert "a/x on exam paper in ja is worse than in run r0, the anchor: 10 items lost and 0 gained of 40" in said
    assert "the run before" not in said, "that comparison raised no alarm"
    assert check_drift(found[1].folder).startswith("no drift against run r0, the run before: 5 items lost")


def test_two_comparisons_share_the_level_and_one_has_it_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six items lost: p = 0.031, an alarm at 5% and none at 2.5%."""
    alone = evaluate_months(home / "a", monkeypatch, [ALL, ALL - set(range(1, 7))])
    assert (alone[1].verdict, alone[1].against) == ("drift", "r0")
    both = evaluate_months(home / "b", monkeypatch, [ALL, ALL, ALL - set(range(1, 7))])
    assert both[2].verdict == "no drift"
    found = [against(both[2], name) for name in ("comparison.json", "anchor.json")]
    assert [one.a.run for one in found if one] == ["r1", "r0"]
    assert sum(one.decision.alpha for one in found if one) == ALPHA
    alpha = (one.decision.alpha for one in (against(alone[1], "comparison.json"),) if one)
    assert list(alpha) == [ALPHA]


def test_both_comparisons_are_told_when_both_raise_an_alarm(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = evaluate_months(home, monkeypatch, [ALL, ALL - {1}, ALL - set(range(1, 15))])
    with pytest.raises(
        DriftFound, match=r"worse than in run r1, the run before: 13 .*; and worse than in run r0, the a"
    ):
        check_drift(found[2].folder)
    first, second = (against(found[2], name) for name in ("comparison.json", "anchor.json"))
    assert most_telling(first, second) is first
    assert most_telling(None, None) is None


def test_the_alarm_says_of_how_many_lost_items_the_reply_is_unreadable(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = evaluate_months(home, monkeypatch, [ALL, ALL - set(range(1, 11))])[1]
    comparison = against(found, "comparison.json")
    assert comparison is not None
    lost = [flip.model_copy(update={"after": "unparsed"}) for flip in comparison.lost[:3]] + [*comparison.lost[3:]]
    changed = comparison.model_copy(update={"lost": tuple(lost)})
    (found.folder / "comparison.json").write_text(changed.model_dump_json())
    with pytest.raises(DriftFound, match=r"10 items lost \(of 3 the new reply is unreadable\) and 0 gained"):
        check_drift(found.folder)


def test_a_run_evaluated_again_finds_the_same(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = evaluate_months(home, monkeypatch)
    monkeypatch.setattr(asking, "ask", lambda *_, **__: None)
    again = [evaluate.evaluate("paper", "a/x", "ja", home=home, run_id=f"r{month}") for month in range(len(found))]
    assert again == found


def test_an_earlier_alarm_that_is_damaged_is_no_steady_history(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = evaluate_months(home, monkeypatch)
    (found[2].folder / "anchor.json").write_text("{}")
    monkeypatch.setattr(asking, "ask", lambda *_, **__: None)
    with pytest.raises(DataError, match=r"r2/anchor\.json is no comparison: evaluate the run again"):
        evaluate.evaluate("paper", "a/x", "ja", home=home, run_id="r4")
