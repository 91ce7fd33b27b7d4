"""A value that one site writes otherwise: asked about before anything is written, one value everywhere afterwards."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.data.drafting.check import check_sites
from tasks.data.drafting.draft import DraftOptions, draft_study
from tasks.data.drafting.place import place
from tasks.errors import ConfigError, DataError
from tasks.simulation.data import read_sites
from tests.data.drafting.site_tables import SITES, Cells, chance, draft, noise
from tests.data.drafting.unseen_study import write_csv


def at(site: str, usual: Callable[[str, int], Any], other: Callable[[str, int], Any]) -> Callable[[str, int], Any]:
    """A column that one site writes otherwise."""
    return lambda where, i: other(where, i) if where == site else usual(where, i)


def yes_no(yes: str, no: str) -> Callable[[str, int], str]:
    return lambda site, i: yes if chance(site, i) < 0.4 else no


def thirds(yes: Any, no: Any, other: Any) -> Callable[[str, int], Any]:
    return lambda site, i: [yes, no, other][int(chance(site, i) * 3)]


LABELS = {
    "words and letters": at("west", yes_no("Y", "N"), yes_no("Yes", "No")),
    "small letters": at("west", yes_no("Y", "N"), yes_no("y", "n")),
    "numbers for words": at("west", yes_no("Yes", "No"), yes_no("1", "0")),
    "German": at("west", yes_no("yes", "no"), yes_no("Ja", "Nein")),
    "Japanese": at("west", yes_no("あり", "なし"), yes_no("有", "無")),
    "full width": at("west", yes_no("CR", "PD"), yes_no("ＣＲ", "ＰＤ")),
    "accents, hyphens, blanks": at("west", yes_no("re-bled", "stable"), yes_no("Re bled", "STABLE")),
    "signs that part values": at("west", yes_no("low, =5", ">=6, high"), yes_no("Low, =5", ">=6, HIGH")),
}


@pytest.mark.parametrize("case", LABELS)
def test_a_label_that_a_site_spells_otherwise_is_asked_about(tmp_path: Path, project: Path, case: str) -> None:
    """With its positive value given and without; then every patient has the outcome that the site meant."""
    cells: Cells = {"outcome": LABELS[case]}
    positive = next(LABELS[case]("north", i) for i in range(30) if chance("north", i) < 0.4)
    said = r"people\.outcome: 2 values are spelled in several ways .* at west: --same"
    for label in ("people.outcome", f"people.outcome={positive}"):
        with pytest.raises(DataError, match=said) as caught:
            draft(tmp_path / "t", project, cells, label)
    same = [text.strip("'") for text in re.findall(r"--same ('[^']*'|[^ ;]+)", str(caught.value))]
    assert len(same) == 2
    found = draft(tmp_path / "t", project, cells, f"people.outcome={positive}", same=tuple(same))
    place(found, project)
    assert all(result.success for result in check_sites(found.study, project).values())
    labels = {site: int(own.labels.sum()) for site, own in read_sites(found.study, project).items()}
    assert labels == {site: sum(chance(site, i) < 0.4 for i in range(30)) for site in SITES}


def test_one_answer_may_be_for_all_columns_that_it_fits(tmp_path: Path, project: Path) -> None:
    spelled = at("west", yes_no("Y", "N"), yes_no("yes", "no"))
    cells: Cells = {"outcome": spelled, "drug": lambda s, i: spelled(s, 29 - i), "unit": lambda s, i: "Y"}
    found = draft(tmp_path / "t", project, cells, "people.outcome=Y", same=("Y=yes", "N=no"))
    columns = found.study.data.reading.columns
    assert {place: dict(rules.same) for place, rules in columns.items()} == {
        "people.outcome": {"Y": ("yes",), "N": ("no",)},
        "people.drug": {"Y": ("yes",), "N": ("no",)},
    }


def test_codes_of_an_input_and_a_tests_name_are_asked_about_too(tmp_path: Path, project: Path) -> None:
    """What is `where` or a code in the study would select nothing at the site that writes it otherwise."""
    cells: Cells = {"sex": at("isle", yes_no("F", "M"), yes_no("female", "male")), "arm": yes_no("Active", "placebo")}
    folder = tmp_path / "t"
    with pytest.raises(DataError, match=r"people\.sex: 2 values are spelled .*\(.*F = female.*\) at isle"):
        draft(folder, project, cells)
    keys = ("id", "test", "value")
    for site in SITES:
        rows = [
            {"id": f"a{i}", "test": test.lower() if site == "south" else test, "value": 40 + noise(site, i, n)}
            for i in range(30)
            for n, test in enumerate(("ALB", "ALT"))
        ]
        write_csv(folder / site / "labs.csv", keys, rows)
    with pytest.raises(DataError, match=r"labs\.test: 2 values are spelled .*ALB = alb.* at south"):
        draft_study(folder, DraftOptions("people.outcome", name="small"), project / "expectations")


def test_more_spellings_than_categories_are_texts_unless_they_name_tests(tmp_path: Path, project: Path) -> None:
    def term(site: str, i: int) -> str:
        return f"term {i}".upper() if site == "east" else f"term {i}"

    assert draft(tmp_path / "t", project, {"remark": term}).study.input_names == ["x"]
    with pytest.raises(DataError, match=r"people\.lab_test: 30 values are spelled in several ways .* at east"):
        draft(tmp_path / "t", project, {"lab_test": term})


def test_a_spelling_that_few_patients_have_is_counted(tmp_path: Path, project: Path) -> None:
    cells: Cells = {
        "smoker": lambda s, i: "NEVER" if (s, i) == ("east", 3) else ["never", "current"][chance(s, i) < 0.3]
    }
    with pytest.raises(DataError, match="never = 1 that fewer than 5 patients have") as caught:
        draft(tmp_path / "t", project, cells)
    assert "NEVER" not in str(caught.value)
    assert "--same people.smoker:VALUE=OTHER,OTHER" in str(caught.value)


OTHER_CODES = {
    "a label of 1 and 2 among 0 and 1": (
        {"outcome": at("west", lambda s, i: i % 2, lambda s, i: 1 + i % 2)},
        "people.outcome=1",
        r"people\.outcome: its (negative )?values at west are none that most other sites have",
    ),
    "a label in other words": (
        {"outcome": at("west", yes_no("relapse", "remission"), yes_no("progress", "cured"))},
        "people.outcome=relapse",
        r"people\.outcome: its values at west are none that most other sites have",
    ),
    "a label where nobody is positive": (
        {"outcome": at("west", yes_no("relapse", "remission"), lambda s, i: "free")},
        "people.outcome=relapse",
        r"people\.outcome: its values at west are not those of most other sites",
    ),
    "words at three sites, numbers at two": (
        {"pain": lambda s, i: ["mild", "severe"][i // 2 % 2] if s in SITES[:3] else i // 2 % 2},
        "people.outcome",
        r"people\.pain: its values at east, isle are none that most other sites have",
    ),
    "two sites, two codes": (
        {"sex": at("south", yes_no("A", "B"), yes_no("P", "Q"))},
        "people.outcome",
        r"people\.sex: its values at south are none",
    ),
    "an input of 1 and 2 among 0 and 1": (
        {"insulin": at("west", lambda s, i: int(chance(s, i) < 0.5), lambda s, i: 1 + int(chance(s, i) < 0.5))},
        "people.outcome",
        r"people\.insulin: its values at west are none",
    ),
    "a shared third value, other words": (
        {"outcome": at("west", thirds("ill", "well", "NE"), thirds("krank", "gesund", "NE"))},
        "people.outcome=ill",
        r"people\.outcome: its values at west are ",
    ),
    "a shared negative value": (
        {"outcome": at("isle", yes_no("Responder", "NR"), yes_no("CR", "NR"))},
        "people.outcome=Responder",
        r"people\.outcome: its values at isle are ",
    ),
    "numbers that mean the opposite": (
        {"outcome": at("isle", thirds(1, 0, 3), thirds(2, 1, 3))},
        "people.outcome=1",
        r"people\.outcome: its values at isle are not those of most other sites",
    ),
    "no positive, and a value of its own": (
        {"outcome": at("east", yes_no("Y", "N"), yes_no("NE", "N"))},
        "people.outcome=Y",
        r"people\.outcome: its values at east are ",
    ),
    "an outcome that one site left empty": (
        {"outcome": at("east", yes_no("Y", "N"), lambda s, i: "")},
        "people.outcome=Y",
        r"people\.outcome: its values at east are not",
    ),
    "a grade that begins at 1": (
        {"outcome": at("west", lambda s, i: i % 3, lambda s, i: 1 + i % 3)},
        "people.outcome>=1",
        r"people\.outcome: its values at west are not",
    ),
    "an input with a shared third value": (
        {"stage": at("west", thirds("early", "late", "NE"), thirds("E", "L", "NE"))},
        "people.outcome",
        r"people\.stage: its values at west are none that most other sites have",
    ),
    "one test of four under another name": (
        {
            "marker": at(
                "west", lambda s, i: ["ALT", "AST", "CRP", "Na"][i % 4], lambda s, i: ["ALT", "GOT", "CRP", "Na"][i % 4]
            )
        },
        "people.outcome",
        r"people\.marker: its values at west are none",
    ),
    "twenty tests under other names": (
        {"marker": at("west", lambda s, i: f"L{i % 20}", lambda s, i: f"lab {i % 20}")},
        "people.outcome",
        r"people\.marker: its values at west are none",
    ),
}


@pytest.mark.parametrize("case", OTHER_CODES)
def test_a_site_with_codes_of_its_own_is_asked_about(tmp_path: Path, project: Path, case: str) -> None:
    cells, label, said = OTHER_CODES[case]
    sites = ("north", "south") if "two sites" in case else SITES
    with pytest.raises(DataError, match=said) as caught:
        draft(tmp_path / "t", project, cells, label, sites)
    (place_,) = set(re.findall(r"--keep (\S+)", str(caught.value)))
    assert draft(tmp_path / "t", project, cells, label, sites, keep=(place_,)).outcome.table == "people"


def test_words_for_yes_count_beside_a_third_value(tmp_path: Path, project: Path) -> None:
    """In a label and in an input; the third stays what it is."""
    spelled = at("west", thirds("Y", "N", "ex"), thirds("Yes", "No", "ex"))
    with pytest.raises(
        DataError, match=r"people\.outcome: 2 values are spelled .*\n.*people\.smoker: 2 values are"
    ) as caught:
        draft(tmp_path / "t", project, {"outcome": spelled, "smoker": spelled}, "people.outcome=Y")
    assert "ex" not in re.findall(r"\((.*?)\)", str(caught.value))[0].split(" = ")
    told = {"same": ("Y=Yes", "N=No")}
    found = draft(tmp_path / "t", project, {"outcome": spelled, "smoker": spelled}, "people.outcome=Y", **told)
    codes = {c for spec in found.study.inputs if spec.column == "smoker" for c in spec.codes or ()}
    assert codes <= {"N", "Y", "ex"}


def test_every_question_of_a_column_is_shown(tmp_path: Path, project: Path) -> None:
    """One `--keep` answers them all: spellings and other codes, and a label's with those of other columns."""
    graded = {
        "north": ["mild", "bad", "NE"],
        "south": ["mild", "bad", "NE"],
        "west": ["Mild", "bad", "NE"],
    }
    cells: Cells = {
        "grade": lambda s, i: graded.get(s, ["mild", "bad", "NE"] if s == "east" else ["1", "2", "NE"])[i % 3],
        "outcome": at("isle", yes_no("Responder", "NR"), yes_no("CR", "NR")),
    }
    with pytest.raises(DataError) as caught:
        draft(tmp_path / "t", project, cells, "people.outcome=Responder")
    asked = re.findall(r"^  people\.(\w+): (.*?) at \w+", str(caught.value), re.MULTILINE)
    assert [column for column, _ in asked] == ["outcome", "grade", "grade", "outcome"]


