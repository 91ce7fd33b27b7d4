"""Columns of numbers with cells that are none: every kind is asked about, and read as the answer says from then on."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.data.checks.suites import all_columns, load_suite
from tasks.data.drafting.check import check_sites
from tasks.data.drafting.place import place
from tasks.data.drafting.questions import shell
from tasks.data.reading.features import build_inputs
from tasks.data.reading.tables import read_tables
from tasks.errors import ConfigError, DataError
from tasks.simulation.data import read_sites
from tasks.study.file import load_study
from tests.data.drafting.site_tables import EACH, SITES, Cells, chance, draft, noise
from tests.data.drafting.unseen_study import read_csv, write_csv


def value(site: str, i: int) -> float:
    return round(5 + noise(site, i), 1)


def score(site: str, i: int) -> int:
    return int(chance(site, i) * 11)


def odd(cell: Any, at: tuple[str, ...] = ("south",), every: int = 10, other: Any = value) -> Cells:
    """`cell` for each tenth patient of some sites, and a measurement for the others."""
    return {"v": lambda site, i: cell if site in at and i % every == 0 else other(site, i)}


@dataclass(frozen=True)
class Odd:
    """Cells, what is said of them, and the answer with what it makes of one of them."""

    cells: Cells
    said: str
    told: dict[str, tuple[str, ...]]
    read: float | None = None
    type: str = "number"
    patient: tuple[str, int] = field(default=("south", 0))


ODD = {
    "a single point": Odd(
        odd("."), r"3 cells that stand for no value \(\.\) at south: --missing \.;", {"missing": (".",)}
    ),
    "special missing": Odd(odd(".A"), r"no value \(\.A\).*--missing \.A", {"missing": (".A",)}),
    "NA": Odd(odd("NA", other=score), r"\(NA\).*--missing NA;", {"missing": ("NA",)}, type="integer"),
    "n/a in small letters": Odd(odd("n/a"), r"\(n/a\)", {"missing": ("people.v=n/a",)}),
    "an error of a spreadsheet": Odd(odd("#DIV/0!"), r"--missing '#DIV/0!'", {"missing": ("#DIV/0!",)}),
    "not done, in Japanese": Odd(odd("未実施"), "未実施", {"missing": ("未実施",)}),
    "below a limit": Odd(
        odd("<0.30"),
        r"3 cells that begin with < at south: --below-limit half, limit or missing",
        {"below_limit": ("half",)},
        0.15,
    ),
    "below a limit, with a blank": Odd(odd("< 0.30"), "begin with <", {"below_limit": ("people.v=limit",)}, 0.3),
    "mostly below a limit": Odd(
        odd("<4", SITES, 3), "50 cells that begin with < at all", {"below_limit": ("missing",)}
    ),
    "above a limit": Odd(odd(">8"), "begin with >.*--above-limit", {"above_limit": ("limit",)}, 8.0),
    "a decimal comma": Odd(odd("3,5", every=1), "30 cells with a decimal comma at south", {"decimal": ("comma",)}, 3.5),
    "a decimal comma among whole numbers": Odd(
        odd("3,5", other=score), "decimal comma", {"decimal": ("people.v=comma",)}, 3.5
    ),
    "a comma before three digits": Odd(
        odd("1,250"), "comma before three digits", {"decimal": ("people.v=comma",)}, 1.25
    ),
    "words that many share": Odd(
        odd("haemolytic", every=5),
        r"6 cells that are other text \(haemolytic\).*--missing people\.v=haemolytic",
        {"missing": ("people.v=haemolytic",)},
    ),
    "yes for one": Odd(
        odd("yes", other=lambda s, i: i % 3), "other text", {"same": ("people.v:1=yes",)}, 1.0, "integer"
    ),
    "blanks only": Odd(odd("   "), "", {}),
    "padded": Odd(odd(" 7.5 "), "", {}, 7.5),
}


@pytest.mark.parametrize("case", ODD)
def test_a_stray_cell_makes_no_text_of_numbers(tmp_path: Path, project: Path, case: str) -> None:
    """Asked first; then one number for the whole column, in the draft's checks and in what a round would train on."""
    one = ODD[case]
    if one.said:
        with pytest.raises(DataError, match=one.said) as caught:
            draft(tmp_path / "t", project, one.cells)
        assert "people.v: most cells are numbers, the others are" in str(caught.value)
        assert "--keep people.v" in str(caught.value)
        assert not list(project.glob("studies/*"))
    found = draft(tmp_path / "t", project, one.cells, **one.told)
    assert {"v", "x"} <= set(found.study.input_names)
    place(found, project)
    suites = project / found.study.data.suites
    study = load_study(project / "studies/small.yaml", columns=all_columns(suites))
    assert study == found.study
    assert load_suite(suites, "people").meta.columns["v"] == one.type
    assert all(result.success for result in check_sites(study, project).values())
    site, patient = one.patient
    column = study.input_names.index("v")
    spec = study.inputs[column]
    arrays = read_sites(study, project)[site].inputs
    row = sorted(f"a{i}" for i in range(EACH)).index(f"a{patient}")
    read = spec.centre if one.read is None else one.read
    steps = np.log1p([read, spec.centre]) if spec.transform == "log1p" else np.array([read, spec.centre])
    assert arrays[row, column] == pytest.approx(np.clip((steps[0] - steps[1]) / spec.scale, -4, 4), abs=1e-6)


