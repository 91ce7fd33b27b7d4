"""`pharmafed study init` as it is typed."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tasks.deploy.commands.study import app
from tasks.errors import ConfigError
from tests.data.drafting.site_tables import noise, write_tables
from tests.data.drafting.unseen_study import CLINICS


@pytest.fixture(autouse=True)
def _project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHARMAFED_PROJECT", str(project))
    monkeypatch.setenv("COLUMNS", "120")


def test_init_says_what_it_took_and_that_every_site_passes(unseen: Path, project: Path) -> None:
    result = CliRunner().invoke(app, ["init", str(unseen), "--title", "Asthma attacks", "--epsilon", "1"])
    assert result.exit_code == 0, result.output
    assert "patients.exacerbation is 1: the only column that looks like an outcome" in result.output
    assert "wrote     studies/asthma.yaml" in result.output
    assert "copied    12 CSV files to data/studies/asthma/" in result.output
    assert result.output.count("pass") == len(CLINICS)
    text = (project / "studies/asthma.yaml").read_text()
    assert "title: Asthma attacks\n" in text
    assert "  epsilon: 1\n" in text


def test_what_checks_nothing_at_a_site_is_not_counted_as_passed(tmp_path: Path) -> None:
    def score(site: str, patient: int) -> object:
        return "" if site == "isle" else round(50 + 10 * noise(site, patient, 5), 1)

    folder = write_tables(tmp_path / "people", {"score": score})
    result = CliRunner().invoke(app, ["init", str(folder), "--label", "people.outcome"])
    assert result.exit_code == 0, result.output
    lines = {line.split()[1]: " ".join(line.split()) for line in result.output.splitlines() if " of " in line}
    assert "3 check nothing" in lines["isle"], "its range in the table, and range and median as an input"
    assert "check nothing" not in lines["north"]
    passed, _, every = lines["isle"].split(" │ ")[2].split()
    assert int(passed) == int(every) - 3
    assert lines["north"].split(" │ ")[2] == f"{every} of {every}"


def test_a_site_that_fails_is_named_and_the_exit_code_tells(unseen: Path, project: Path) -> None:
    """A suite for all inputs that is stricter than the draft knows: no value may be missing."""
    suite = project / "expectations/inputs.json"
    suite.write_text(suite.read_text().replace('{"$PARAMETER": "input.filled"}', "1.0"))
    result = CliRunner().invoke(app, ["init", str(unseen)])
    assert result.exit_code == 1
    assert "inputs/bmi/expect_column_values_to_not_be_null" in "".join(result.output.split())


def test_what_is_there_is_not_overwritten(unseen: Path, project: Path) -> None:
    assert CliRunner().invoke(app, ["init", str(unseen)]).exit_code == 0
    again = CliRunner().invoke(app, ["init", str(unseen), "--epsilon", "8"])
    assert isinstance(again.exception, ConfigError)
    assert "already there with other content: studies/asthma.yaml" in str(again.exception)
    assert "  epsilon: 3\n" in (project / "studies/asthma.yaml").read_text()
