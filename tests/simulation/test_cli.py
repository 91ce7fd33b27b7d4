"""`pharmafed simulate`, as somebody types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from tasks.cli import ErrorPanelGroup
from tasks.deploy.commands.simulate import simulate
from tasks.simulation.runs import RunResult as SimulationResult
from tasks.store.settings import PROJECT
from tasks.store.weights import from_bytes

app = typer.Typer(cls=ErrorPanelGroup, pretty_exceptions_enable=False)
app.command("simulate")(simulate)
app.command("other")(lambda: None)
STUDY = "xanomeline_derm56"
FILES = ("results.json", "metrics.json", "rounds.json", "model.safetensors")
KINDS = ("--kind", "federated", "--kind", "pooled", "--kind", "local")


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("PHARMAFED_PROJECT", raising=False)


def run(*arguments: str) -> Result:
    """In this process, but where a test asks for more: each worker would import torch anew."""
    return CliRunner().invoke(app, ["simulate", "--workers", "1", *arguments])


def test_a_table_and_files(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(STUDY, "--rounds", "2", "--seeds", "2", *KINDS, "--out", str(out))
    assert result.exit_code == 0, result.output
    rows = [line for line in result.output.splitlines() if line.startswith("│")]
    assert [row.split("│")[1].strip() for row in rows] == ["federated", "pooled", "local"]
    assert "ms/round" in result.output
    assert {path.name for path in out.iterdir()} == set(FILES)
    results = [
        SimulationResult.model_validate({**r, "seconds": 0}) for r in json.loads((out / "results.json").read_text())
    ]
    assert [(r.setting, r.seed) for r in results] == [
        (kind, seed) for kind in ("federated", "pooled", "local") for seed in (0, 1)
    ]
    metrics = json.loads((out / "metrics.json").read_text())
    curves = json.loads((out / "rounds.json").read_text())
    assert [list(point) for point in curves] == [["federated", "local", "pooled", "round"]] * 2
    assert [point["round"] for point in curves] == [1, 2]
    assert curves[1]["federated"] == metrics["federated"]["auc"]
    own = [r.of("auc")[-1] for r in results if r.setting == "federated"]
    assert metrics["federated"]["auc"] == pytest.approx(sum(own) / 2, abs=6e-5)
    assert metrics["federated"]["auc_se"] == pytest.approx(abs(own[0] - own[1]) / 2, abs=6e-5)
    assert metrics["federated"]["epsilon"] == pytest.approx(results[0].epsilon, abs=6e-5)
    assert f"{metrics['federated']['auc']:.3f} ± {metrics['federated']['auc_se']:.3f}" in rows[0]
    assert {t.shape for t in from_bytes((out / "model.safetensors").read_bytes()).values()} == {(1,), (1, 22)}


def test_metrics_and_model_are_the_same_bytes_twice(tmp_path: Path) -> None:
    """With any number of workers: what DVC compares has no timing in it."""
    for name, workers in (("a", "1"), ("b", "2")):
        arguments = ("--rounds", "2", "--seeds", "2", "--workers", workers, "--out", str(tmp_path / name))
        assert run(STUDY, *arguments).exit_code == 0
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_one_seed_has_no_standard_error(tmp_path: Path) -> None:
    result = run(STUDY, "--rounds", "1", "--out", str(tmp_path))
    assert result.exit_code == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["federated"]["auc_se"] is None
    assert "±" not in result.output
    assert "nan" not in result.output


def test_a_study_by_path_with_changes(tmp_path: Path) -> None:
    content = yaml.safe_load((PROJECT / "studies" / f"{STUDY}.yaml").read_text())
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content | {"study": "mine"}, sort_keys=False))
    changes = (
        "privacy={mechanism: none, i_accept_no_privacy: true}",
        "channel=plain",
        "evaluation.score_bins=null",
        "rounds.total=3",
    )
    result = run(str(path), *(part for change in changes for part in ("--set", change)))
    assert result.exit_code == 0, result.output
    (row,) = [line for line in result.output.splitlines() if line.startswith("│")]
    assert [cell.strip() for cell in row.split("│")][2:6:3] == ["3", "-"], row


def test_patience_stops_early() -> None:
    changes = ("--set", "privacy={mechanism: none, i_accept_no_privacy: true}", "--set", "channel=plain")
    fast = ("--set", "training.lr=10", "--set", "evaluation.score_bins=null", "--set", "rounds.total=40")
    result = run(STUDY, *changes, *fast, "--patience", "2")
    assert result.exit_code == 0, result.output
    (row,) = [line for line in result.output.splitlines() if line.startswith("│")]
    assert 2 < int(row.split("│")[2]) < 40


@pytest.mark.parametrize("what", [("--patience", "3"), ("--kind", "pooled")])
def test_what_peeks_is_refused_where_data_are_not_public(what: tuple[str, ...]) -> None:
    private = ("--set", "evaluation.data_are_public=false")
    refused = run(STUDY, *private, *what)
    assert (refused.exit_code, "ConfigError" in refused.output) == (2, True)
    assert "data_are_public" in refused.output
    allowed = run(STUDY, *private, "--rounds", "1")
    assert allowed.exit_code == 0
    assert "not public" in allowed.output


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("no_such_study",), "ConfigError", "xanomeline_derm56"),
        ((STUDY, "--set", "privacy.epsilon"), "ConfigError", "privacy.epsilon=1"),
        ((STUDY, "--set", "privacy.epsilonn=1"), "ConfigError", "privacy.epsilonn: unknown key"),
        ((STUDY, "--set", "privacy={a"), "ConfigError", "YAML"),
        ((STUDY, "--rounds", "21"), "BudgetExhausted", "pays for 20 rounds"),
    ],
)
def test_errors_are_the_projects_own(arguments: tuple[str, ...], error: str, message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert error in result.output
    assert message in result.output
