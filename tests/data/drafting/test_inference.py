"""Types, round figures, keys, codes and inputs, on small tables made for one question each."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tasks.data.checks.suites import load_suite
from tasks.data.drafting.check import check_sites
from tasks.data.drafting.content import delta, quorum, training_patients
from tasks.data.drafting.draft import Draft, DraftOptions, draft_study
from tasks.data.drafting.place import place
from tasks.data.drafting.rounding import decades, one_digit, round_bounds, two_digits
from tasks.data.drafting.told import ToldOptions
from tasks.study.file import load_study
from tasks.study.sections import Study
from tests.data.drafting.unseen_study import write_csv

SUITES = "expectations/small"
SITES, EACH = ("north", "south", "west"), 40
Columns = dict[str, Callable[[int], Any]]
IN_SET = "expect_column_values_to_be_in_set"
BETWEEN = "expect_column_values_to_be_between"


def outcome(i: int) -> int:
    return i % 2


def write_sites(folder: Path, patients: Columns, more: dict[str, list[Columns]] | None = None) -> Path:
    """Three sites of 40 patients; patient i is the same at each. `more`: table -> the rows that each patient has."""
    base: Columns = {"id": lambda i: f"a{i}", **patients, "outcome": outcome}
    for site in SITES:
        rows = [{name: cell(i) for name, cell in base.items()} for i in range(EACH)]
        write_csv(folder / site / "people.csv", tuple(base), rows)
        for table, each in (more or {}).items():
            lines = [{"id": f"a{i}"} | {n: c(i) for n, c in row.items()} for i in range(EACH) for row in each]
            write_csv(folder / site / f"{table}.csv", ("id", *each[0]), lines)
    return folder


@pytest.fixture
def drafts(tmp_path: Path, project: Path) -> Callable[..., Draft]:
    """Drafts a study of the tables that `write_sites` writes, places it, and has it hold at every site."""

    def make(patients: Columns, more: dict[str, list[Columns]] | None = None, keep: tuple[str, ...] = ()) -> Draft:
        options = DraftOptions(answers=ToldOptions(keep=keep))
        draft = draft_study(write_sites(tmp_path / "small", patients, more), options, project / "expectations")
        place(draft, project)
        assert load_study(project / "studies/small.yaml") == draft.study
        results = check_sites(draft.study, project)
        assert {s: [c.id for c in r.failures] for s, r in results.items()} == {s: [] for s in SITES}
        return draft

    return make


def noise(i: int, salt: int = 0) -> float:
    """A number without a pattern, the same every time."""
    return float(np.random.default_rng([i, salt]).normal())


def why(draft: Draft) -> dict[str, str]:
    return {each.column: each.why for each in draft.left_out}


def inputs(draft: Draft) -> dict[str, dict[str, Any]]:
    content = yaml.safe_load(draft.texts["studies/small.yaml"])["inputs"]
    return {spec.pop("name"): spec for spec in content}


TYPES: dict[str, tuple[list[str], str]] = {
    "whole": (["12", "-3", "0"], "integer"),
    "decimal": (["1.5", "2", ".5", "1e3"], "number"),
    "day": (["2024-02-29", "2023-01-01"], "date"),
    "no_day": (["2023-02-29", "2023-01-01"], "partial_date"),
    "month": (["2023-02", "2023-01-01"], "partial_date"),
    "leading_zero": (["007", "012"], "string"),
    "long_number": (["12345678901234567", "1"], "string"),
    "moment": (["2023-01-01T10:30", "2023-01-01"], "partial_date"),
    "padded": ([" 12", "3 "], "integer"),
    "filled_up": (["098.6", "098", "37.5"], "number"),
    "blank": (["   ", "7"], "integer"),
    "empty": (["", ""], "string"),
}


def test_types(drafts: Callable[..., Draft], project: Path) -> None:
    draft = drafts({name: lambda i, c=cells: c[i % len(c)] for name, (cells, _) in TYPES.items()} | {"x": noise})
    found = load_suite(project / SUITES, "people").meta.columns
    assert {name: found[name] for name in TYPES} == {name: type_ for name, (_, type_) in TYPES.items()}
    assert "empty" in why(draft)


@given(
    low=st.floats(-1e6, 1e6, allow_nan=False),
    span=st.floats(1e-3, 1e6, allow_nan=False),
)
def test_bounds_lie_outside_and_are_round(low: float, span: float) -> None:
    """Never an extreme itself, but zero where nothing is below it; two or three digits of the span at most."""
    high = low + span
    below, above = round_bounds(low, high)
    assert below < low or below == 0 <= low
    assert high < above
    assert above - below <= 2.5 * max(span, high) + 10 * span
    step = 10.0 ** np.floor(np.log10(high - low))
    for bound in (below, above):
        assert abs(bound / step - round(bound / step)) < 1e-6


@pytest.mark.parametrize(
    ("low", "high", "bounds"),
    [
        (18, 75, (0, 90)),
        (62, 181, (0, 200)),
        (1, 5, (0, 6)),
        (35.2, 39.8, (34, 41)),
        (-4, 7, (-10, 10)),
        (3, 3, (2, 4)),
    ],
)
def test_bounds_of_usual_quantities(low: float, high: float, bounds: tuple[float, float]) -> None:
    assert round_bounds(low, high) == bounds


@pytest.mark.parametrize(
    ("years", "bounds"),
    [((2023, 2024), (2010, 2029)), ((1938, 2001), (1930, 2009)), ((1934, 2005), (1920, 2019)), ((2, 2), (-10, 9))],
)
def test_decades_have_a_margin(years: tuple[int, int], bounds: tuple[int, int]) -> None:
    assert decades(*years) == bounds


def bounds_of(project: Path) -> dict[str, dict[str, Any]]:
    """Bounds by column of the suite `people`."""
    suite = load_suite(project / SUITES, "people")
    found = {e.kwargs["column"]: e.kwargs for e in suite.expectations if e.type == BETWEEN}
    return {name: {k: v for k, v in kwargs.items() if k != "column"} for name, kwargs in found.items()}


def test_a_lone_outlier_is_not_told(drafts: Callable[..., Draft], project: Path) -> None:
    """Patient 7 of each site is three patients; 7 and 8 are six, so many that their dose may be told of, roundly."""
    draft = drafts(
        {
            "x": noise,
            "dose": lambda i: 987654 if i == 7 else 30 + i,
            "depth": lambda i: -987654 if i == 7 else 30 + i,
            "often": lambda i: 987 if i in (7, 8) else 30 + i,
        }
    )
    assert bounds_of(project)["dose"].keys() == {"min_value"}
    assert bounds_of(project)["depth"].keys() == {"max_value"}
    assert bounds_of(project)["often"] == {"min_value": 0, "max_value": 1100}
    text = draft.texts[f"{SUITES}/people.json"]
    assert not re.search(r"[1-9]\d{4,}", text)
    assert text.count("Drafted without a bound above: fewer than 5 patients") == 1
    assert text.count("Drafted without a bound below: fewer than 5 patients") == 1


def test_the_youngest_and_the_oldest_are_not_told(drafts: Callable[..., Draft], project: Path) -> None:
    def born(i: int) -> str:
        return f"{1951 + i}-06-15"

    draft = drafts({"x": noise, "born": born, "BIRTH": lambda i: {3: "1921-02-03", 4: "2031-04-05"}.get(i, born(i))})
    assert bounds_of(project)["born"] == {"min_value": "1940-01-01", "max_value": "1999-12-31"}
    assert "BIRTH" not in bounds_of(project)
    assert not re.search(r"1951|1990|192\d|20[23]\d", draft.texts[f"{SUITES}/people.json"])


def test_of_very_few_values_no_bound_is_told(drafts: Callable[..., Draft], project: Path) -> None:
    drafts({"x": noise, "weight": lambda i: 80 + 11 * i if i < 2 else ""})
    assert "weight" not in bounds_of(project)
    assert "x" in bounds_of(project)


def test_numbers_that_name_something_are_no_inputs(drafts: Callable[..., Draft]) -> None:
    names = (
        "site_no",
        "houseNumber",
        "zip",
        "ZIPCODE",
        "post_code",
        "phone2",
        "icd_code",
        "wardNr",
        "RECORDID",
        "id_card",
    )
    each = itertools.count()
    measured = {
        "no_of_falls": lambda i: i % 4,
        "number_of_drugs": lambda i: i % 6,
        "post_bmi": lambda i: 20 + i % 9,
        "platelets": lambda i: 150_000 + 5000 * (i % 13),
        "smoker_no": lambda i: int(i % 3 == 0),
    }
    named: Columns = {name: lambda i: 100 + i for name in names} | {"insured": lambda i: 40_000 + 37 * next(each)}
    rows = [{"day": lambda i: 0, "sample_no": lambda i: 100 + i, "level": noise}]
    draft = drafts(named | measured, {"samples": rows})
    reasons = {name for name, text in why(draft).items() if text == "looks like an identifier or a code"}
    assert reasons == {*names, "insured", "sample_no"}
    assert set(inputs(draft)) == {*measured, "level"}


def test_digits() -> None:
    assert [one_digit(x) for x in (12.6, 0.093, 9.7, 1e-5)] == [10, 0.09, 10, 1e-5]
    assert [two_digits(x) for x in (0.1234, 187.0, 9.96, 0)] == [0.12, 190, 10, 0]


def test_sizes() -> None:
    assert [quorum(n, masked=True) for n in (5, 6, 13, 100)] == [4, 5, 10, 75]
    assert [quorum(n, masked=False) for n in (1, 2, 3, 4)] == [1, 2, 3, 3]
    assert [training_patients(n) for n in (5, 7, 62)] == [4, 6, 50]
    assert [delta(n) for n in (100, 10_000, 10_001, 1_000_000)] == [1e-5, 1e-5, 1e-6, 1e-7]


def test_a_category_of_few_patients_is_counted_and_never_named(drafts: Callable[..., Draft], project: Path) -> None:
    """Three patients are too few, one at each site; six are enough. The rows of the three stay valid, by `mostly`."""
    draft = drafts({"x": noise, "stone": lambda i: {0: "quartz", 1: "opal", 2: "opal"}.get(i, "flint")})
    texts = "".join(draft.texts.values())
    assert "quartz" not in texts
    suite = load_suite(project / SUITES, "people")
    (found,) = [e for e in suite.expectations if e.type == IN_SET and e.kwargs["column"] == "stone"]
    assert (found.kwargs["value_set"], found.kwargs["mostly"]) == (["flint", "opal"], 0.9)
    assert "rare values: 1," in found.meta.notes
    assert inputs(draft)["stone_opal"]["codes"] == {"opal": 1}
    assert inputs(draft)["stone_opal"]["other"] == 0


def test_free_text_and_mostly_rare_values_have_no_set(drafts: Callable[..., Draft], project: Path) -> None:
    many = {"x": noise, "text": lambda i: f"t{i}", "rare": lambda i: f"r{i % 20}" if i < 30 else "often"}
    draft = drafts(many)
    checked = {e.kwargs.get("column") for e in load_suite(project / SUITES, "people").expectations}
    assert "rare" in checked, "that it is filled"
    sets = [e for e in load_suite(project / SUITES, "people").expectations if e.type == IN_SET]
    assert [e.kwargs["column"] for e in sets] == ["outcome"]
    assert set(why(draft)) == {"text", "rare"}


def test_text_that_yaml_would_take_for_something_else(drafts: Callable[..., Draft]) -> None:
    """`drafts` reads the file back and has every site hold."""
    words = ["yes", "no", "1: a", "# b", "b\u2028c", "null", "é, [d]"]
    columns = {"a word": lambda i: words[i % 7], "x": noise, "1st": lambda i: noise(i, 1)}
    draft = drafts(columns, keep=("people.a word",))
    made = inputs(draft)
    codes = [next(iter(spec["codes"])) for name, spec in made.items() if name.startswith("a_word")]
    assert sorted(codes) == sorted(set(words) - {"# b"}), "the first of the most frequent is the one left out"
    assert {"x", "x_1st"} <= set(made)
    assert all(isinstance(code, str) for code in codes)


def test_two_categories_are_one_input(drafts: Callable[..., Draft]) -> None:
    made = inputs(drafts({"sex": lambda i: "F" if i % 3 else "M", "flag": lambda i: int(i % 5 == 0)}))
    assert made["sex_m"]["codes"] == {"F": 0, "M": 1}
    assert (made["flag"]["centre"], made["flag"]["scale"]) == (0.5, 0.5)


def test_what_gives_the_outcome_away_is_left_out(drafts: Callable[..., Draft]) -> None:
    draft = drafts(
        {
            "x": noise,
            "score": lambda i: outcome(i) * 10 + noise(i, 1),
            "course": lambda i: ["a", "b", "c", "d"][i % 4],
            "days_to_event": lambda i: 10 + i if outcome(i) else "",
            "CNSR": lambda i: i % 3,
            "hardly": lambda i: "" if i % 4 else noise(i, 2),
            "same": lambda i: 4,
        }
    )
    assert set(inputs(draft)) == {"x"}
    told = why(draft)
    assert {name for name, text in told.items() if "tells the outcome" in text} == {"score", "course", "days_to_event"}
    assert told["CNSR"] == "known only after the outcome"
    assert "empty for more than half of the patients of every site" in told["hardly"]
    assert told["same"] == "the same for everybody"


def test_counts_that_are_nearly_always_zero(drafts: Callable[..., Draft]) -> None:
    made = inputs(drafts({"x": noise, "falls": lambda i: 3 if i == 7 else 0, "stays": lambda i: 5 * (i % 13 == 0)}))
    assert "x" in made
    assert all(spec["scale"] > 0 for spec in made.values())


def lab(test: str, day: int, salt: int) -> Columns:
    return {"test": lambda i: test, "day": lambda i: day, "value": lambda i: round(50 + noise(i, salt), 2)}


def test_rows_of_several_kinds_become_an_input_each(drafts: Callable[..., Draft], project: Path) -> None:
    """Only rows at the start; with day 1 as the first, up to day 1."""
    labs = [lab("ALB", 1, 1), lab("ALT", 1, 2), lab("ALB", 29, 3), lab("ALT", 29, 4)]
    made = inputs(drafts({"x": noise}, {"labs": labs}))
    assert set(made) == {"x", "alb_value", "alt_value"}
    assert made["alb_value"]["where"] == {"test": "ALB"}
    assert made["alb_value"]["on_or_before"] == ["day", 1]
    assert load_suite(project / SUITES, "labs").meta.key == ("id", "test", "day")


def test_rows_that_may_lie_after_the_outcome_are_left_out(drafts: Callable[..., Draft]) -> None:
    """A date alone does not say whether a row was known at the start; without any time all rows count."""
    dated = [{"on": lambda i, m=m: f"2023-0{m}-11", "level": lambda i, m=m: noise(i, m)} for m in (1, 2)]
    teeth = [{"tooth": lambda i, n=n: f"t{n}", "depth": lambda i, n=n: noise(i, 9)} for n in range(30)]
    draft = drafts({"x": noise}, {"visits": dated, "teeth": teeth})
    made = inputs(draft)
    assert "rows may lie after the outcome" in why(draft)["level"]
    assert set(made) == {"x", "depth"}
    assert made["depth"]["reduce"] == "mean"


def test_the_study_is_private_by_default(drafts: Callable[..., Draft]) -> None:
    study: Study = drafts({"x": noise}).study
    assert study.privacy.mechanism == "local_dp"
    assert not study.evaluation.data_are_public
    assert study.data.pin == "data.dvc"
