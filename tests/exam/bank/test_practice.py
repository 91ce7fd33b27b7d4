"""Our own exam: complete, right where arithmetic can tell, and built with the same bytes every time."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import pytest
import yaml
from PIL import Image

from tasks.errors import DataError
from tasks.exam.bank.items import exam_folder, load_exam, subject_table
from tasks.exam.bank.numeric import labels_for
from tasks.exam.bank.practice import build_practice
from tasks.exam.bank.records import Exam
from tasks.store.settings import PROJECT

SOURCE = PROJECT / "exams" / "practice"


@pytest.fixture(scope="module")
def data(practice_data: Path) -> Path:
    return practice_data


@pytest.fixture(scope="module")
def exam(data: Path) -> Exam:
    return load_exam(exam_folder(data, "practice"))


def test_the_exam_is_complete(exam: Exam) -> None:
    assert [item.number for item in exam.items] == list(range(1, 67))
    assert (exam.languages, exam.licence, exam.human_mean) == (("ja", "en"), "Apache-2.0", None)
    essential, general = subject_table(exam).values()
    assert tuple(essential.values()) == (2, 2, 2, 3, 2, 2, 2, 2, 2)
    assert tuple(general.values()) == (4, 4, 4, 5, 6, 6, 6, 4, 8)
    order = [(item.section, list(essential).index(item.subject)) for item in exam.items]
    assert order == sorted(order)
    assert Counter(item.n_select for item in exam.items) == {1: 50, 2: 16}
    assert [item.id for item in exam.items if item.no_solution] == ["pceu-7"]
    assert [item.id for item in exam.items if len(item.answers) > 1] == ["pceu-6"]
    assert len({item.case for item in exam.items if item.case}) == 3
    assert len({item.source for item in exam.items}) > 40


def test_both_items_of_a_case_are_asked_with_its_scenario(exam: Exam) -> None:
    linked = [item for item in exam.items if item.case]
    assert len(linked) == 6
    for language in exam.languages:
        told = {(item.case, item.text[language].scenario) for item in linked}
        assert len(told) == 3
        assert all(scenario for _, scenario in told)


def test_the_english_arm_asks_the_same(exam: Exam) -> None:
    assert len(exam.items) == 66
    for item in exam.items:
        assert len(item.text["en"].choices) == item.num_choices == 5
        assert labels_for(item.text["en"].choices, 5) == item.labels
        assert ("2つ選べ" in item.text["ja"].stem) == ("Choose two" in item.text["en"].stem) == (item.n_select == 2)
        if item.labels[0] == "A":
            assert item.text["en"].choices == item.text["ja"].choices


def test_the_rationale_is_not_part_of_the_exam(exam: Exam, data: Path) -> None:
    built = (exam_folder(data, "practice") / "exam.json").read_text(encoding="utf-8")
    rationales = [item["rationale"] for path in SOURCE.glob("*.yaml") for item in entries(path)]
    assert len(rationales) == 66
    assert not [text for text in rationales if text[:40] in built]
    assert "A solution has an absorbance of 1.0" in built


def entries(path: Path) -> list[dict[str, str]]:
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.stem != "exam" else []


def test_diagrams_are_pictures_of_a_size_to_read(exam: Exam, data: Path) -> None:
    names = [name for item in exam.items for name in item.images]
    assert len(names) == len(set(names)) == 13
    assert all(item.diagram == bool(item.images) for item in exam.items)
    for name in names:
        with Image.open(exam_folder(data, "practice") / "images" / name) as image:
            assert image.size == (800, 500)
            assert image.convert("L").getextrema() == (0, 255)


def test_the_same_source_gives_the_same_bytes(data: Path, tmp_path: Path) -> None:
    with mpl.rc_context({"font.size": 30, "savefig.dpi": 20, "lines.linewidth": 9}):
        build_practice(tmp_path)
    first, second = (
        {path.relative_to(folder): path.read_bytes() for path in files(folder)} for folder in (data, tmp_path)
    )
    assert len(first) == 14
    assert first == second


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


#: What the numbers in the stem and the figure give, computed anew.
COMPUTED = {
    "phys-1": 100 * 10 ** -(1.0 / 2),
    "phys-4": 50 / 10 * math.log2(1 / 0.125),
    "phys-5": 1.18 * (7.1 - 6.0) / (0.30 + 0.36),
    "chem-4": 2**3,
    "bio-4": 0.5 * 0.5,
    "bio-6": (0.70 - 0.10) / 0.010 * (10 + 490) / 10 / 1000,
    "hyg-2": (30 / 200) / (20 / 400),
    "hyg-4": 5 * 2 * (2 / 20),
    "hyg-6": 2 / 100 * 50,
    "pcol-7": math.log10(2.2e-7 / 2.0e-8 - 1) - math.log10(1.0e-7),
    "pceu-3": 0.693 / 4 * 400 / 20,
    "pceu-5": 0.693 / (10 - 2),
    "pceu-8": 500 * 15 / (5 + 15),
    "path-6": 9.6 + 4.0 - 2.2,
    "path-8": 1 + 1 + 1 + 2,
    "prac-4": 500 * (0.693 / 8 * 35) / 2,
    "prac-6": 3 * 60 * 60 / 1000 / (600 / 200),
}
#: 残留塩素 is a rule of law, not of arithmetic; pceu-7 has no solution.
NOT_COMPUTED = {"hyg-3", "pceu-7"}


def value(choice: str) -> float:
    number = choice.removesuffix(" h")
    above, _, below = number.partition("/")
    return float(above) / float(below or 1)


def test_the_keyed_quantity_is_the_one_closest_to_the_computed(exam: Exam) -> None:
    lettered = {item.id: item for item in exam.items if item.labels[0] == "A"}
    assert set(lettered) == set(COMPUTED) | NOT_COMPUTED
    for name, computed in COMPUTED.items():
        values = [value(choice) for choice in lettered[name].text["ja"].choices]
        distances = [abs(each - computed) for each in values]
        best = distances.index(min(distances))
        assert lettered[name].answers == ((str(best + 1),),), name
        assert distances[best] <= 0.03 * computed, name
    assert not [
        each for each in map(value, lettered["pceu-7"].text["ja"].choices) if math.isclose(each, 0.10 * 0.50 * 50)
    ]


def replaced(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(source: Path) -> None:
        text = (source / name).read_text(encoding="utf-8")
        assert old in text
        (source / name).write_text(text.replace(old, new, 1), encoding="utf-8")

    return edit


BAD_SOURCES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a key misspelt": (
        replaced("physics.yaml", "n_select", "select"),
        r"physics\.yaml \(phys-1\): n_select: Field",
    ),
    "an unknown subject": (replaced("physics.yaml", "subject: physics", "subject: magic"), r"\(phys-1\): subject: "),
    "another subject": (replaced("physics.yaml", "subject: physics", "subject: biology"), "move it to biology.yaml"),
    "an answer outside": (replaced("physics.yaml", '[["3"]]', '[["6"]]'), "phys-1: an answer outside its 5 options"),
    "an id twice": (replaced("physics.yaml", "id: phys-2", "id: phys-1"), "2 items have the id phys-1"),
    "no figure": (
        replaced("physics.yaml", "titration.png", "titration2.png"),
        r"titration2\.png \(phys-3\) is mis",
    ),
    "half a case": (replaced("practice.yaml", "case: warfarin-bleed", ""), "case warfarin-bleed has 1 items"),
    "two scenarios": (
        replaced("practice.yaml", "case: warfarin-bleed", "case: warfarin-bleed\n  scenario: {ja: a, en: b}"),
        "prac-3: a scenario belongs to a case and is told once",
    ),
    "no YAML": (replaced("physics.yaml", '[["3"]]', '[["3"'), r"physics\.yaml:\d+: not readable as YAML"),
    "no list": (lambda source: (source / "physics.yaml").write_text("id: 1"), "is not a list of items"),
    "no file": (lambda source: (source / "biology.yaml").unlink(), r"biology\.yaml is missing"),
    "no script": (lambda source: (source / "figures.py").unlink(), r"figures\.py is missing"),
    "no licence": (replaced("exam.yaml", "licence: Apache-2.0\n", ""), r"exam\.yaml: licence: Field required"),
}


def stub() -> str:
    """A script that draws fast, under the names that the items give."""
    named = {entry.get("figure") for path in SOURCE.glob("*.yaml") for entry in entries(path)} - {None}
    return f"""
from PIL import Image
def draw_all(folder):
    for name in {sorted(named)}:
        Image.new("L", (8, 8)).save(folder / name)
"""


@pytest.mark.parametrize("name", BAD_SOURCES)
def test_a_bad_source_is_refused(tmp_path: Path, name: str) -> None:
    edit, message = BAD_SOURCES[name]
    source = tmp_path / "source"
    shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("__pycache__"))
    if name not in ("no figure", "no script"):
        (source / "figures.py").write_text(stub())
        (source / "figures_clinical.py").write_text("def draw_all(folder):\n    pass\n")
    edit(source)
    with pytest.raises(DataError, match=message):
        build_practice(tmp_path / "data", source=source)
    assert not (tmp_path / "data").exists()
