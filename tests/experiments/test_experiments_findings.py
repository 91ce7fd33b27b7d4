"""The page says what the numbers say, whatever they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from made_up import cohort, numbers
from typer.testing import CliRunner

from tasks.experiments import files, findings, metrics
from tasks.experiments.claims import CLAIMS, overall
from tasks.experiments.cli import app
from tasks.experiments.drawing import Picture
from tasks.experiments.records import Measured
from tasks.study import Study

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
    "equal": {"up": "not supported", "down": "not supported", "none": "supported", "noise": "undecided"},
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
    assert "no difference is shown, and one of more than 0.01 is not ruled out" in page


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
    for name in ("distributed_dp", "svt"):
        cells = [found["privacy"].arm(f"{name}, ε {e}").auc for e in (1, 3, 8, 50)]
        shown = " | ".join(f"{one.mean:.3f} ± {one.standard_error:.3f}" for one in cells)
        assert f"| `{name}` | {shown} |" in page
    assert "| a membership test, at most | 0.575 | 0.694 | 0.881 | > 0.999 |" in page
    assert "20 seeds" in page
    assert "33 patients to train on and 9 held out" in page.replace("\n", " ")


def test_settings_that_learn_nothing_are_said_to(study: Study) -> None:
    dead = numbers(study, lambda e, s: -0.1 * (e == "fraction_at_epsilon" and ", ε 8," in s))
    page = section(findings.page(dead, cohort(), PICTURES), "At equal ε, fewer shared is better")
    assert "10 of 20 (10%, ε 50, 20 rounds; 20%, ε 50, 20 rounds;" in page
    nothing = numbers(study, lambda e, s: -0.1)
    assert "0 of 20 (none)" in findings.page(nothing, cohort(), PICTURES)


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
    assert len(numbers_) == 4 + sum(len(one.arms) for one in found.values())
    points = metrics.plots(found)
    assert set(points) == {"rounds.json", "fraction.json", "epsilon.json", "fraction_at_epsilon.json"}
    assert points["rounds.json"][0].keys() == {"round", "auc", "low", "high", "arm"}
    assert (len(points["fraction.json"]), len(points["epsilon.json"])) == (20, 16)
    assert metrics.verdicts(found) == {
        c.title: overall(c, [found[c.experiment].comparison(*pair) for pair in c.pairs]) for c in CLAIMS
    }


def test_the_command_writes_page_figures_and_metrics(flat: dict[str, Measured], tmp_path: Path) -> None:
    numbers_, page, flat_ = tmp_path / "numbers", tmp_path / "docs" / "findings.md", tmp_path / "metrics"
    for name, one in flat.items():
        files.write(numbers_ / f"{name}.json", one)
    files.write(numbers_ / "cohort.json", cohort())
    options = ["--numbers", str(numbers_), "--page", str(page), "--out", str(flat_)]
    answer = CliRunner().invoke(app, ["findings", *options], catch_exceptions=False)
    assert answer.exit_code == 0
    assert "Sharing 40% is as good as sharing all: supported" in answer.output
    shown = set(re.findall(r'(?:src|srcset)="(findings/[^"]+)"', page.read_text()))
    assert len(shown) == 16
    assert all((page.parent / file).stat().st_size > 1000 for file in shown)
    assert (flat_ / "metrics.json").exists()
    assert len(list((flat_ / "figures").glob("*.png"))) == 16
