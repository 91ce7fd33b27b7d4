"""Rows of several tests, units, specimens, methods, positions and times: no input averages two of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.data.drafting.check import check_sites
from tasks.data.drafting.columns import Column
from tasks.data.drafting.draft import Draft, DraftOptions, draft_study
from tasks.data.drafting.measured import qualifiers, times
from tasks.data.drafting.place import place
from tasks.data.drafting.told import ToldOptions
from tasks.study.sections import Input
from tests.data.drafting.unseen_study import write_csv

SITES, EACH = ("north", "south", "west"), 40
Row = dict[str, Any]
#: The rows of patient `i` at a site; the same numbers at each.
Make = Callable[[str, int], list[Row]]


def noise(i: int, salt: int = 0) -> float:
    return round(float(np.random.default_rng([i, salt]).normal()), 3)


@pytest.fixture
def draft(tmp_path: Path, project: Path) -> Callable[..., Draft]:
    """Drafts a study of patients with an age and of one more table, and has it hold at every site."""

    def make(
        rows_of: Make,
        table: str = "labs",
        patient: Callable[[str, int], Row] | None = None,
        keep: tuple[str, ...] = (),
    ) -> Draft:
        for site in SITES:
            own = [
                {"id": f"a{i}", "age": 50 + 9 * noise(i, 77), **(patient(site, i) if patient else {})}
                for i in range(EACH)
            ]
            own = [{**row, "outcome": i % 2} for i, row in enumerate(own)]
            write_csv(tmp_path / "small" / site / "people.csv", tuple(own[0]), own)
            rows = [{"id": f"a{i}", **row} for i in range(EACH) for row in rows_of(site, i)]
            if rows:
                write_csv(tmp_path / "small" / site / f"{table}.csv", tuple(rows[0]), rows)
        drafted = draft_study(
            tmp_path / "small", DraftOptions(answers=ToldOptions(keep=keep)), project / "expectations"
        )
        place(drafted, project)
        results = check_sites(drafted.study, project)
        assert {s: [c.id for c in r.failures] for s, r in results.items()} == {s: [] for s in SITES}
        return drafted

    return make


def inputs(draft: Draft) -> dict[str, Input]:
    return {spec.name: spec for spec in draft.study.inputs if spec.name != "age"}


def why(draft: Draft, column: str) -> str:
    return "; ".join(each.why for each in draft.left_out if each.column == column)


def haemoglobin(i: int, salt: int = 1) -> float:
    return round(13.8 + noise(i, salt), 1)


def test_a_test_in_two_units_is_left_out_and_the_other_is_read_in_its_own(draft: Callable[..., Draft]) -> None:
    def rows(site: str, i: int) -> list[Row]:
        other = site == "south" and i % 3 == 0
        value = haemoglobin(i) / 1.611 if other else haemoglobin(i)
        return [
            {"test": "HGB", "day": 0, "value": value, "unit": "mmol/L" if other else "g/dL"},
            {"test": "ALT", "day": 0, "value": 20 + noise(i, 2), "unit": "U/L"},
        ]

    made = draft(rows)
    assert set(inputs(made)) == {"alt_value"}
    assert inputs(made)["alt_value"].where == {"test": "ALT", "unit": "U/L"}
    assert why(made, "value") == "where test is HGB: in 2 units (unit: g/dl and mmol/l): convert them to one"
    assert why(made, "unit") == "says how a value was measured"


def test_a_unit_of_few_patients_is_not_read_and_not_named(draft: Callable[..., Draft]) -> None:
    def rows(site: str, i: int) -> list[Row]:
        other = site == "south" and i < 4
        return [{"test": "HGB", "value": 8.6 if other else haemoglobin(i), "unit": "mmol/L" if other else "g/dL"}]

    made = draft(rows)
    assert inputs(made)["hgb_value"].where == {"test": "HGB", "unit": "g/dL"}
    assert "values of another unit, each of fewer than 5 patients, are not read" in why(made, "value")
    assert "mmol" not in "".join(text for path, text in made.texts.items() if path.startswith("studies"))


@pytest.mark.parametrize("spelt", ["mg/dL", "MG/DL", " mg/dL", "mg / dl"])
def test_spellings_of_one_unit_are_one(spelt: str, draft: Callable[..., Draft]) -> None:
    made = draft(
        lambda site, i: [{"test": "GLU", "value": 90 + noise(i), "unit": spelt if site == "west" else "mg/dL"}],
        keep=("labs.unit",),
    )
    assert set(inputs(made)) == {"glu_value"}


def test_the_two_characters_for_micro_are_one(draft: Callable[..., Draft]) -> None:
    """U+00B5, as keyboards have it, and U+03BC, as Greek has it."""
    unit = {"west": "\u00b5mol/L"}
    made = draft(
        lambda site, i: [{"test": "CREA", "value": 80 + noise(i), "unit": unit.get(site, "\u03bcmol/L")}],
        keep=("labs.unit",),
    )
    assert set(inputs(made)) == {"crea_value"}


def test_a_site_without_units_is_not_averaged_with_those_that_have_them(draft: Callable[..., Draft]) -> None:
    made = draft(lambda site, i: [{"test": "HGB", "value": haemoglobin(i), "unit": "" if site == "west" else "g/dL"}])
    assert inputs(made) == {}
    assert "in 2 units (unit: g/dl and none)" in why(made, "value")


def test_blood_and_urine_are_two_inputs(draft: Callable[..., Draft]) -> None:
    def rows(site: str, i: int) -> list[Row]:
        glucose = {"test": "GLUC", "day": 0, "unit": "mmol/L"}
        return [
            {**glucose, "specimen": "SERUM", "value": 5.4 + noise(i, 1) / 9},
            {**glucose, "specimen": "URINE", "value": 6.1 + noise(i, 2) / 9},
        ]

    made = inputs(draft(rows))
    assert set(made) == {"gluc_value_serum", "gluc_value_urine"}
    assert made["gluc_value_urine"].where == {"test": "GLUC", "unit": "mmol/L", "specimen": "URINE"}


def test_pressure_standing_and_lying_by_two_methods_are_four_inputs(draft: Callable[..., Draft]) -> None:
    """As SDTM names them."""

    def rows(site: str, i: int) -> list[Row]:
        each = [(position, method) for position in ("STANDING", "SUPINE") for method in ("CUFF", "PALPATION")]
        return [
            {
                "VSTESTCD": "SYSBP",
                "VSPOS": p,
                "VSMETHOD": m,
                "VSDY": 1,
                "VSSTRESN": 120 + noise(i, n),
                "VSSTRESU": "mmHg",
            }
            for n, (p, m) in enumerate(each)
        ]

    made = inputs(draft(rows, "vs"))
    assert set(made) == {f"sysbp_vsstresn_{p}_{m}" for p in ("standing", "supine") for m in ("cuff", "palpation")}
    assert all(spec.where["VSSTRESU"] == "mmHg" for spec in made.values())


def test_original_units_do_not_hold_back_the_standard_result(draft: Callable[..., Draft]) -> None:
    """LBORRESU is about LBORRES, which here holds text; LBSTRESU is about LBSTRESN."""

    def rows(site: str, i: int) -> list[Row]:
        other = site == "west"
        original = {"LBORRES": f"{haemoglobin(i) * (10 if other else 1)} est.", "LBORRESU": "g/L" if other else "g/dL"}
        return [{"LBTESTCD": "HGB", **original, "LBSTRESN": haemoglobin(i), "LBSTRESU": "g/dL"}]

    made = inputs(draft(rows, "lb"))
    assert made["hgb_lbstresn"].where == {"LBTESTCD": "HGB", "LBSTRESU": "g/dL"}


def test_results_that_were_not_obtained_hold_a_test_back_only_if_they_have_a_value(draft: Callable[..., Draft]) -> None:
    def rows(site: str, i: int) -> list[Row]:
        skipped = i % 9 == 0
        return [
            {
                "LBTESTCD": "ALT",
                "LBSTAT": "NOT DONE" if skipped else "",
                "LBSTRESN": 0 if skipped else 20 + noise(i, 1),
            },
            {
                "LBTESTCD": "AST",
                "LBSTAT": "NOT DONE" if skipped else "",
                "LBSTRESN": "" if skipped else 25 + noise(i, 2),
            },
        ]

    made = draft(rows, "lb", keep=("lb.LBSTRESN",))  # zeros so far from the others are asked about
    assert set(inputs(made)) == {"ast_lbstresn"}
    assert why(made, "LBSTRESN").startswith(
        "where LBTESTCD is ALT: LBSTAT says of some values that they were not obtain"
    )


def test_tests_are_told_apart_with_repeats_and_visits_and_without_a_key(draft: Callable[..., Draft]) -> None:
    """Two rows of a test at one visit: no key, and still potassium is not averaged with sodium."""

    def rows(site: str, i: int) -> list[Row]:
        return [
            {"visit": "Baseline", "test": test, "testcd": test[:2].upper(), "result": level + noise(i, level)}
            for test, level in (("Potassium", 4), ("Sodium", 140))
            for _ in range(2)
        ]

    made = inputs(draft(rows))
    assert {spec.where["testcd"] for spec in made.values()} == {"PO", "SO"}
    assert [round(spec.centre) for name, spec in sorted(made.items())] == [4, 140]


def test_a_panel_of_thirty_tests_is_thirty_inputs(draft: Callable[..., Draft]) -> None:
    made = draft(lambda site, i: [{"PARAMCD": f"T{n:02}", "ADY": -1, "AVAL": 3.0 * n + noise(i, n)} for n in range(30)])
    assert len(inputs(made)) == 30
    assert {spec.column for spec in inputs(made).values()} == {"AVAL"}


def test_codes_of_tests_and_units_that_are_numbers(draft: Callable[..., Draft]) -> None:
    """As OMOP has them."""

    def rows(site: str, i: int) -> list[Row]:
        unit = {"unit_concept_id": 8876}
        return [
            {"measurement_concept_id": code, "day": 0, "value_as_number": level + noise(i, level), **unit}
            for code, level in ((3004249, 120), (3012888, 80))
        ]

    made = inputs(draft(rows, "measurement"))
    assert {spec.where["measurement_concept_id"] for spec in made.values()} == {3004249, 3012888}
    assert {spec.where["unit_concept_id"] for spec in made.values()} == {8876}
    assert all(spec.column == "value_as_number" for spec in made.values())


def test_a_patients_weight_is_read_with_its_unit(draft: Callable[..., Draft]) -> None:
    def patient(site: str, i: int) -> Row:
        pounds = i % 3 == 0
        weight = (75 + 6 * noise(i, 5)) * (2.205 if pounds else 1)
        return {
            "weight": round(weight, 1),
            "weight_unit": "lb" if pounds else "kg",
            "care_unit": "B2" if i % 2 else "B3",
        }

    made = draft(lambda site, i: [], patient=patient)
    assert "weight" not in inputs(made)
    assert why(made, "weight") == "in 2 units (weight_unit: kg and lb): convert them to one"
    assert "weight_unit" not in {str(spec.column) for spec in inputs(made).values()}


@pytest.mark.parametrize("name", ["unit", "units", "value_unit", "uom", "unit_code", "unit_source_value"])
@pytest.mark.parametrize("codes", [(1, 2), ("1.0", "2.0"), (8753, 8840)])
def test_units_that_are_numbers(name: str, codes: tuple[Any, Any], draft: Callable[..., Draft]) -> None:
    """As REDCap has them: 1 is g/dL, 2 is mmol/L."""
    made = draft(
        lambda site, i: [
            {"test": "HGB", "day": 0, "value": haemoglobin(i) / (1.611 if i % 3 == 0 else 1), name: codes[i % 3 == 0]}
        ]
    )
    assert inputs(made) == {}
    both = " and ".join(str(code).removesuffix(".0") for code in codes)
    assert why(made, "value") == f"where test is HGB: in 2 units ({name}: {both}): convert them to one"


def test_a_patients_weight_in_two_units_that_are_numbers(draft: Callable[..., Draft]) -> None:
    def patient(site: str, i: int) -> Row:
        pounds = i % 3 == 0
        return {"weight": round((75 + 6 * noise(i, 5)) * (2.205 if pounds else 1), 1), "weight_unit": 1 + pounds}

    made = draft(lambda site, i: [], patient=patient)
    assert inputs(made) == {}
    assert why(made, "weight") == "in 2 units (weight_unit: 1 and 2): convert them to one"


def test_specimens_that_are_numbers_are_two_inputs(draft: Callable[..., Draft]) -> None:
    made = draft(
        lambda site, i: [
            {"test": "GLUC", "day": 0, "value": level + noise(i, level), "specimen": n}
            for n, level in ((1, 5), (2, 40))
        ]
    )
    assert {spec.where["specimen"]: round(spec.centre) for spec in inputs(made).values()} == {1: 5, 2: 40}


def test_tests_that_are_numbers_are_told_apart(draft: Callable[..., Draft]) -> None:
    made = draft(
        lambda site, i: [{"test": n, "day": 0, "value": level + noise(i, level)} for n, level in ((1, 5), (2, 140))]
    )
    assert {spec.where["test"]: round(spec.centre) for spec in inputs(made).values()} == {1: 5, 2: 140}


def test_an_amount_in_units_is_a_number(draft: Callable[..., Draft]) -> None:
    made = draft(lambda site, i: [], patient=lambda site, i: {"insulin_units": 4 + i % 7, "blood_units": (i // 2) % 4})
    assert set(inputs(made)) == {"insulin_units", "blood_units"}


# time


@pytest.mark.parametrize("name", ["drinks_day", "cigsPerWeek", "sleep_month", "visit_cost", "dy_drinks", "surgery_day"])
def test_a_number_in_each_day_is_no_time(name: str, draft: Callable[..., Draft]) -> None:
    def rows(site: str, i: int) -> list[Row]:
        return [{name: int(9 * abs(noise(i, n))) % 4, "visit": n, "sleep": 7 + noise(i, 50 + n)} for n in range(1, 5)]

    made = inputs(draft(rows, "diary"))
    assert {str(spec.column) for spec in made.values()} == {name, "sleep"}
    assert {spec.on_or_before for spec in made.values()} == {("visit", 1)}


def test_a_week_that_rises_with_the_visit_is_a_time(draft: Callable[..., Draft]) -> None:
    made = draft(
        lambda site, i: [{"gestation_week": 8 + i % 5 + 6 * n, "sbp": 110 + noise(i, n)} for n in range(4)], "vitals"
    )
    assert inputs(made) == {}
    assert "rows may lie after the outcome" in why(made, "sbp")


def visits(site: str, i: int) -> list[Row]:
    """Screening, baseline, week 4; some come a fourth time on the day of the baseline."""
    plan = [("Screening", 1, -14), ("Baseline", 2, 0), ("Week 4", 4, 28)]
    extra = [("Unscheduled", 2.1, 0)] if i % 10 == 0 else []
    return [
        {"visit": name, "visitnum": number, "day": day, "sbp": 110 + day + 5 * noise(i, n)}
        for n, (name, number, day) in enumerate([*plan, *extra])
    ]


def test_the_study_day_comes_before_the_visits_number(draft: Callable[..., Draft]) -> None:
    made = draft(visits, "vitals")
    assert set(inputs(made)) == {"screening_sbp", "baseline_sbp"}
    assert {spec.on_or_before for spec in inputs(made).values()} == {("day", 0)}
    assert "where visit is Week 4: no row on or before day 0" in why(made, "sbp")
    assert "the same for everybody" not in why(made, "sbp")


def test_a_table_of_the_start_alone_is_read_whatever_its_visits_are_called(draft: Callable[..., Draft]) -> None:
    rows = [{"visit": name, "day": day} for name, day in (("V2", 0), ("Run-in", -7))]
    made = draft(lambda site, i: [{**row, "sbp": 110 + noise(i, n)} for n, row in enumerate(rows)], "vitals")
    assert set(inputs(made)) == {"v2_sbp", "run_in_sbp"}


def test_where_there_is_only_a_visits_number_its_rows_are_named(draft: Callable[..., Draft]) -> None:
    made = draft(lambda site, i: [{k: v for k, v in row.items() if k != "day"} for row in visits(site, i)], "vitals")
    assert set(inputs(made)) == {"screening_sbp"}
    assert "where visit is Baseline: no row on or before visitnum 1" in why(made, "sbp")


def test_of_visits_that_have_only_names_those_at_the_start_are_read(draft: Callable[..., Draft]) -> None:
    made = draft(lambda site, i: [{k: row[k] for k in ("visit", "sbp")} for row in visits(site, i)], "vitals")
    assert set(inputs(made)) == {"screening_sbp", "baseline_sbp"}
    assert "where visit is Week 4: rows may lie after the outcome" in why(made, "sbp")


def test_a_column_without_any_value_says_so(draft: Callable[..., Draft]) -> None:
    made = draft(lambda site, i: [], patient=lambda site, i: {"smokes": "", "same": 4})
    assert (why(made, "smokes"), why(made, "same")) == ("no value", "the same for everybody")


@pytest.mark.parametrize(
    ("names", "best"),
    [
        (["VISITNUM", "VISITDY", "LBDY"], "LBDY"),
        (["AVISITN", "AENDY", "ASTDY"], "ASTDY"),
        (["visitnum", "week", "study_day"], "study_day"),
        (["Visit", "Day"], "Day"),
        (["month", "week"], "week"),
        (["drinks_per_day", "visitNo"], "visitNo"),
        (["dayName", "end_day", "studyDay"], "studyDay"),
        (["drinks_day", "days_since_surgery"], "days_since_surgery"),
        (["surgery_day", "BODY", "visitno"], "visitno"),
    ],
)
def test_which_time_is_taken(names: list[str], best: str) -> None:
    columns = [Column(name, "string" if name == "dayName" else "integer", required=True) for name in names]
    assert times(columns)[0].name == best


@pytest.mark.parametrize(
    ("name", "qualifies"),
    [
        *((name, True) for name in ("unit", "Units", "LBSTRESU", "AVALU", "valueuom", "value_unit", "EXDOSU", "VSPOS")),
        *((name, True) for name in ("specimen", "sample_type", "LBSPEC", "LBMETHOD", "posture", "LBFAST", "LBSTAT")),
        *((name, False) for name in ("care_unit", "icu_unit", "community", "opus", "flat", "plat", "status", "value")),
        *((name, False) for name in ("immunity", "hospital_unit", "composition", "disposition")),
    ],
)
def test_which_columns_qualify_a_value(name: str, qualifies: bool) -> None:
    assert bool(qualifiers([Column(name, "string", required=True)])) is qualifies


def test_kinds_that_do_not_exist_are_not_tried(draft: Callable[..., Draft]) -> None:
    """Three columns of 60 values each tell rows apart, in 60 ways and not in 216,000."""

    def rows(site: str, i: int) -> list[Row]:
        return [{"test": f"T{t}", "panel": f"P{t * 7 % 60}", "part": f"Q{t * 11 % 60}", "value": t} for t in range(60)]

    found = draft(rows)
    assert {spec.where["test"] for spec in inputs(found).values() if spec.where} <= {f"T{t}" for t in range(60)}


def test_a_kind_that_few_patients_have_is_not_named(draft: Callable[..., Draft]) -> None:
    """Each of its two words is known of many; that a patient has both is not."""

    def rows(site: str, i: int) -> list[Row]:
        usual = [{"lbtestcd": t, "param": p, "value": noise(i, n)} for n, (t, p) in enumerate((("A", "X"), ("B", "Y")))]
        return usual + [{"lbtestcd": "A", "param": "Y", "value": 1.0}] * (site == "north" and i < 3)

    found = draft(rows)
    assert "lbtestcd is A, param is Y" not in str(found.texts)
    assert {tuple(spec.where.values()) for spec in inputs(found).values() if spec.where} == {("A", "X"), ("B", "Y")}
