"""The page says what the numbers say, whatever they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tasks.deploy.commands.experiments import app
from tasks.simulation.experiments import files, findings, metrics, run
from tasks.simulation.experiments.claims import CLAIMS, claim_word, verdict_words
from tasks.simulation.experiments.drawing import Picture
from tasks.simulation.experiments.plan import EXPERIMENTS
from tasks.simulation.experiments.records import Measured
from tasks.simulation.runs import RunResult
from tasks.study.sections import Study
from tests.simulation.experiments.made_up import SEEDS, cohort, numbers, results

FIGURES = ("patients", "rounds", "difference", "fraction", "choices", "epsilon", "svt-fraction", "membership")
PICTURES = [Picture(f"findings-{name}", f"Caption of {name}.", "a <b>", {}) for name in FIGURES]
#: claim -> (experiment, does a setting belong to the side that the claim speaks of).
SIDES = {
    "Federated training does as well as centralised training": ("federation", lambda s: s.startswith("federated")),
    "Federated training does better than each client alone": ("rounds", lambda s: s.startswith("federated")),
    "Sharing 40% is as good as sharing all": ("fraction", lambda s: s == "top 40%"),
    "Restarting the optimizer helps": ("restart", lambda s: s == "restart"),
    "Weighting by local iterations helps": ("weighting", lambda s: s == "iterations"),
    "Unequal local work does no harm": ("local_work", lambda s: s == "one epoch"),
    "Privacy costs accuracy": ("privacy", lambda s: "ε" in s),
    "At equal ε, fewer shared is better": ("fraction_at_epsilon", lambda s: s.startswith("10%")),
}
#: Numbers of every case, made once.
_MADE: dict[str, dict[str, Measured]] = {}
EXPECTED = {
    "no worse": {"up": "supported", "down": "contradicted", "none": "supported", "noise": "undecided"},
    "higher": {"up": "supported", "down": "contradicted", "none": "not supported", "noise": "undecided"},
    "lower": {"up": "contradicted", "down": "supported", "none": "not supported", "noise": "undecided"},
}
EFFECTS = {"up": 0.04, "down": -0.04, "none": 0.0, "noise": 0.0}


def made(study: Study, case: str) -> dict[str, Measured]:
    """Numbers in which every claim's side is better, worse, alike, or lost in noise."""

    def effect(experiment: str, setting: str) -> float:
        belongs = next(side for name, side in SIDES.values() if name == experiment)
        return EFFECTS[case] * belongs(setting)

    if case not in _MADE:
        _MADE[case] = numbers(study, effect, jitter=0.05 if case == "noise" else 0.002)
    return _MADE[case]


def turn(result: RunResult, best: int) -> RunResult:
    """The same with log-loss that falls until round `best` and then rises."""
    return result.model_copy(
        update={"figures": result.figures | {"log_loss": tuple(0.6 + 0.01 * abs(n - best) for n in result.rounds)}}
    )


def section(page: str, title: str) -> str:
    return page.split(f"## {title}\n")[1].split("\n## ")[0]


def test_every_claim_has_a_made_up_side() -> None:
    assert [claim.title for claim in CLAIMS] == list(SIDES)


@pytest.mark.parametrize("case", ["up", "down", "none"])
def test_verdicts_follow_the_numbers(study: Study, case: str) -> None:
    page = findings.page(made(study, case), cohort(), PICTURES)
    checked = 0
    for claim in CLAIMS:
        expected = EXPECTED[claim.direction][case]
        assert f"**Verdict: {expected}.**" in section(page, claim.title), claim.title
        assert re.search(rf"\| {re.escape(claim.title)} \| .* \| \*\*{expected}\*\* \|", page)
        checked += 1
    assert checked == 8
    words = {"up": "| better |", "down": "| worse |", "none": "| within ±0.01 |"}
    for own, word in words.items():
        assert (word in section(page, "Restarting the optimizer helps")) == (own == case)


