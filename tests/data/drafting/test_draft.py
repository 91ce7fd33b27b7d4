"""A draft of tables that the project has never seen: it loads, holds on its data, fails on spoiled ones, and learns."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tasks.data.checks.suites import all_columns, load_suite
from tasks.data.drafting.check import check_sites
from tasks.data.drafting.draft import Draft, DraftOptions, draft_study
from tasks.data.drafting.place import place
from tasks.data.reading.features import build_inputs
from tasks.data.reading.patients import prepare_patients
from tasks.data.reading.tables import read_tables
from tasks.errors import ConfigError
from tasks.privacy.noise.source import SeededNoise
from tasks.rounds.scores import score_held_out
from tasks.simulation.reference import YARDSTICK
from tasks.simulation.rounds import simulate, without_privacy
from tasks.study.file import load_study
from tasks.study.privacy import DistributedDP, LocalDP
from tasks.study.sections import Study
from tests.data.drafting.unseen_study import (
    CLINICS,
    NUM_PATIENTS,
    PATIENTS,
    RARE_SMOKING,
    REMARK,
    SPIROMETRY,
    Row,
    read_csv,
    write_csv,
)

SUITES = "expectations/asthma"
BETWEEN, IN_SET = "expect_column_values_to_be_between", "expect_column_values_to_be_in_set"
UNIQUE, FILLED = "expect_column_values_to_be_unique", "expect_column_values_to_not_be_null"
Drafted = tuple[Draft, Path]


@pytest.fixture
def study(drafted: Drafted) -> Study:
    _, project = drafted
    return load_study(project / "studies/asthma.yaml", columns=all_columns(project / SUITES))


def comments(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip().startswith("#")]


def test_the_draft_is_the_study_that_its_file_says(drafted: Drafted, study: Study) -> None:
    draft, _ = drafted
    assert draft.study == study
    assert list(study.sites) == list(CLINICS)
    assert [codes for codes in study.sites.values()] == [(code,) for code, _ in CLINICS.values()]
    assert study.data.tables == ("patients", "spirometry")
    assert study.data.subject == "patient_id"
    assert (study.data.root, study.data.suites, study.data.pin) == ("data/studies/asthma", SUITES, "data.dvc")
    assert draft.subjects.patients == {clinic: count for clinic, (_, count) in CLINICS.items()}
    (condition,) = study.label.positive_when
    assert (study.label.table, condition.column, condition.is_) == ("patients", "exacerbation", 1)


def test_inputs_are_round_and_the_outcome_is_not_among_them(drafted: Drafted, study: Study) -> None:
    draft, _ = drafted
    by_name = {spec.name: spec for spec in study.inputs}
    assert set(by_name) == {
        "age",
        "sex_m",
        "smoking_former",
        "smoking_current",
        "bmi",
        "eosinophils",
        "earlier_attacks",
        "fev1",
        "feno",
    }
    assert by_name["sex_m"].codes == {"F": 0, "M": 1}
    assert by_name["smoking_current"].codes == {"current": 1}
    assert by_name["smoking_current"].other == 0
    assert (by_name["age"].centre, by_name["age"].scale) == (50, 20)
    assert by_name["eosinophils"].transform == "log1p"
    assert by_name["fev1"].on_or_before == ("day", 0), "visits after the start show the outcome"
    assert by_name["fev1"].reduce == "mean"
    assert draft.num_drafted == 6
    why = {(each.table, each.column): each.why for each in draft.left_out}
    assert "tells the outcome" in why["patients", "rescue_course"]
    assert {column for _, column in why} == {"rescue_course", "enrolled", "remarks", "day", "quality"}


def test_the_file_says_what_to_edit_and_why(drafted: Drafted) -> None:
    _, project = drafted
    text = (project / "studies/asthma.yaml").read_text()
    said = " ".join(comments(text)).replace(" # ", " ")
    assert (
        "drafted from the data: replace by a protocol or textbook value, or it spends privacy outside the ledger"
    ) in said
    assert text.count("  # drafted") == 6
    assert re.search(r"# +tells the outcome nearly perfectly: .*\n +# +patients\.rescue_course\n", text)
    assert max(map(len, comments(text))) <= 120


def test_no_patient_stands_in_what_is_shared(drafted: Drafted, unseen: Path) -> None:
    """No rare value, id, remark, date or extreme of a measurement."""
    _, project = drafted
    shared = [*(project / SUITES).glob("[ps]*.json"), project / "studies/asthma.yaml"]
    assert len(shared) == 3
    texts = "\n".join(path.read_text() for path in shared)
    rows = [row for clinic in CLINICS for row in read_csv(unseen / clinic / "patients.csv")]
    assert len(rows) == NUM_PATIENTS
    hidden = {RARE_SMOKING, REMARK} | {row[c] for row in rows for c in ("patient_id", "remarks", "enrolled")}
    assert len(hidden) > 550
    words = set(re.findall(r'"([^"]*)"', texts)) | set(re.findall(r"[\w-]+", texts))
    assert words & hidden == set()
    suite = load_suite(project / SUITES, "patients")
    bounds = {e.kwargs["column"]: e.kwargs for e in suite.expectations if e.type == BETWEEN}
    assert set(bounds) == {"enrolled", "age", "bmi", "eosinophils", "earlier_attacks"}
    for column in ("age", "bmi"):
        values = [float(row[column]) for row in rows if row[column]]
        assert bounds[column]["min_value"] < min(values)
        assert max(values) < bounds[column]["max_value"]
    assert (bounds["enrolled"]["min_value"], bounds["enrolled"]["max_value"]) == ("2010-01-01", "2029-12-31")
    for column in ("earlier_attacks", "eosinophils"):
        assert bounds[column] == {"column": column, "min_value": 0}, "a few patients lie far above the others"
    (attacks,) = [e for e in suite.expectations if e.type == BETWEEN and e.kwargs["column"] == "earlier_attacks"]
    assert "without a bound above: fewer than 5 patients lie so far out" in attacks.meta.notes
    (smoking,) = [e for e in suite.expectations if e.type == IN_SET and e.kwargs["column"] == "smoking"]
    assert smoking.kwargs["value_set"] == ["current", "former", "never"]
    assert smoking.kwargs["mostly"] == 0.9
    assert "rare values: 1" in smoking.meta.notes


def test_keys_and_types_of_the_suites(drafted: Drafted) -> None:
    _, project = drafted
    patients, spirometry = (load_suite(project / SUITES, name) for name in ("patients", "spirometry"))
    assert (patients.meta.key, spirometry.meta.key) == (("patient_id",), ("patient_id", "day"))
    assert list(patients.meta.columns) == list(PATIENTS)
    assert list(spirometry.meta.columns) == list(SPIROMETRY)
    types = patients.meta.columns | spirometry.meta.columns
    assert [types[c] for c in ("patient_id", "enrolled", "age", "bmi", "fev1")] == [
        "string",
        "date",
        "integer",
        "number",
        "number",
    ]
    filled = {e.kwargs["column"] for e in patients.expectations if e.type == FILLED}
    assert filled == set(PATIENTS) - {"bmi"}


def test_every_site_passes(drafted: Drafted, study: Study) -> None:
    _, project = drafted
    results = check_sites(study, project)
    assert list(results) == list(CLINICS)
    assert {site: [check.id for check in result.failures] for site, result in results.items()} == {
        site: [] for site in CLINICS
    }
    assert {len(result.checks) for result in results.values()} == {62}


Spoil = Callable[[list[Row]], list[Row]]


def every(column: str, value: str) -> Spoil:
    return lambda rows: [{**row, column: value} for row in rows]


def first(column: str, value: str) -> Spoil:
    return lambda rows: [{**rows[0], column: value}, *rows[1:]]


@dataclass(frozen=True)
class Spoiled:
    table: str
    spoil: Spoil
    fails: str
    columns: tuple[str, ...] | None = None


SPOILED = {
    "a patient twice": Spoiled("patients", lambda rows: [*rows, rows[0]], f"patients/patient_id/{UNIQUE}"),
    "another clinic's patient": Spoiled("patients", first("clinic", "C-02"), f"patients/clinic/{IN_SET}"),
    "years for days": Spoiled("patients", first("age", "17000"), f"patients/age/{BETWEEN}"),
    "no age": Spoiled("patients", first("age", ""), f"patients/age/{FILLED}"),
    "another coding of sex": Spoiled("patients", first("sex", "W"), f"patients/sex/{IN_SET}"),
    "many unknown smokers": Spoiled("patients", every("smoking", "unknown"), f"patients/smoking/{IN_SET}"),
    "a third outcome": Spoiled("patients", first("exacerbation", "2"), f"patients/exacerbation/{IN_SET}"),
    "a wrong century": Spoiled("patients", first("enrolled", "1923-05-01"), f"patients/enrolled/{BETWEEN}"),
    "a column too many": Spoiled(
        "patients", every("DTHFL", "N"), "patients/expect_table_columns_to_match_set", (*PATIENTS, "DTHFL")
    ),
    "a visit twice": Spoiled(
        "spirometry", lambda rows: [*rows, rows[0]], "spirometry/expect_compound_columns_to_be_unique"
    ),
    "a stranger's visit": Spoiled("spirometry", first("patient_id", "P999"), f"spirometry/patient_id/{IN_SET}"),
    "millilitres": Spoiled("spirometry", every("fev1", "2800"), f"inputs/fev1/{BETWEEN}"),
    "few measured": Spoiled("spirometry", every("feno", ""), f"inputs/feno/{FILLED}"),
    "hardly any patients": Spoiled("patients", lambda rows: rows[:4], "patients/expect_table_row_count_to_be_between"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_spoiled_table_fails(drafted: Drafted, study: Study, tmp_path: Path, case: str) -> None:
    """By the expectation that is about it, at the spoiled site alone."""
    _, project = drafted
    shutil.copytree(project, tmp_path / "project")
    spoiled = SPOILED[case]
    path = tmp_path / "project/data/studies/asthma/aalborg" / f"{spoiled.table}.csv"
    columns = spoiled.columns or {"patients": PATIENTS, "spirometry": SPIROMETRY}[spoiled.table]
    write_csv(path, columns, spoiled.spoil(read_csv(path)))
    one = study.model_copy(update={"sites": {"aalborg": study.sites["aalborg"]}})
    result = check_sites(one, tmp_path / "project")["aalborg"]
    assert spoiled.fails in {check.id for check in result.failures}


def test_three_rounds_without_privacy_learn(drafted: Drafted, study: Study) -> None:
    """On 60 held-out patients an AUC of chance has a standard error of .075, so .7 is 2.7 of them above it."""
    _, project = drafted
    patients = {}
    for site in study.sites:
        tables = read_tables(project / study.data.root / site, study.data.tables, project / study.data.suites)
        patients[site] = prepare_patients(tables, build_inputs(tables, study), study, site)
    open_study = without_privacy(study, YARDSTICK)
    *_, last = simulate(open_study, patients, 3, noise=SeededNoise(b"\0" * 32))
    auc = score_held_out(open_study, last.evaluated, patients)["auc"]
    assert last.server_round == 3
    assert auc > 0.7
    *_, private = simulate(study, patients, 3, noise=SeededNoise(b"\0" * 32))
    assert all(np.isfinite(w.numpy()).all() for w in private.weights.values())
    assert private.noised is not None
    assert sum(len(p.train_labels) for p in patients.values()) == study.privacy.public_num_examples  # type: ignore[union-attr]


def test_with_few_sites_each_protects_its_own_update(folder: Path, project: Path) -> None:
    for clinic in ("cork", "delft", "evora"):
        shutil.rmtree(folder / clinic)
    study = draft_study(folder, DraftOptions(label="patients.exacerbation"), project / "expectations").study
    assert isinstance(study.privacy, LocalDP)
    assert (study.channel.name, study.rounds.min_sites, study.evaluation.score_bins) == ("plain", 3, None)


def test_with_many_sites_they_hide_behind_masks(study: Study) -> None:
    assert isinstance(study.privacy, DistributedDP)
    assert (study.channel.name, study.rounds.min_sites, study.evaluation.score_bins) == ("masks", 5, 5)


def test_a_site_with_another_unit_is_found(folder: Path, project: Path) -> None:
    """Cork measures FEV1 in millilitres: no common centre fits, so it is no input before somebody has looked."""
    path = folder / "cork/spirometry.csv"
    rows = [{**row, "fev1": round(1000 * float(row["fev1"]))} for row in read_csv(path)]
    write_csv(path, SPIROMETRY, rows)
    draft = draft_study(folder, DraftOptions(), project / "expectations")
    assert "fev1" not in draft.study.input_names
    (why,) = [each.why for each in draft.left_out if each.column == "fev1"]
    assert "unit" in why


def test_options_are_taken(unseen: Path, project: Path) -> None:
    options = DraftOptions("patients.sex=M", "patient_id", "lungs", "Who is male?", 1.5, 7)
    study = draft_study(unseen, options, project / "expectations").study
    assert (study.study, study.title) == ("lungs", "Who is male?")
    assert (study.privacy.epsilon, study.rounds.total) == (1.5, 7)  # type: ignore[union-attr]
    assert study.label.positive_when[0].is_ == "M"
    assert "sex_m" not in study.input_names
    assert "rescue_course_yes" in study.input_names, "it says the same as exacerbation, which stands after it"


def test_a_label_that_is_named_so_is_found(folder: Path, project: Path) -> None:
    """Without --label: `exacerbation` is no word for an outcome, but it stands last and is 0 or 1."""
    by_place = draft_study(folder, DraftOptions(), project / "expectations").outcome
    assert (by_place.table, by_place.column, by_place.value) == ("patients", "exacerbation", 1)
    assert "only column" in by_place.why
    columns = tuple("attack_outcome" if c == "rescue_course" else c for c in PATIENTS)
    for clinic in CLINICS:
        rows = read_csv(folder / clinic / "patients.csv")
        write_csv(
            folder / clinic / "patients.csv", columns, [{**r, "attack_outcome": r["rescue_course"]} for r in rows]
        )
    by_name = draft_study(folder, DraftOptions(), project / "expectations").outcome
    assert (by_name.column, by_name.value) == ("attack_outcome", "yes")


def test_twice_is_once(unseen: Path, project: Path) -> None:
    """The same call again writes nothing; after an interruption it writes the rest."""
    draft = draft_study(unseen, DraftOptions(), project / "expectations")
    written = place(draft, project)
    assert len(written) == 2 * len(CLINICS) + 4
    assert place(draft_study(unseen, DraftOptions(), project / "expectations"), project) == []
    (project / "studies/asthma.yaml").unlink()
    (project / "data/studies/asthma/cork/patients.csv").unlink()
    assert sorted(place(draft, project)) == ["data/studies/asthma/cork/patients.csv", "studies/asthma.yaml"]
    assert not list(project.rglob("*.swp"))


@pytest.mark.parametrize(
    "path", ["studies/asthma.yaml", "expectations/asthma/spirometry.json", "data/studies/asthma/cork/patients.csv"]
)
def test_what_is_there_is_never_overwritten(unseen: Path, project: Path, path: str) -> None:
    mine = project / path
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_text("mine\n")
    draft = draft_study(unseen, DraftOptions(), project / "expectations")
    with pytest.raises(ConfigError, match=rf"already there with other content: {re.escape(path)}; nothing was written"):
        place(draft, project)
    left = {p.relative_to(project).as_posix() for p in project.rglob("*") if p.is_file()}
    assert left == {path, "expectations/inputs.json"}
    assert mine.read_text() == "mine\n"


def test_a_second_question_on_the_same_tables_stands_beside_the_first(
    drafted: Drafted, unseen: Path, tmp_path: Path
) -> None:
    """The same suites but in folders of its own, so that neither study can change the other."""
    draft, first = drafted
    project = Path(shutil.copytree(first, tmp_path / "project"))
    other = draft_study(unseen, DraftOptions(label="patients.sex=M", name="other"), project / "expectations")
    place(other, project)
    own = {p.replace("/other/", "/asthma/"): t for p, t in other.texts.items() if p.endswith(".json")}
    assert own == {p: t for p, t in draft.texts.items() if p.endswith(".json")}
    assert json.loads(draft.texts[f"{SUITES}/patients.json"])["name"] == "patients"
    assert (project / "data/studies/other/cork/patients.csv").is_file()
    assert all(result.success for result in check_sites(draft.study, project).values())
