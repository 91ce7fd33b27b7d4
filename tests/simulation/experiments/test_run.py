"""From runs to the numbers of an experiment."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tasks.deploy.commands.experiments import app
from tasks.errors import ConfigError
from tasks.simulation.data import read_sites, split_sites
from tasks.simulation.experiments import files, plan, run
from tasks.simulation.experiments.paired import difference, summarise
from tasks.simulation.experiments.plan import EXPERIMENTS, Experiment
from tasks.simulation.experiments.records import Cohort, Measured
from tasks.simulation.runs import Setting, changed
from tasks.study.sections import Study
from tests.simulation.experiments.made_up import SEEDS, results

#: Few enough to run: three sites, five rounds.
TINY = Experiment(
    name="tiny",
    title="Two settings",
    settings=(
        Setting(name="adam", changes=plan.OPEN, rounds=3),
        Setting(name="pooled", kind="pooled", changes=plan.OPEN, rounds=2),
    ),
    pairs=(("adam", "pooled"),),
    judged_at=3,
    also_at=(1, 2, 3),
)


@pytest.fixture(scope="module")
def few_sites(study: Study) -> Study:
    sites = {name: study.sites[name] for name in ("703", "709", "718")}
    return changed(study, {"sites": sites, "rounds.min_sites": 3})


@pytest.fixture(scope="module")
def tiny(few_sites: Study) -> Measured:
    return run.measure(TINY, few_sites, (0, 1, 2), workers=1)


def test_a_real_run(tiny: Measured) -> None:
    assert [arm.setting.name for arm in tiny.arms] == ["adam", "pooled"]
    adam, pooled = tiny.arms
    assert (adam.judged_at, pooled.judged_at) == (3, 2)
    assert list(adam.auc_by_seed) == [0, 1, 2]
    assert len(set(adam.auc_by_seed.values())) > 1, "every seed has a split of its own"
    assert adam.auc.mean == pytest.approx(np.mean(list(adam.auc_by_seed.values())), abs=1e-5)
    assert adam.auc_curve.mean[-1] == adam.auc.mean
    assert adam.auc_curve.rounds == (1, 2, 3)
    assert (adam.bytes_per_round > 0, pooled.bytes_per_round, adam.epsilon) == (True, 0, None)


def test_pairs_are_compared_at_every_round_asked_for(tiny: Measured) -> None:
    rounds = [(one.arm_round, one.against_round) for one in tiny.comparisons]
    assert rounds == [(3, 2), (1, 1), (2, 2)], "judged first; round 3 has no pair"
    judged = tiny.comparison("adam", "pooled")
    adam, pooled = tiny.arms
    expected = difference(list(adam.auc_by_seed.values()), list(pooled.auc_by_seed.values()))
    assert judged.difference.mean == pytest.approx(expected.mean, abs=1e-5)
    assert judged.difference.standard_error == pytest.approx(expected.standard_error, abs=1e-5)
    assert tiny.difference_curves[0].curve.rounds == (1, 2)


def test_the_command_writes_the_same_numbers_again(
    tiny: Measured, few_sites: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "EXPERIMENTS", {"tiny": TINY})
    monkeypatch.setattr(run, "base_study", lambda: few_sites)
    options = ["--seeds", "3", "--workers", "1", "--out", str(tmp_path)]
    answer = CliRunner().invoke(app, ["run", *options], catch_exceptions=False)
    assert re.fullmatch(r"tiny: \d+ s\n", answer.stdout)
    files.write(tmp_path / "expected.json", tiny)
    assert (tmp_path / "tiny.json").read_bytes() == (tmp_path / "expected.json").read_bytes()
    assert Measured.model_validate_json((tmp_path / "tiny.json").read_bytes()) == tiny
    assert "seconds" not in (tmp_path / "tiny.json").read_text()
    assert CliRunner().invoke(app, ["cohort", "--out", str(tmp_path)]).exit_code == 0
    _check_counts(Cohort.model_validate_json((tmp_path / "cohort.json").read_bytes()), few_sites)
    assert "tiny" in CliRunner().invoke(app, ["list"]).output


def test_a_difference_is_found_with_its_sign(study: Study) -> None:
    one = EXPERIMENTS["weighting"]
    for effect in (0.03, -0.03):
        made = results(one, lambda _, setting, effect=effect: effect * (setting == "samples"))
        found = run.compare_results(one, study, SEEDS, made)
        assert found.comparison("samples", "plain").difference.mean == pytest.approx(effect, abs=0.003)
        assert found.comparison("samples", "plain").verdict == ("better" if effect > 0 else "worse")
        assert found.comparison("iterations", "plain").verdict == "within"


def test_own_best_rounds_are_compared_only_where_asked_for(study: Study) -> None:
    """Other experiments' numbers do not change by it."""
    for name, extra in (("federation", 2), ("restart", 0)):
        one = EXPERIMENTS[name]
        found = run.compare_results(one, study, SEEDS, results(one, lambda *_: 0.0))
        plain = [c for c in found.comparisons if c.arm_round == c.against_round and c.arm_round in (4, 20)]
        assert len(found.comparisons) == len(plain) + extra
        for last in found.comparisons[len(plain) :]:
            rounds = (found.arm(last.arm).best_round, found.arm(last.against).best_round)
            assert (last.arm_round, last.against_round) == rounds
            assert found.is_at_own_best(last)
        assert not any(found.is_at_own_best(one) for one in found.judged())