def test_noise_decides_nothing(study: Study) -> None:
    """Zero is in an interval with probability .95: the claims of one comparison, and most of the grid."""
    found = made(study, "noise")
    page = findings.page(found, cohort(), PICTURES)
    undecided = [c.title for c in CLAIMS if "**Verdict: undecided.**" in section(page, c.title)]
    assert len(undecided) >= 4
    assert "no difference is shown, and better or worse by more than 0.01 is not ruled out" in page


def test_mixed_verdicts_are_counted(study: Study) -> None:
    found = numbers(study, lambda e, s: -0.04 * (e == "privacy" and s.endswith("ε 1")))
    claim = next(c for c in CLAIMS if c.experiment == "privacy")
    page = findings.page(found, cohort(), PICTURES)
    assert "**Verdict: mixed: not supported 12 of 16, supported 4 of 16.**" in section(page, claim.title)


def test_the_page_shows_the_numbers(study: Study) -> None:
    found = made(study, "down")
    page = findings.page(found, cohort(), PICTURES)
    for claim in CLAIMS:
        for pair in claim.pairs:
            one = found[claim.experiment].comparison(*pair).difference
            row = f"| {pair[0]} | {pair[1]} |"
            lines = [line for line in section(page, claim.title).splitlines() if line.startswith(row)]
            assert f"{one.mean:+.4f}".replace("-", "−") in lines[0]
            assert "| 20 |" in lines[0]
    assert "| a membership test, at most | 0.575 | 0.694 | 0.881 | > 0.999 |" in page
    assert "20 seeds" in page
    assert "33 patients to train on and 9 held out" in page.replace("\n", " ")


def test_ranking_and_probabilities_under_privacy_are_told_apart(study: Study) -> None:
    """In these numbers log-loss is one minus AUC, so what AUC loses log-loss gains, seed by seed."""
    found = numbers(study, lambda e, s: -0.04 * ("ε" in s))["privacy"]
    none = found.arm("none")
    text = findings._by_epsilon(found)
    ranking, sureness, lowest = re.split(
        r"^\| (?:log-loss|lowest log-loss, chosen on held-out data) \|", text, flags=re.M
    )[-3:]
    for name in ("distributed_dp", "svt"):
        arms = [found.arm(f"{name}, ε {e}") for e in (1, 3, 8, 50)]
        assert row(name, [f"{arm.auc.mean:.3f} ± {arm.auc.standard_error:.3f}" for arm in arms]) in ranking
        shown = []
        for arm in arms:
            less = found.comparison(arm.setting.name, "none").difference
            around = f"{-less.mean:+.3f}, {-less.high:+.3f} to {-less.low:+.3f}"
            shown.append(f"{1 - arm.auc.mean:.3f} ({around})".replace("-", "−"))
        assert row(name, shown) in sureness
        cells = [f"{min(arm.log_loss_curve.mean):.3f}, round {findings._best_round(arm)}" for arm in arms]
        assert row(name, cells) in lowest
    assert f"Without privacy: {1 - none.auc.mean:.3f} ± {none.auc.standard_error:.3f}." in text
    assert "above zero is worse, as 16 of 16 are wholly." in text
    assert f"without privacy: {min(none.log_loss_curve.mean):.3f}, round {none.best_round}" in text
    assert found.arm("svt, ε 1").log_loss_minus(none).mean == pytest.approx(0.04, abs=0.01)


def row(mechanism: str, cells: list[str]) -> str:
    return f"| `{mechanism}` | {' | '.join(cells)} |"


def test_a_difference_needs_the_same_seeds(study: Study) -> None:
    arm = made(study, "none")["privacy"].arm("none")
    with pytest.raises(ValueError, match="other seeds"):
        arm.log_loss_minus(arm.model_copy(update={"log_loss_by_seed": {7: 0.5, 8: 0.6}}))


def test_settings_that_learn_nothing_are_said_to(study: Study) -> None:
    dead = numbers(study, lambda e, s: -0.1 * (e == "fraction_at_epsilon" and ", ε 8," in s))
    page = section(findings.page(dead, cohort(), PICTURES), "At equal ε, fewer shared is better")
    assert "10 of 20 (10%, ε 50, 20 rounds; 20%, ε 50, 20 rounds;" in page
    nothing = numbers(study, lambda e, s: -0.1)
    assert "0 of 20 (none)" in findings.page(nothing, cohort(), PICTURES)


