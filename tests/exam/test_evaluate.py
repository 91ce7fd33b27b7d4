"""An evaluation asks, scores and compares with the right earlier run; it reads a baseline before anything is asked."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from tasks.errors import ConfigError, DataError, DriftFound
from tasks.exam import evaluate
from tasks.exam.asking import ask as asking
from tasks.exam.comparing.comparison_records import RunComparison
from tasks.exam.comparing.drift import check_drift
from tasks.exam.evaluate import new_run_id, plan_arms, settings_for
from tasks.exam.runs.run_files import load_run
from tasks.exam.scoring.score_records import Scores
from tasks.store.objects import to_json
from tests.exam.evaluated_runs import ALL, EXAM, MODEL, FakeModel, draw_nothing, save_small_exam


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A deployment's directory, and a project with the small exam whose prompts are our own. Plots are not drawn."""
    save_small_exam(tmp_path)
    draw_nothing(monkeypatch)
    monkeypatch.setattr(evaluate, "data_dir", lambda: tmp_path / "data")
    return tmp_path / "home"


def play(monkeypatch: pytest.MonkeyPatch, *right: frozenset[int]) -> FakeModel:
    """A model that answers these items rightly, one set a run."""
    model = FakeModel(*right)
    monkeypatch.setattr(asking, "ask", model)
    return model


def run_once(home: Path, run_id: str, **changes: object) -> evaluate.Evaluated:
    """One evaluation of the fake model."""
    return evaluate.evaluate("paper", MODEL, "ja", home=home, run_id=run_id, **changes)  # type: ignore[arg-type]


def test_the_first_run_is_scored_and_compared_with_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, ALL - {3})
    found = run_once(home, "r1")
    assert found.folder == home / "exams" / "paper" / "openai--gpt-test" / "ja" / "r1"
    assert (found.correct, found.entered, found.items) == (39, 40, 40)
    assert (found.previous, found.verdict) == (None, None)
    assert Scores.model_validate_json((found.folder / "scores.json").read_bytes()).overall.correct == 39
    assert not (found.folder / "comparison.json").exists()
    assert check_drift(found.folder) == "run r1 is the first of its kind: nothing to compare with"


def test_lost_items_are_drift_and_are_listed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = frozenset(range(11, 21))
    play(monkeypatch, ALL, ALL - lost)
    run_once(home, "r1")
    found = run_once(home, "r2")
    assert (found.previous, found.verdict) == ("r1", "drift")
    comparison = RunComparison.model_validate_json((found.folder / "comparison.json").read_bytes())
    assert {flip.number for flip in comparison.lost} == lost
    with pytest.raises(
        DriftFound,
        match=r"openai/gpt-test on exam paper in ja is worse than in run r1, the run before: 10 items lost and 0",
    ):
        check_drift(found.folder)


def test_a_change_that_chance_may_bring_is_no_drift(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, ALL, ALL - set(range(1, 6)))
    run_once(home, "r1")
    found = run_once(home, "r2")
    assert found.verdict == "no drift"
    assert check_drift(found.folder) == (
        "no drift against run r1, the run before: 5 items lost and 0 gained of 40, p = 0.062; no net change of so few "
        "flips is an alarm at level 0.05"
    )


def test_a_better_model_has_drifted_too(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, ALL - set(range(11, 21)), ALL)
    run_once(home, "r1")
    with pytest.raises(DriftFound, match="is better than in run r1"):
        check_drift(run_once(home, "r2").folder)


def test_drift_is_not_looked_for_where_there_is_no_sound_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing to compare with is only what a finished run says."""
    with pytest.raises(DataError, match=r"run\.json is missing"):
        check_drift(home / "exams" / "paper" / "openai--gpt-test" / "ja" / "r1")
    play(monkeypatch, ALL, ALL)
    run_once(home, "r1")
    folder = run_once(home, "r2").folder
    (folder / "comparison.json").write_text("{}")
    with pytest.raises(DataError, match=r"comparison\.json is no comparison: evaluate the run again"):
        check_drift(folder)


def test_the_last_run_with_equal_settings_counts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not an older one, and not a newer one of fewer items."""
    play(monkeypatch, ALL, ALL - {1}, ALL, ALL)
    for run_id, limit in (("r1", None), ("r2", None), ("r3", 20)):
        run_once(home, run_id, limit=limit)
    assert run_once(home, "r4").previous == "r2"


def test_evaluating_a_run_again_never_compares_it_with_a_later_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, ALL, ALL)
    first = run_once(home, "r1")
    run_once(home, "r2")
    monkeypatch.setattr(asking, "ask", lambda *_, **__: None)
    assert run_once(home, "r1") == first
    assert run_once(home, "r2").previous == "r1"