def test_a_comparison_is_stored_as_ever(study: Study) -> None:
    """Runs that are stored stay valid while the page learns new words."""
    one = EXPERIMENTS["restart"]
    found = run.compare_results(one, study, SEEDS, results(one, lambda *_: 0.0)).model_dump(mode="json")
    assert list(found["comparisons"][0]) == ["arm", "against", "arm_round", "against_round", "difference", "verdict"]
    assert list(found["arms"][0])[-3:] == ["bytes_per_round", "auc_curve", "log_loss_curve"]


def test_curves_are_thinned_where_they_are_long(study: Study) -> None:
    one = EXPERIMENTS["rounds"]
    found = run.compare_results(one, study, SEEDS, results(one, lambda *_: 0.0))
    rounds = found.arm("federated, LR").auc_curve.rounds
    assert rounds[:20] == tuple(range(1, 21))
    assert rounds[-1] == plan.LONGEST
    assert all(n % 10 == 0 for n in rounds[20:])
    assert found.arm("federated, LR").auc == summarise(
        [r.of("auc")[3] for r in results(one, lambda *_: 0.0) if r.setting == "federated, LR"]
    ), "judged after four rounds"


def _check_counts(found: Cohort, study: Study) -> None:
    patients = split_sites(read_sites(study), study.evaluation)
    assert [site.site for site in found.sites] == list(study.sites)
    for site in found.sites:
        own = patients[site.site]
        assert (site.train, site.held_out) == (len(own.train_labels), len(own.held_out_labels))
        assert site.train_events + site.held_out_events == own.train_labels.sum() + own.held_out_labels.sum()
        assert 0 < site.train_events < site.train
    assert found.num_train == sum(len(own.train_labels) for own in patients.values())
    assert found.num_held_out == sum(len(own.held_out_labels) for own in patients.values())


def test_what_is_refused(study: Study, few_sites: Study) -> None:
    with pytest.raises(ConfigError, match="no experiment 'round', only: federation, rounds"):
        run.run("round")
    for seeds in ((0,), (0, 0)):
        with pytest.raises(ConfigError, match="two or more different seeds"):
            run.measure(TINY, few_sites, seeds)
    real = changed(study, {"evaluation.data_are_public": False})
    for forbidden in (lambda: run.measure(TINY, real, (0, 1)), lambda: run.cohort(real)):
        with pytest.raises(ConfigError, match="data_are_public of study xanomeline_derm56 is false"):
            forbidden()


def test_numbers_that_are_missing_or_old_are_named(tmp_path: Path, flat: dict[str, Measured]) -> None:
    with pytest.raises(ConfigError, match=r"no numbers of federation, rounds, .*cohort: pharmafed experiments run"):
        files.read(tmp_path)
    for name in (*EXPERIMENTS, "cohort"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"experiment": name}))
    with pytest.raises(ConfigError, match="of another version"):
        files.read(tmp_path)


def test_names_that_are_not_there(flat: dict[str, Measured]) -> None:
    with pytest.raises(ConfigError, match="has no setting 'kept', only: restart, keep"):
        flat["restart"].arm("kept")
    with pytest.raises(ConfigError, match="does not compare 'keep' with 'restart'"):
        flat["restart"].comparison("keep", "restart")