def test_settings_that_learn_nothing_decide_nothing(study: Study) -> None:
    """10% is better than all, from .42 to .46 at ε 8, which is no merit, and from .6 to .64 at ε 50, which is one."""

    def effect(experiment: str, setting: str) -> float:
        return 0.04 * setting.startswith("10%") - 0.18 * (experiment == "fraction_at_epsilon" and ", ε 8," in setting)

    page = section(findings.page(numbers(study, effect), cohort(), PICTURES), "At equal ε, fewer shared is better")
    assert "**Verdict: mixed: undecided 2 of 4, supported 2 of 4.**" in page
    rows = [line for line in page.splitlines() if line.startswith("| 10%, ") and "| 20 |" in line]
    ends = {row.split(" | ")[0].removeprefix("| "): row.split(" | ")[-1].removesuffix(" |") for row in rows}
    assert {name: "neither has learnt" if ", ε 8," in name else "better" for name in ends} == ends
    assert len(ends) == 4


def test_one_side_that_has_learnt_is_enough(study: Study) -> None:
    found = numbers(study, lambda e, s: -0.18 * (e == "restart" and s == "keep"))
    page = section(findings.page(found, cohort(), PICTURES), "Restarting the optimizer helps")
    assert "**Verdict: supported.**" in page
    assert "neither has learnt" not in page
    both = numbers(study, lambda e, s: -0.18 - 0.04 * (s == "keep") if e == "restart" else 0.0)
    assert "Claim undecided." in section(findings.page(both, cohort(), PICTURES), "Restarting the optimizer helps")


def test_the_legend_has_the_words_of_the_tables(study: Study) -> None:
    page = findings.page(made(study, "noise"), cohort(), PICTURES)
    method = section(page, "How it was measured")
    rows = method.split("| verdict on a difference |")[1].split("\n\n")[0].splitlines()
    legend = " ".join(row.split(" | ")[-1] for row in rows)
    shown = set()
    for case in ("up", "down", "none", "noise"):
        found = made(study, case)
        shown |= {verdict_words(one, each) for each in found.values() for one in each.comparisons}
    assert {"within ±0.01", "better", "worse", "no evidence of a difference"} <= shown
    assert [words for words in (*shown, "neither has learnt") if words not in legend] == []


def test_the_headline_says_how_wide_the_interval_is_for_new_patients(flat: dict[str, Measured]) -> None:
    """33 trained on and 9 held out, 20 seeds: the root of 1 + 20 * 9 / 33 is 2.54."""
    page = findings.page(flat, cohort(), PICTURES)
    rows = [line for line in section(page, "In one table").splitlines() if line.startswith("| Federated training")]
    assert ["2.5 times as wide" in row for row in rows] == [True, True]


def test_each_side_is_shown_after_its_own_best_round(study: Study) -> None:
    """Pooled training is best after round 2, federated after round 9: neither is where the claim is judged."""
    one = EXPERIMENTS["federation"]
    turned = [turn(result, 2 if "pooled" in result.setting else 9) for result in results(one, lambda *_: 0.0)]
    found = made(study, "none") | {"federation": run.compare_results(one, study, SEEDS, turned)}
    page = findings.page(found, cohort(), PICTURES)
    text = section(page, "Federated training does as well as centralised training")
    assert "| federated, LR | pooled, LR | 4 |" in text
    assert "| federated, LR | pooled, LR | 9, 2 (chosen on held-out data) |" in text
    assert "| pooled, MLP | 2 | " in text
    assert "Claim supported." in text
    best = "federated, LR 9; pooled, LR 2; federated, MLP 9; pooled, MLP 2."
    assert best in section(page, "How it was measured").replace("\n  ", " ")
    assert "log-loss turns" not in page


def test_an_end_of_the_run_is_no_turn(study: Study) -> None:
    one = EXPERIMENTS["federation"]
    falling = [turn(result, 12) for result in results(one, lambda *_: 0.0)]
    found = made(study, "none") | {"federation": run.compare_results(one, study, SEEDS, falling)}
    assert "federated, LR 12 (the last that was run)" in findings.page(found, cohort(), PICTURES)