def test_a_damaged_run_beside_it_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, ALL, ALL)
    edited = run_once(home, "r1").folder / "responses.jsonl"
    edited.write_bytes(edited.read_bytes().replace(b"Answer", b"answer", 1))
    with pytest.raises(DataError, match=r"r1/responses.jsonl has sha256 .* it was changed"):
        run_once(home, "r2")


def _leave_unfinished(
    home: Path, run_id: str, *, days: float = 0, address: str | None = None, **changes: object
) -> Path:
    """As a process leaves it that was killed in the middle."""
    folder = home / "exams" / "paper" / "openai--gpt-test" / "ja" / run_id
    asked = settings_for(EXAM, MODEL, "ja", **changes)  # type: ignore[arg-type]
    folder.mkdir(parents=True)
    started = asking.Started(settings=asked, started_at=datetime.now(UTC) - timedelta(days=days), address=address)
    (folder / "asking.json").write_bytes(to_json(started))
    return folder


def test_the_same_evaluation_again_goes_on_with_its_unfinished_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, ALL, ALL)
    told: list[str] = []
    _leave_unfinished(home, "20260101T000000Z")
    folder = _leave_unfinished(home, "20260201T000000Z")
    other = _leave_unfinished(home, "20260301T000000Z", temperature=0.7)

    found = evaluate.evaluate("paper", MODEL, "ja", home=home, tell=told.append)

    assert found.folder == folder, "the newest with these settings"
    assert re.fullmatch(
        r"goes on with the run that was not finished \(begun on .* UTC, 0 answers are kept\): only what was .*", told[0]
    )
    assert told[1:] == [f"run  {folder}"]
    assert not (other / "run.json").exists()


def test_where_no_run_is_unfinished_a_new_one_begins_and_others_are_told(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, ALL, ALL)
    told: list[str] = []
    other = _leave_unfinished(home, "20260301T000000Z", temperature=0.7, epochs=2)
    damaged = _leave_unfinished(home, "20260401T000000Z")
    (damaged / "asking.json").write_text("{}")
    run_once(home, "20260501T000000Z")

    found = evaluate.evaluate("paper", MODEL, "ja", home=home, tell=told.append)

    assert found.run not in ("20260301T000000Z", "20260401T000000Z", "20260501T000000Z")
    assert told[0].startswith(f"left alone: the unfinished run {other} (begun on ")
    assert told[0].endswith("0 answers are kept), which asks with other temperature, epochs")
    assert told[1:] == [f"run  {found.folder}"]


def test_answers_that_are_old_or_of_another_host_do_not_go_on(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, ALL, ALL)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://b.example:9/v1")
    told: list[str] = []
    old = _leave_unfinished(home, "20250301T000000Z", days=8, address="http://b.example:9")
    other = _leave_unfinished(home, "20250401T000000Z", address="http://a.example:9")

    found = evaluate.evaluate("paper", MODEL, "ja", home=home, tell=told.append)

    assert found.folder not in (old, other)
    assert f"run {other} (" in told[0]
    assert told[0].endswith("which asks with other host")
    assert f"run {old} (begun on {datetime.now(UTC) - timedelta(days=8):%Y-%m-%d}" in told[1]
    assert "too old to go on by itself" in told[1]


def test_answers_of_this_week_and_host_go_on(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, ALL)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://user:secret@b.example:9/v1")
    folder = _leave_unfinished(home, "20250401T000000Z", days=6, address="http://b.example:9")
    assert evaluate.evaluate("paper", MODEL, "ja", home=home).folder == folder


def test_a_run_that_was_answered_but_not_reported_is_finished_and_not_asked_anew(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, ALL, ALL)
    folder = run_once(home, "r1").folder
    for name in ("entry.json", "report.html", "scores.json"):
        (folder / name).unlink()
    left, others = asking.find_unfinished(folder.parent, settings_for(EXAM, MODEL, "ja"))
    assert left is None, "of last winter: its report is no answer to a question of today"
    assert [(one.folder, "finished on 2026-01-01" in one.words) for one in others] == [(folder, True)]
    now = load_run(folder)[0].model_copy(update={"finished_at": datetime.now(UTC)})
    (folder / "run.json").write_bytes(to_json(now))
    model = play(monkeypatch, ALL)
    monkeypatch.setattr(asking, "ask", lambda *_, **__: None)

    assert evaluate.evaluate("paper", MODEL, "ja", home=home).folder == folder
    assert (folder / "report.html").exists()
    assert model.asked == []


