"""`pharmafed data ...` on a project of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tasks.data.pin import read_pin
from tasks.deploy.commands.data import app
from tasks.store.settings import PROJECT


@pytest.fixture
def project(sites_dir: Path, suites_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(sites_dir, tmp_path / "data" / "sites")
    shutil.copytree(suites_dir, tmp_path / "expectations")
    shutil.copytree(PROJECT / "exams" / "practice", tmp_path / "exams" / "practice")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=tmp_path, check=True)
    monkeypatch.setenv("PHARMAFED_PROJECT", str(tmp_path))
    return tmp_path


def test_prepare_pin_verify(project: Path) -> None:
    runner = CliRunner()
    prepared = runner.invoke(app, ["prepare"])
    assert prepared.exit_code == 0
    assert prepared.output.count("unchanged") == 13
    pinned = runner.invoke(app, ["pin"])
    assert read_pin(project / "data.dvc").digest in pinned.output
    assert "files of 13 sites and 1 exams" in pinned.output.replace("\n", " ")
    verified = runner.invoke(app, ["verify"])
    assert verified.exit_code == 0
    assert verified.output.count("ok") == 14

    exam = project / "data/exams/practice/exam.json"
    drawn = exam.read_text()
    exam.write_text(drawn.replace('"n_select"', '"select"', 1))
    differs = runner.invoke(app, ["verify"])
    assert differs.exit_code == 2
    assert "exams/practice/exam.json changed" in differs.output
    exam.write_text(drawn)

    (project / "data/sites/705/mh.csv").write_text("x\n")
    differs = runner.invoke(app, ["verify"])
    assert differs.exit_code == 2
    assert differs.output.count("ok") == 13
    assert "sites/705/mh.csv changed" in differs.output
    assert "pharmafed data prepare" in differs.output
    refused = runner.invoke(app, ["prepare"])
    assert refused.exit_code != 0
    assert runner.invoke(app, ["prepare", "--force"]).exit_code == 0
    assert runner.invoke(app, ["verify"]).exit_code == 0


def test_verify_without_a_pin_says_what_to_do(project: Path) -> None:
    result = CliRunner().invoke(app, ["verify"])
    assert result.exit_code != 0
    assert "pharmafed data pin" in result.output + str(result.exception)