def test_the_page_says_what_local_only_is(flat: dict[str, Measured]) -> None:
    text = section(findings.page(flat, cohort(), PICTURES), "Federated training does better than each client alone")
    assert "scored on everybody's held-out patients" in text
    assert "weighted by how many held-out patients each has" in text


def test_figures_stand_in_the_readers_colours(flat: dict[str, Measured]) -> None:
    page = findings.page(flat, cohort(), PICTURES)
    for name in FIGURES:
        assert page.count(f'srcset="images/findings-{name}-dark.svg"') == 1
        assert page.count(f'alt="a &lt;b&gt;" src="images/findings-{name}.svg"') == 1
        assert f"*Caption of {name}.*" in page


def test_metrics_are_flat_and_plots_are_points(study: Study) -> None:
    found = made(study, "up")
    numbers_ = metrics.metrics(found)
    assert all(isinstance(value, float) for value in numbers_.values())
    assert numbers_["fedavg_minus_pooled"] == pytest.approx(0.04, abs=0.003)
    assert 0 < numbers_["fedavg_minus_pooled_se"] < 0.002
    assert numbers_["auc_privacy_distributed_dp_epsilon_3"] > numbers_["auc_privacy_none"]
    assert numbers_["log_loss_privacy_none"] == pytest.approx(1 - numbers_["auc_privacy_none"], abs=1e-4)
    assert len(numbers_) == 4 + sum(len(one.arms) for one in found.values()) + len(found["privacy"].arms)
    points = metrics.plots(found)
    assert set(points) == {"rounds.json", "fraction.json", "epsilon.json", "fraction_at_epsilon.json"}
    kinds = ("federated", "pooled", "local")
    assert points["rounds.json"][0].keys() == {"round", *(f"{kind}, {m}" for kind in kinds for m in ("LR", "MLP"))}
    assert points["rounds.json"][-1].keys() == {"round", "federated, LR", "pooled, LR"}, "the others end at 100"
    assert [point["epsilon"] for point in points["epsilon.json"]] == [1, 3, 8, 50]
    assert points["epsilon.json"][1]["svt"] == round(found["privacy"].arm("svt, ε 3").auc.mean, 4)
    assert [len(points[name]) for name in ("fraction.json", "fraction_at_epsilon.json")] == [5, 5]
    for table in points.values():
        assert len({next(iter(point.values())) for point in table}) == len(table), "each x once"
        assert all(point.keys() <= table[0].keys() for point in table), "DVC wants each line in the first point"
    assert metrics.verdicts(found) == {c.title: claim_word(c, found[c.experiment]) for c in CLAIMS}


def test_the_command_writes_page_figures_and_metrics(flat: dict[str, Measured], tmp_path: Path) -> None:
    numbers_, page, flat_ = tmp_path / "numbers", tmp_path / "docs" / "findings.md", tmp_path / "metrics"
    for name, one in flat.items():
        files.write(numbers_ / f"{name}.json", one)
    files.write(numbers_ / "cohort.json", cohort())
    old, own = (page.with_suffix("") / name for name in ("findings-of-before.svg", "my-own.svg"))
    for file in (old, own):
        files.write(file, {})
    options = ["--numbers", str(numbers_), "--page", str(page), "--out", str(flat_)]
    answer = CliRunner().invoke(app, ["findings", *options], catch_exceptions=False)
    assert answer.exit_code == 0
    assert "Sharing 40% is as good as sharing all: supported" in answer.output
    shown = set(re.findall(r'(?:src|srcset)="(findings/[^"]+)"', page.read_text()))
    assert len(shown) == 16
    assert all((page.parent / file).stat().st_size > 1000 for file in shown)
    assert (flat_ / "metrics.json").exists()
    assert len(list((flat_ / "figures").glob("*.png"))) == 16
    assert (old.exists(), own.exists()) == (False, True), "a figure that is drawn no more is removed"