@pytest.mark.parametrize(
    "cells",
    [
        {"outcome": at("west", lambda s, i: i % 2, lambda s, i: 0)},
        {"outcome": at("west", lambda s, i: i % 2, lambda s, i: 1)},
        {"country": lambda s, i: {"north": "DE", "south": "NA"}.get(s, "FR")},
        {"ward": lambda s, i: f"{s} {i % 3}"},
        {"allele": lambda s, i: "TYN"[int(chance(s, i) * 3)], "base": lambda s, i: "ACGTN"[int(chance(s, i, 1) * 5)]},
        {"age": lambda s, i: 20 + SITES.index(s) // 2 + 5 * (i % 7)},
        {"stage": lambda s, i: ["I", "II", "III"][min(2, int(chance(s, i) * 3) + (s == "east"))]},
    ],
    ids=[
        "no case",
        "cases only",
        "a country each",
        "wards of their own",
        "letters that are no words",
        "ages",
        "late stages",
    ],
)
def test_sites_may_differ_in_what_they_have(tmp_path: Path, project: Path, cells: Cells) -> None:
    keep = ("people.allele",) if "allele" in cells else ()
    assert draft(tmp_path / "t", project, cells, keep=keep).study.sites.keys() == set(SITES)


def test_a_graded_outcome_begins_where_the_label_says(tmp_path: Path, project: Path) -> None:
    cells: Cells = {"outcome": lambda s, i: int(chance(s, i) * 5)}
    with pytest.raises(
        DataError, match=r"5 different values, .* or where they begin: --label 'people\.outcome>=VALUE'"
    ):
        draft(tmp_path / "t", project, cells)
    for label, met, why in (
        ("people.outcome>=1", lambda v: v >= 1, "as --label says"),
        ("people.outcome <= 2", lambda v: v <= 2, "as --label says"),
        ("people.outcome=1", lambda v: v == 1, "as --label says; 4 other values count as negative"),
    ):
        found = draft(tmp_path / "t", project, cells, label)
        assert found.outcome.why == why
        place_in = tmp_path / label.replace(">", "g").replace("<", "l").replace(" ", "")
        place(found, place_in)
        arrays = read_sites(found.study, place_in)
        assert {s: int(own.labels.sum()) for s, own in arrays.items()} == {
            s: sum(met(int(chance(s, i) * 5)) for i in range(30)) for s in SITES
        }
    assert "outcome" not in found.study.input_names


@pytest.mark.parametrize(
    ("label", "match"),
    [
        ("people.outcome>0", "write >= and the last value that counts"),
        ("people.outcome>=mild", "the column holds numbers"),
        ("people.arm>=1", "people.arm>=1: the column holds no numbers; write =VALUE"),
        ("people.grade>=1", "people has no column grade"),
    ],
)
def test_a_bound_that_says_nothing_is_refused(tmp_path: Path, project: Path, label: str, match: str) -> None:
    cells: Cells = {"outcome": lambda s, i: int(chance(s, i) * 5), "arm": lambda s, i: "ab"[i % 2]}
    with pytest.raises(ConfigError, match=match):
        draft(tmp_path / "t", project, cells, label)


def test_empty_cells_of_a_label_are_counted_aloud(tmp_path: Path, project: Path) -> None:
    cells: Cells = {"outcome": lambda s, i: "" if i % 10 == 3 else i % 2}
    assert draft(tmp_path / "t", project, cells, "people.outcome=1").outcome.why == (
        "as --label says; 15 empty cells count as negative"
    )
