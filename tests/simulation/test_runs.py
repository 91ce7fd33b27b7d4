"""Settings times seeds over the cores: the same figures in the same order, whoever computes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tasks.errors import BudgetExhausted, ConfigError, PrivacyError
from tasks.simulation.baselines import full_score
from tasks.simulation.data import SiteArrays, split_sites
from tasks.simulation.rounds import simulate
from tasks.simulation.runs import RunResult, Setting, changed, run_all, run_many
from tasks.store.settings import PROJECT
from tasks.store.weights import from_bytes, to_bytes
from tasks.study.file import load_study
from tasks.study.sections import Study
from tests.simulation.simulation_samples import FEW, noise, seeded

OPEN: dict[str, Any] = {
    "privacy": {"mechanism": "none", "i_accept_no_privacy": True},
    "channel": "plain",
    "evaluation.score_bins": None,
}
EPOCHS = {"training.batch_size": 8, "training.local_epochs": 1, "training.local_iterations": None}


@pytest.fixture(scope="module")
def few(study: Study) -> Study:
    sites = {site: study.sites[site] for site in FEW}
    return changed(study, {"sites": sites, "rounds.min_sites": 4, "rounds.total": 6})


def untimed(results: list[RunResult]) -> list[RunResult]:
    return [result.model_copy(update={"seconds": 0.0}) for result in results]


def test_a_run_is_a_simulation_with_its_seed(few: Study, arrays: dict[str, SiteArrays]) -> None:
    (found,) = run_many(few, [Setting(name="as it is", rounds=4)], [3], workers=1)
    own = seeded(few, 3)
    patients = split_sites({site: arrays[site] for site in FEW}, own.evaluation)
    made = list(simulate(own, patients, 4, noise=noise(3)))
    assert (found.setting, found.seed, found.rounds) == ("as it is", 3, (1, 2, 3, 4))
    scores = [full_score(own, r.evaluated, patients) for r in made]
    assert {name: list(found.of(name)) for name in scores[0]} == {n: [own[n] for own in scores] for n in scores[0]}
    assert list(found.figures)[:2] == ["auc", "log_loss"]
    assert found.num_bytes == sum(r.num_bytes for r in made) > 4 * 5 * 33 * 8
    assert found.epsilon is not None
    assert 0 < found.epsilon < 3, "4 of 6 rounds"
    assert found.seconds > 0


def test_neither_order_nor_figures_depend_on_the_workers(few: Study) -> None:
    """Errors too: what a worker raises is raised here."""
    settings = [
        Setting(name="long", rounds=6),
        Setting(name="loud", changes={"privacy.epsilon": 1}, rounds=1),
        Setting(name="pool", kind="pooled", rounds=2),
        Setting(name="alone", kind="local", rounds=2),
    ]
    seen: list[tuple[int, int]] = []
    one = run_many(few, settings, [0, 1], workers=1)
    two = run_many(few, settings, [0, 1], workers=2, progress=lambda done, total: seen.append((done, total)))
    assert untimed(one) == untimed(two)
    assert [(r.setting, r.seed) for r in two] == [(s.name, seed) for s in settings for seed in (0, 1)]
    assert seen[-1] == (22, 22)
    assert seen == sorted(seen)
    diverging = Setting(name="too fast", changes=OPEN | {"training.lr": 10.0, "training.l2": 1e30}, rounds=6)
    with pytest.raises(PrivacyError, match="NaN or infinity"):
        run_many(few, [*settings, diverging], [0, 1], workers=2)


def test_baselines_spend_and_upload_nothing(few: Study) -> None:
    made = run_many(few, [Setting(name=kind, kind=kind, rounds=2) for kind in ("pooled", "local")], [0], workers=1)
    assert [(r.setting, r.epsilon, r.num_bytes, len(r.of("auc"))) for r in made] == [
        ("pooled", None, 0, 2),
        ("local", None, 0, 2),
    ]
    assert made[0].of("auc") != made[1].of("auc")


def test_rounds_are_scored_now_and_then_and_always_at_the_end(few: Study) -> None:
    (every,) = run_many(few, [Setting(name="x", rounds=5)], [0], workers=1)
    (second,) = run_many(few, [Setting(name="x", rounds=5)], [0], workers=1, every=2)
    assert second.rounds == (2, 4, 5)
    assert second.of("log_loss") == tuple(every.of("log_loss")[n - 1] for n in (2, 4, 5))
    assert (second.num_bytes, second.epsilon) == (every.num_bytes, every.epsilon)


def test_without_rounds_a_setting_runs_the_studys_total(few: Study) -> None:
    (found,) = run_many(few, [Setting(name="x", changes={"rounds.total": 3})], [0], workers=1)
    assert found.rounds == (1, 2, 3)
    assert found.epsilon == pytest.approx(3, abs=1e-6)


def test_early_stopping_waits_for_the_log_loss(few: Study) -> None:
    """Steps so large that the log-loss gets worse soon."""
    fast = Setting(name="fast", changes=OPEN | EPOCHS | {"training.lr": 2.0}, rounds=30)
    seen: list[tuple[int, int]] = []
    (whole,) = run_all(few, [fast], [0], workers=1)
    (stopped,) = run_all(
        few, [fast], [0], workers=1, patience=3, models_of=0, progress=lambda done, total: seen.append((done, total))
    )
    best = int(np.argmin(whole.result.of("log_loss")[: len(stopped.result.rounds)])) + 1
    assert stopped.result.rounds[-1] == best + 3 < 30
    assert stopped.result.of("log_loss") == whole.result.of("log_loss")[: best + 3]
    assert stopped.result.num_bytes == whole.result.num_bytes * (best + 3) // 30
    assert seen[-1] == (30, 30)
    assert whole.model is None


def test_the_model_is_the_evaluated_one_of_the_seed_that_was_asked_for(
    few: Study, arrays: dict[str, SiteArrays]
) -> None:
    first, second = run_all(few, [Setting(name="x")], [0, 1], workers=2, models_of=1)
    assert first.model is None
    assert second.model is not None
    own = seeded(few, 1)
    patients = split_sites({site: arrays[site] for site in FEW}, own.evaluation)
    *_, last = simulate(own, patients, 6, noise=noise(1))
    assert second.model == to_bytes(last.evaluated) != to_bytes(last.weights)
    assert from_bytes(second.model).keys() == last.weights.keys()


def test_a_budget_that_does_not_pay_for_the_rounds_is_told_before_the_first(few: Study) -> None:
    seen: list[int] = []
    settings = [Setting(name="x", rounds=2), Setting(name="y", rounds=7)]
    with pytest.raises(BudgetExhausted, match="pays for 6 rounds"):
        run_many(few, settings, [0], workers=1, progress=lambda done, _: seen.append(done))
    assert seen == []


@pytest.mark.parametrize(
    ("kind", "patience", "what"),
    [("pooled", None, r"\(pooled\)"), ("local", None, r"\(local\)"), ("federated", 3, "early stopping")],
)
def test_what_pools_patients_is_for_public_data_only(few: Study, kind: Any, patience: int | None, what: str) -> None:
    private = changed(few, {"evaluation.data_are_public": False})
    with pytest.raises(ConfigError, match=what):
        run_all(private, [Setting(name="x", kind=kind, rounds=1)], [0], workers=1, patience=patience)
    (allowed,) = run_all(private, [Setting(name="x", rounds=1)], [0], workers=1)
    assert allowed.result.rounds == (1,)


# changed studies


def test_dotted_keys_change_values_and_sections(study: Study) -> None:
    assert changed(study, {}) == study
    found = changed(study, {"privacy.epsilon": 1, "training.lr": 0.1, "rounds.total": 40})
    assert (found.privacy.epsilon, found.training.lr, found.rounds.total) == (1, 0.1, 40)  # type: ignore[union-attr]
    assert changed(found, {"privacy.epsilon": 3, "training.lr": 0.3, "rounds.total": 20}) == study
    opened = changed(study, OPEN)
    assert (opened.privacy.mechanism, opened.channel.name, opened.evaluation.score_bins) == ("none", "plain", None)


def test_what_several_settings_share_is_not_changed_by_one_of_them(study: Study) -> None:
    training = {"optimizer": "sgd", "lr": 0.1, "local_iterations": 1, "weighting": "plain"}
    changed(study, {**OPEN, "training": training, "training.optimizer_state": "keep"})
    assert "optimizer_state" not in training


def test_a_key_that_the_file_leaves_out_can_be_changed() -> None:
    study = load_study(PROJECT / "studies" / "xanomeline_nocomp24.yaml")
    assert "channel" not in study.model_fields_set
    svt = {"mechanism": "svt", "epsilon": 3, "delta": 1e-5, "fraction": 0.1, "gamma": 0.1, "tau": 0.01}
    found = changed(study, {"privacy": svt, "privacy.shares.query": 4, "model.options.hidden": 3})
    assert found.privacy.shares.query == 4  # type: ignore[union-attr]
    assert found.model.options == {"hidden": 3}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"privacy.epsilonn": 1}, r"privacy\.epsilonn: unknown key"),
        ({"privcy.epsilon": 1}, r"privcy: unknown key"),
        ({"privacy.epsilon": 0}, r"privacy\.epsilon: .*greater than 0"),
        ({"study.name": "x"}, r"study\.name: study is no section"),
        ({"privacy.epsilon.total": 1}, r"privacy\.epsilon\.total: privacy\.epsilon is no section"),
        ({"rounds.min_sites": 14}, r"rounds\.min_sites is 14, but the study has 13 sites"),
        ({"training.seed": 1}, r"training\.seed is set from the seed"),
        ({"evaluation.split_seed": 1}, r"evaluation\.split_seed is set from the seed"),
    ],
)
def test_a_wrong_change_is_named(study: Study, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        changed(study, changes)