REFUSED = {
    "separators of thousands": (odd("1,234,567.5"), "with separators of thousands.*export them without"),
    "thousands with points and a comma": (odd("1.234,5"), "separators of thousands"),
    "a unit": (odd("5.1 mg/l"), "3 cells that are numbers with a sign or unit"),
    "a range": (odd("4-6"), "with a sign or unit"),
    "infinite": (odd("1e999"), "3 cells that are no finite numbers"),
    "full-width digits": (odd("５．１"), "in digits other than 0-9"),
    "leading zeros at one site": (odd("07", other=score), "3 cells with leading zeros at south"),
    "dates in another form": (
        odd("06.05.2024", other=lambda s, i: f"2024-01-{1 + i % 28:02}"),
        "most cells are dates, the others are 3 cells that are dates in another form",
    ),
    "serial numbers among dates": (
        odd("45012", other=lambda s, i: f"2024-01-{1 + i % 28:02}"),
        "most cells are dates, the others are 3 cells that are whole numbers at south",
    ),
    "a word that few share": (
        odd("grossly lipaemic"),
        r"3 cells that are other text at south: --missing people\.v=CODE",
    ),
    "a point among words": (
        odd(".", other=lambda s, i: "AB"[i % 2]),
        r"3 cells that stand for no value \(\.\) among words at south: --missing people\.v=\.",
    ),
    "R's NA among words": (odd("NA", other=lambda s, i: ["low", "high"][i % 2]), r"\(NA\) among words"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_rule_can_mend_is_refused(tmp_path: Path, project: Path, case: str) -> None:
    cells, said = REFUSED[case]
    with pytest.raises(DataError, match=said) as caught:
        draft(tmp_path / "t", project, cells)
    assert not re.search("lipaemic|45012|06.05|5.1 mg", str(caught.value)), "no cell that few patients share"
    kept = draft(tmp_path / "t", project, cells, keep=("people.v",))
    assert "x" in kept.study.input_names
    assert kept.study.data.reading.columns == {}


def test_all_questions_come_at_once(tmp_path: Path, project: Path) -> None:
    cells = {f"v{n}": odd(cell)["v"] for n, cell in enumerate([".", "<1", "3,5", "NA"])}
    with pytest.raises(DataError, match=r"^4 columns hold cells") as caught:
        draft(tmp_path / "t", project, cells)
    assert len(str(caught.value).splitlines()) == 5


def test_a_country_na_and_a_group_of_ages_are_what_they_say(tmp_path: Path, project: Path) -> None:
    cells: Cells = {
        "country": lambda s, i: ["NA", "DE", "FR"][i % 3],
        "age_group": lambda s, i: ["<18", "18-64", ">64"][(i // 2) % 3],
        "zip": lambda s, i: f"0{1000 + i}",
        "began": lambda s, i: ["2012", "2013-04", "2014-05-06T07:30"][i % 3],
        "v": value,
    }
    found = draft(tmp_path / "t", project, cells, missing=("NA", "."))
    assert "country_na" in found.study.input_names
    codes = [code for spec in found.study.inputs if spec.column == "age_group" for code in spec.codes or ()]
    assert set(codes) < {"<18", "18-64", ">64"}
    assert len(codes) == 2
    types = load_types(found)
    assert [types[c] for c in cells] == ["string", "string", "string", "partial_date", "number"]
    why = {each.column: each.why for each in found.left_out}
    assert why["zip"] == "looks like an identifier or a code"


def load_types(found: Any) -> dict[str, str]:
    return dict(json.loads(found.texts["expectations/small/people.json"])["meta"]["columns"])


def test_padded_words_are_one_category(tmp_path: Path, project: Path) -> None:
    """Fixed-width text: one site pads, one leaves blanks where there is none."""
    cells: Cells = {
        "drug": lambda s, i: (["No", "Yes"][(i // 2) % 2]).ljust(5 if s == "south" else 0),
        "arm": lambda s, i: "   " if s == "west" and i % 15 == 0 else "ab"[i % 3 == 0],
    }
    found = draft(tmp_path / "t", project, cells)
    assert {spec.name: spec.codes for spec in found.study.inputs if spec.name != "x"} == {
        "drug_yes": {"No": 0.0, "Yes": 1.0},
        "arm_b": {"a": 0.0, "b": 1.0},
    }
    place(found, project)
    assert all(result.success for result in check_sites(found.study, project).values())


NUMBERS: dict[str, tuple[Cells, str | None]] = {
    "99 in a score": (
        odd(99, every=5, other=score),
        r"6 cells are 99, far from all others at south: --missing people\.v=99;",
    ),
    "999 in a measurement": (odd(999, every=5), "6 cells are 999"),
    "98 and 99 in a score": (
        odd(98, every=5, other=lambda s, i: 99 if i % 5 == 1 else score(s, i)),
        r"cells are 98, 99, far from all others.*--missing people\.v=98; --missing people\.v=99",
    ),
    "96, 99 and 999 in a score": (
        odd(96, SITES, 5, other=lambda s, i: {1: 99, 2: 999}.get(i % 5, score(s, i))),
        "90 cells are 96, 99, 999",
    ),
    "99 in a score of 7, 8 and 9": (odd(99, SITES, 5, other=lambda s, i: 7 + i % 3), "30 cells are 99"),
    "-99 in a change": (odd(-99, SITES, 5, other=lambda s, i: round(6 * noise(s, i))), "30 cells are -99"),
    "9 in a scale to 3": (odd(9, SITES, other=lambda s, i: i % 4), "15 cells are 9"),
    "8 and 9 in a flag": (
        {"v": lambda s, i: 8 if i % 10 == 0 else 9 if i % 10 == 1 else i % 3 % 2},
        r"30 cells are 8, 9, far from all others at all sites",
    ),
    "-9 and -99": (
        {"v": lambda s, i: -9 if i % 10 == 0 else -99 if i % 10 == 1 else score(s, i)},
        r"30 cells are -99, -9.*--missing people\.v=-99; --missing people\.v=-9",
    ),
    "-1 where all else is positive": (odd(-1, every=5, other=score), "6 cells are -1"),
    "zero for all of a site": (
        odd(0, every=1, other=lambda s, i: round(200 + 30 * noise(s, i))),
        "30 cells are 0, far from all others at south, all cells of south",
    ),
    "an age of 99": (odd(99, other=lambda s, i: 60 + i), None),
    "a count of nine": (odd(9, every=30, other=lambda s, i: i % 4), None),
    "changes below zero": (odd(-9, other=lambda s, i: round(6 * noise(s, i))), None),
    "no falls at a site": (odd(0, every=1, other=lambda s, i: i % 5), None),
    "a dose of 0, 54 or 81": (odd(0, SITES, 3, other=lambda s, i: [54, 81, 27][i % 3]), None),
    "a study day of -1": ({"visit_day": lambda s, i: -1 if i % 7 == 0 else i, "v": value}, None),
}


TIMES: dict[str, tuple[str, Cells, str | None]] = {
    "a week of pregnancy of 99": ("gestation_week", odd(99, every=5, other=lambda s, i: 20 + i % 21), "6 cells are 99"),
    "a study day of -99": ("study_day", odd(-99, every=5, other=lambda s, i: -(i % 15)), "6 cells are -99"),
    "a week of 999": ("week", odd(999, every=5, other=lambda s, i: 20 + i % 21), "6 cells are 999"),
    "screening on day -7": ("study_day", odd(-7, every=5, other=lambda s, i: i % 15), None),
    "week 96": ("week", odd(96, every=5, other=lambda s, i: 12 * (i % 5)), None),
    "day 98": ("day", odd(98, SITES, 5, other=lambda s, i: 7 * (i % 7)), None),
}


@pytest.mark.parametrize("case", TIMES)
def test_codes_among_times(tmp_path: Path, project: Path, case: str) -> None:
    name, cells, said = TIMES[case]
    if said is None:
        assert name in draft(tmp_path / "t", project, {name: cells["v"]}).study.input_names
        return
    with pytest.raises(DataError, match=f"{name}: {said}"):
        draft(tmp_path / "t", project, {name: cells["v"]})


@pytest.mark.parametrize(
    ("code", "said"), [(777, "sevens"), (88, "eights"), (98, "nines"), (-9, "nines"), (-1, "minus one")]
)
def test_a_number_that_few_patients_have_is_not_named(tmp_path: Path, project: Path, code: int, said: str) -> None:
    with pytest.raises(DataError, match=rf"3 cells are .*{said}, far.*--missing people\.v=CODE;") as caught:
        draft(tmp_path / "t", project, odd(code, other=score))
    assert str(code) not in str(caught.value)


@pytest.mark.parametrize("cell", ["<-1", "<0", "< -0.5", "<=0"])
def test_half_of_a_limit_that_is_not_above_zero_is_asked_about(tmp_path: Path, project: Path, cell: str) -> None:
    with pytest.raises(DataError, match="3 cells that begin with < before zero or less at south: --below-limit limit"):
        draft(tmp_path / "t", project, odd(cell, other=noise), below_limit=("half",))
    found = draft(tmp_path / "t", project, odd(cell, other=noise), below_limit=("limit",))
    assert "v" in found.study.input_names


@pytest.mark.parametrize("name", ["lesion_number", "nodes_no", "houseNo", "site_phone", "icd_code"])
@pytest.mark.parametrize("cell", [".", "<1", "n/a", "3a", "7,5", "n=2"])
def test_numbers_that_name_something_are_no_categories(tmp_path: Path, project: Path, name: str, cell: str) -> None:
    found = draft(tmp_path / "t", project, {name: odd(cell, every=15, other=score)["v"]})
    assert found.study.input_names == ["x"]
    assert {each.why for each in found.left_out if each.column == name} == {"looks like an identifier or a code"}


def test_whole_numbers_written_with_a_point_name_something_too(tmp_path: Path, project: Path) -> None:
    found = draft(tmp_path / "t", project, {"lesion_number": lambda s, i: f"{score(s, i)}.0"})
    assert found.study.input_names == ["x"]


def test_a_code_of_words_is_asked_about_like_any(tmp_path: Path, project: Path) -> None:
    cells: Cells = {"sex_code": lambda s, i: ("Female", "Male")[i // 2 % 2] if s == "south" else "FM"[i // 2 % 2]}
    with pytest.raises(DataError, match=r"people\.sex_code"):
        draft(tmp_path / "t", project, cells)


@pytest.mark.parametrize("case", NUMBERS)
def test_numbers_that_may_be_codes_are_asked_about(tmp_path: Path, project: Path, case: str) -> None:
    cells, said = NUMBERS[case]
    if said is None:
        assert "v" in draft(tmp_path / "t", project, cells).study.input_names
        return
    with pytest.raises(DataError, match=said) as caught:
        draft(tmp_path / "t", project, cells)
    codes = re.findall(r"--missing (\S+);", str(caught.value))
    found = draft(tmp_path / "t", project, cells, missing=tuple(codes))
    place(found, project)
    assert all(result.success for result in check_sites(found.study, project).values())
    kept = draft(tmp_path / "t", project, cells, keep=("people.v",))
    assert kept.study.data.reading.columns == {}
    assert found.study.data.reading.columns["people.v"].missing == tuple(code.split("=")[1] for code in codes)


def test_a_later_export_is_read_by_the_same_answer(tmp_path: Path, project: Path) -> None:
    """The next site that writes the code is read as the first was; a code that nobody told of is refused by column."""
    place(draft(tmp_path / "t", project, odd("."), missing=(".",)), project)
    study = load_study(project / "studies/small.yaml")
    path = project / "data/studies/small/west/people.csv"
    rows = read_csv(path)
    write_csv(path, tuple(rows[0]), [{**row, "v": "." if i < 4 else row["v"]} for i, row in enumerate(rows)])
    assert check_sites(study, project)["west"].success
    write_csv(path, tuple(rows[0]), [{**row, "v": "ND" if i < 4 else row["v"]} for i, row in enumerate(rows)])
    with pytest.raises(DataError, match=r"west/people\.csv: column v: 4 cells are not finite numbers; .*data\.reading"):
        check_sites(study, project)


@pytest.mark.parametrize(
    ("told", "match"),
    [
        ({"missing": ("99",)}, r"--missing 99: a number may be a value elsewhere: say --missing TABLE\.COLUMN=99"),
        ({"missing": ("people.w=99",)}, "--missing people.w: people has no column w; it has: id, x, outcome, v"),
        ({"below_limit": ("third",)}, "--below-limit: Input should be 'half', 'limit' or 'missing'"),
        ({"below_limit": ("people.v=third",)}, "--below-limit for people.v: Input should be"),
        ({"decimal": ("point",)}, "--decimal: Input should be 'comma'"),
        ({"same": ("Y",)}, "--same Y: write VALUE=OTHER,OTHER"),
        ({"same": ("people.v:1=yes", "people.v:2=yes")}, "--same for people.v: same: a spelling stands for two values"),
        ({"missing": ("persons.v=UNK",)}, r"--missing persons.v: write TABLE\.COLUMN; tables: people"),
        ({"same": ("persons.v:M=Male",)}, r"--same persons.v: write TABLE\.COLUMN; tables: people"),
        ({"missing": ("people.v=UNX",)}, "--missing people.v=UNX: no cell of people.v at any site is so"),
        ({"same": ("people.v:M=Male",)}, "--same people.v:M=Male: no cell of people.v"),
        ({"below_limit": ("people.v=half",)}, "--below-limit people.v=half: no cell"),
        ({"above_limit": ("people.v=limit",)}, "--above-limit people.v=limit: no cell"),
        ({"decimal": ("people.x=comma",)}, "--decimal people.x=comma: no cell"),
        ({"keep": ("v",)}, r"--keep v: write TABLE\.COLUMN; tables: people"),
    ],
)
def test_an_answer_that_fits_nothing_is_refused(
    tmp_path: Path, project: Path, told: dict[str, tuple[str, ...]], match: str
) -> None:
    with pytest.raises(ConfigError, match=match):
        draft(tmp_path / "t", project, odd("."), **told)


def test_an_answer_for_all_columns_that_leaves_words_is_told(tmp_path: Path, project: Path) -> None:
    cells: Cells = odd("UNK") | {"smoker": lambda s, i: ["never", "former", "UNK"][int(chance(s, i) * 3)]}
    found = draft(tmp_path / "t", project, cells, missing=("UNK", "n.k."))
    none, left = found.notes
    assert none == "--missing n.k.: no cell is so"
    assert re.fullmatch(r"people\.smoker: \d+ cells UNK among words stay .*--missing people\.smoker=UNK .*", left)
    assert not draft(tmp_path / "t", project, cells, missing=("UNK", "people.smoker=UNK")).notes


@pytest.mark.parametrize(
    ("told", "note"),
    [
        ({"below_limit": ("half",)}, "--below-limit half: no cell is so"),
        ({"above_limit": ("missing",)}, "--above-limit missing: no cell is so"),
        ({"decimal": ("comma",)}, "--decimal comma: no cell is so"),
        ({"decimal": ("either",)}, None),  # 5.5
        ({"same": ("Y=Yes,y",)}, "--same Y=Yes,y: no column has two of these"),
        ({"same": ('Y="Yes, later",y',)}, "--same 'Y=\"Yes, later\",y': no column has two of these"),
    ],
)
def test_an_answer_for_all_columns_that_no_cell_needs_is_told(
    tmp_path: Path, project: Path, told: dict[str, tuple[str, ...]], note: str | None
) -> None:
    cells: Cells = {"v": lambda s, i: i + 0.5, "group": lambda s, i: "<18" if i % 2 else ">64"}
    assert draft(tmp_path / "t", project, cells, **told).notes == ((note,) if note else ())


THOUSANDS = {
    "a comma, told of all columns": (odd("1,234", other=lambda s, i: 900 + i), "with a comma before", "comma"),
    "a point beside commas": (
        {"v": lambda s, i: "1.234" if i % 10 == 0 else f"{900 + i},5"},
        "with a point before",
        "comma",
    ),
    "a limit": (odd("<1,234", other=lambda s, i: f"{i},5"), "with a comma before", "comma"),
    "a point among whole numbers": (odd("1.234", other=lambda s, i: 900 + i), "with a point before", None),
    "a limit with a point": (odd("<1.234", other=lambda s, i: f"{i},5"), "with a point before", "comma"),
}


@pytest.mark.parametrize("case", THOUSANDS)
def test_one_separator_before_three_digits_is_asked_about(tmp_path: Path, project: Path, case: str) -> None:
    cells, said, decimal = THOUSANDS[case]
    told = {"decimal": (decimal,)} if decimal else {}
    with pytest.raises(DataError, match=rf"people\.v: .*{said} three digits.*--decimal people\.v="):
        draft(tmp_path / "t", project, cells, **told)


REMEDIES = {
    "yes and no": (("Y", "N"), {"1": "Y", "0": "N"}),
    "plus and minus": (("+", "-"), {"1": "+", "0": "-"}),
    "Japanese": (("あり", "なし"), {"1": "あり", "0": "なし"}),
}


@pytest.mark.parametrize("case", REMEDIES)
def test_words_among_flags_are_offered_as_flags(tmp_path: Path, project: Path, case: str) -> None:
    """As missing values they would be a site's column lost."""
    words, meant = REMEDIES[case]
    cells: Cells = {"dm": lambda s, i: words[i // 2 % 2] if s == "south" else 1 - i // 2 % 2}
    with pytest.raises(DataError) as caught:
        draft(tmp_path / "t", project, cells)
    assert "--missing" not in str(caught.value)
    same = [text.strip("'") for text in re.findall(r"--same ([^;]+)", str(caught.value))]
    assert sorted(same) == sorted(f"people.dm:{number}={word}" for number, word in meant.items())


def test_an_option_is_quoted_for_the_shell() -> None:
    for text in ("don't know", "a b", "$HOME", "不明", "x;y"):
        assert shlex.split(shell(text)) == [text]


def test_half_of_a_limit_is_what_is_built(tmp_path: Path, project: Path) -> None:
    found = draft(tmp_path / "t", project, odd("<1", SITES), below_limit=("half",))
    place(found, project)
    data = found.study.data
    tables = read_tables(project / data.root / "west", data.tables, project / data.suites, data.reading)
    assert (build_inputs(tables, found.study)["v"] == 0.5).sum() == 3