def test_a_run_in_a_folder_of_its_own_is_compared_with_the_models_last_one(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, ALL, ALL - set(range(11, 21)))
    run_once(home, "r1")
    (tmp_path / "out" / "beside").mkdir(parents=True)
    (tmp_path / "out" / "beside" / "run.json").write_text("of another program")

    found = evaluate.evaluate("paper", MODEL, "ja", home=home, out=tmp_path / "out" / "mine")

    assert (found.folder, found.history) == (tmp_path / "out" / "mine", None)
    assert (found.previous, found.verdict) == ("r1", "drift")


def test_items_are_left_by_id_or_number_and_others_are_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[tuple[str, ...]] = []
    model = FakeModel(ALL)

    def ask(*arguments: object, leave: tuple[str, ...], **_: object) -> object:
        left.append(leave)
        return model(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(asking, "ask", ask)
    run_once(home, "r1", leave=[EXAM.items[4].id, "7"])
    assert left == [(EXAM.items[4].id, EXAM.items[6].id)]
    with pytest.raises(ConfigError, match=r"exam paper has no item 99, x: name items by id, as p001, or by number"):
        run_once(home, "r2", leave=["1", "99", "x"])
    assert len(left) == 1


def test_prompt_and_pictures_are_settings_of_an_evaluation(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = play(monkeypatch, ALL)
    run_once(home, "r1", prompt="short", images=False)
    assert (model.asked[0].prompt, model.asked[0].images) == ("ja/short", False)


def test_a_baseline_is_compared_with_besides(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, ALL - set(range(1, 11)), ALL, ALL)
    run_once(home, "r1")
    run_once(home, "r2")
    found = run_once(home, "r3", baseline="openai--gpt-test/ja/r1")
    baseline = RunComparison.model_validate_json((found.folder / "baseline.json").read_bytes())
    assert (baseline.a.run, len(baseline.gained), found.previous, found.verdict) == ("r1", 10, "r2", "no drift")


@pytest.mark.parametrize("baseline", ["/etc", "../paper/openai--gpt-test/ja/r1", "openai--gpt-test/ja/../ja/r1"])
def test_a_baseline_that_lies_elsewhere_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch, baseline: str) -> None:
    model = play(monkeypatch, ALL, ALL)
    run_once(home, "r1")
    with pytest.raises(ConfigError, match=r"is not below .*exams/paper: name it <model>/<language>/<run id>"):
        run_once(home, "r2", baseline=baseline)
    assert len(model.asked) == 1


def test_a_wrong_baseline_is_refused_before_anything_is_asked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = play(monkeypatch, ALL)
    with pytest.raises(DataError, match=r"run\.json is missing"):
        run_once(home, "r1", baseline="openai--gpt-test/ja/none")
    assert model.asked == []


def test_arms_are_checked_before_they_are_planned(home: Path) -> None:
    arms = plan_arms("paper", ["a/x", "b/y", "a/x"], ["ja"])
    assert [(arm.model, arm.language) for arm in arms] == [("a/x", "ja"), ("b/y", "ja")]
    for models, languages in (([], ["ja"]), (["a/x"], []), (["a/x"], ["en"])):
        with pytest.raises(ConfigError, match="exam paper is in ja"):
            plan_arms("paper", models, languages)
    with pytest.raises(DataError, match="no exam at"):
        plan_arms("other", ["a/x"], ["ja"])
    for model in ("..", "gpt-4o", "/etc", "a/x y"):
        with pytest.raises(ConfigError, match="is not named <provider>/<model>"):
            plan_arms("paper", [model], ["ja"])
        with pytest.raises(ConfigError, match="is not named <provider>/<model>"):
            settings_for(EXAM, model, "ja")


def test_the_bundled_model_gets_no_pictures() -> None:
    assert settings_for(EXAM, MODEL, "ja").images
    assert not settings_for(EXAM, "pharmafed/smollm2", "ja").images
    assert settings_for(EXAM, "pharmafed/smollm2", "ja", images=True).images


def test_temperature_and_tokens_are_settings_that_have_defaults(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_for(EXAM, "pharmafed/smollm2", "ja").max_tokens == 48
    model = play(monkeypatch, ALL, ALL)
    run_once(home, "r1")
    assert run_once(home, "r2", temperature=0.7, max_tokens=9000).previous is None, "another setting, another history"
    assert [(asked.temperature, asked.max_tokens) for asked in model.asked] == [(0.0, 4096), (0.7, 9000)]


def test_run_ids_are_in_utc() -> None:
    at = datetime(2026, 11, 22, 23, 15, tzinfo=timezone(timedelta(hours=9)))
    assert new_run_id(at) == "20261122T141500Z"
