"""What one hospital has not measured stays an input; what tells most stands first; and what it costs to be few."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from tasks.data.drafting.check import check_sites
from tasks.data.drafting.place import place
from tasks.data.pin import verify_site, write_pin
from tasks.data.reading.features import build_inputs
from tasks.data.reading.tables import read_tables
from tasks.deploy.commands.study import app
from tasks.errors import ConfigError, DataPinMismatch
from tasks.privacy.noise.source import SeededNoise
from tasks.rounds.scores import score_held_out
from tasks.simulation.data import read_sites, split_sites
from tasks.simulation.reference import YARDSTICK
from tasks.simulation.rounds import simulate, without_privacy
from tasks.study.file import load_study
from tasks.study.privacy import DistributedDP
from tests.data.drafting.site_tables import SITES, Cells, chance, draft, noise, write_tables

FOUR = SITES[:4]


def ill(site: str, i: int) -> int:
    return int(1.5 * noise(site, i, 5) + noise(site, i, 6) > 0)


def marker(site: str, i: int) -> float:
    return round(50 + 8 * noise(site, i, 5), 1)


def gaps(site: str, i: int) -> bool:
    """One site has not measured it in a third of its patients, another never."""
    return site == "west" or (site == "south" and i % 3 == 0)


MEASURED: Cells = {
    "outcome": ill,
    "marker": lambda s, i: "" if gaps(s, i) else marker(s, i),
    "second": lambda s, i: "" if gaps(s, i) else round(5 + noise(s, i, 6), 2),
    "grade": lambda s, i: "" if s == "isle" and i % 2 else "abc"[int(chance(s, i) * 3)],
    "hardly": lambda s, i: "" if i % 3 else marker(s, i),
}


def test_what_a_site_has_not_measured_stays_with_an_input_that_says_so(tmp_path: Path, project: Path) -> None:
    found = draft(tmp_path / "t", project, MEASURED)
    by_name = {spec.name: spec for spec in found.study.inputs}
    codes = {name for name, spec in by_name.items() if spec.codes}
    assert set(by_name) - codes == {"x", "marker", "marker_missing", "second", "grade_missing"}
    assert len(codes) == 2
    assert "second_missing" not in by_name, "it has the gaps of marker"
    assert [by_name[name].max_missing for name in ("marker", "second", "x")] == [1.0, 1.0, None]
    assert by_name["marker_missing"].reduce == "missing"
    assert {each.column: each.why for each in found.left_out} == {
        "hardly": "empty for more than half of the patients of every site"
    }
    assert found.num_with_gaps == 4
    text = found.texts["studies/small.yaml"]
    assert text.count("  # gaps: marker_missing") == 2
    place(found, project)
    results = check_sites(found.study, project)
    assert {site: [check.id for check in result.failures] for site, result in results.items()} == {s: [] for s in SITES}
    data = found.study.data
    for site in SITES:
        tables = read_tables(project / data.root / site, data.tables, project / data.suites, data.reading)
        built = build_inputs(tables, found.study)
        patients = [int(name[1:]) for name in built.index]
        assert built["marker_missing"].tolist() == [float(gaps(site, i)) for i in patients]
        assert built["marker"].isna().tolist() == [gaps(site, i) for i in patients]


def test_more_gaps_than_the_study_allows_fail_a_site(tmp_path: Path, project: Path) -> None:
    """The rule is a key of the study: here for all inputs, there for one."""
    place(draft(tmp_path / "t", project, MEASURED), project)
    path = project / "studies/small.yaml"
    content = yaml.safe_load(path.read_text())
    for spec in content["inputs"]:
        spec.pop("max_missing", None)
    path.write_text(yaml.safe_dump(content))
    failed = {site: [c.id for c in r.failures] for site, r in check_sites(load_study(path), project).items()}
    assert "inputs/marker/expect_column_values_to_not_be_null" in failed["south"]
    assert failed["north"] == []
    content["data"]["max_missing"] = 0.5
    path.write_text(yaml.safe_dump(content))
    failed = {site: [c.id for c in r.failures] for site, r in check_sites(load_study(path), project).items()}
    assert failed["south"] == failed["isle"] == []
    assert failed["west"], "no value at all is more than half"


def test_the_gaps_are_worth_keeping(tmp_path: Path, project: Path) -> None:
    """The study with what two sites lack in part ranks held-out patients better than without it, at every seed."""
    found = draft(tmp_path / "t", project, MEASURED)
    place(found, project)
    kept = found.study
    without = kept.model_copy(update={"inputs": tuple(s for s in kept.inputs if s.column in ("x", "grade"))})
    aucs = {}
    for name, study in (("kept", kept), ("without", without)):
        arrays = read_sites(study, project)
        open_study = without_privacy(study, YARDSTICK)
        for seed in range(3):
            evaluation = study.evaluation.model_copy(update={"split_seed": seed})
            patients = split_sites(arrays, evaluation)
            *_, last = simulate(open_study, patients, 10, noise=SeededNoise(bytes(32)))
            aucs[name, seed] = score_held_out(open_study, last.evaluated, patients)["auc"]
    assert np.mean([aucs["kept", s] - aucs["without", s] for s in range(3)]) > 0.1


def test_the_first_inputs_are_those_that_tell_most(tmp_path: Path, project: Path) -> None:
    cells: Cells = {
        "outcome": ill,
        "nothing": lambda s, i: noise(s, i, 1),
        "much": lambda s, i: round(noise(s, i, 5) + noise(s, i, 6) + 0.6 * noise(s, i, 9), 2),
        "copy": lambda s, i: round(noise(s, i, 5) + noise(s, i, 6) + 0.6 * noise(s, i, 9), 2),
        "some": lambda s, i: round(noise(s, i, 5) + 2.5 * noise(s, i, 8), 2),
    }
    found = draft(tmp_path / "t", project, cells)
    assert found.study.input_names[:2] == ["much", "some"]
    marked = [
        line for line in found.texts["studies/small.yaml"].splitlines() if line.endswith("# known before the outcome?")
    ]
    assert [line.split("name: ")[1].split(",")[0] for line in marked] == ["much"]
    assert {each.column: each.why for each in found.left_out} == {"copy": "says the same as another input"}


def test_what_was_left_out_is_listed_by_reason(tmp_path: Path, project: Path) -> None:
    cells: Cells = {f"constant_{n}": lambda s, i: 7 for n in range(30)} | {
        f"text_{n}": lambda s, i, n=n: f"{s} {i} {n}" for n in range(3)
    }
    text = draft(tmp_path / "t", project, cells).texts["studies/small.yaml"]
    listed = text[text.index("# Left out") : text.index("\nmodel:")]
    assert listed.count("the same for everybody") == listed.count("free text") == 1
    assert listed.count("people.constant_") == 30
    assert len(listed.splitlines()) < 15
    assert max(map(len, listed.splitlines())) <= 120


def test_four_sites_hide_behind_masks_and_are_told_what_it_costs(tmp_path: Path, project: Path) -> None:
    found = draft(tmp_path / "t", project, {}, sites=FOUR)
    privacy = found.study.privacy
    assert isinstance(privacy, DistributedDP)
    assert (privacy.tolerated_dropouts, privacy.colluding_sites) == (0, 1)
    assert (found.study.channel.name, found.study.rounds.min_sites) == ("masks", 3)
    assert "costs the round, and the round its share of epsilon" in found.texts["studies/small.yaml"]
    assert "costs the round" not in draft(tmp_path / "five", project, {}).texts["studies/small.yaml"]


def test_a_name_that_is_taken_is_told_before_the_tables_are_read(
    tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHARMAFED_PROJECT", str(project))
    folder = write_tables(tmp_path / "small", {})
    assert CliRunner().invoke(app, ["init", str(folder)]).exit_code == 0
    monkeypatch.setattr("tasks.data.drafting.draft.read_folder", lambda _: pytest.fail("the tables were read"))
    other = write_tables(tmp_path / "other", {"x": lambda s, i: 1 + noise(s, i)})
    result = CliRunner().invoke(app, ["init", str(other), "--name", "small"])
    assert isinstance(result.exception, ConfigError)
    assert "already there with other content: data/studies/small/" in str(result.exception)
    path = project / "studies/small.yaml"
    path.write_text(path.read_text().replace("root: data/studies/small", "root: data/sites"))
    result = CliRunner().invoke(app, ["init", str(folder)])
    assert isinstance(result.exception, ConfigError)
    assert "small.yaml is another study: give another --name" in str(result.exception)


def test_folders_of_a_study_of_its_own_are_pinned(
    tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(draft(tmp_path / "t", project, {}), project)
    shutil.copytree(tmp_path / "t/north", project / "data/sites/north")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet", "--no-scm"], cwd=project, check=True)
    pin = write_pin(project / "data")
    assert pin.sites == ["sites/north", *(f"studies/small/{s}" for s in sorted(SITES))]
    assert [f for f in pin.folders if f.startswith("studies/")] == sorted(f"studies/small/{site}" for site in SITES)
    own = project / "data/studies/small/north"
    version = verify_site(own, project / "data.dvc", "north")
    (own / "people.csv").write_text("changed\n")
    with pytest.raises(DataPinMismatch, match=r"studies/small/north is not what data\.dvc pins: people\.csv"):
        verify_site(own, project / "data.dvc", "north")
    assert verify_site(project / "data/sites/north", project / "data.dvc", "north") == version
