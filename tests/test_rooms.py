"""The rooms of the house: each imports only rooms above it, has a map, and nothing lies before its doors."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tasks.store.settings import PROJECT
from tasks.study.privacy import PRIVACY_SECTIONS
from tests.house import (
    ROOMS,
    SECTIONS,
    SHARED_NAMES,
    House,
    asking_for_channel,
    asking_for_mechanism,
    cycles,
    doubles,
    graph_of,
    room_of,
    upward,
)

HOUSE = House(PROJECT)
PACKAGES = [path.parent for path in HOUSE.files if path.name == "__init__.py"]


def test_every_folder_is_a_room_and_three_modules_lie_loose() -> None:
    assert {room_of(name) for name in HOUSE.modules if "." in name} - set(HOUSE.loose) == set(ROOMS)
    assert set(HOUSE.loose) == {"errors", "models", "cli"}


def test_a_room_imports_only_rooms_above_it() -> None:
    """Also late, within a function; each line names itself."""
    found = HOUSE.between_rooms()
    assert len(found) > 500
    assert [str(each) for each in upward(found)] == []


def test_no_modules_import_each_other() -> None:
    assert cycles(graph_of((each.source, each.target) for each in HOUSE.imports())) == []


def test_what_lies_loose_needs_nothing_of_ours_and_nobody_needs_the_command() -> None:
    found = list(HOUSE.imports())
    assert [str(each) for each in found if each.source in ("tasks.errors", "tasks.models")] == []
    assert [str(each) for each in found if each.target == "tasks.cli"] == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_every_room_has_a_map_with_a_line_for_each_file(package: Path) -> None:
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    listed = re.findall(r"^ *(\w+/?) {2,}\S", text, re.MULTILINE)
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert set(listed) >= folders | {path.stem for path in package.glob("*.py")} - {"__init__"}
    inside = {line for line in listed if not (package / line).is_dir() and not (package / f"{line}.py").is_file()}
    assert inside <= {"every", "hub", "survivors"}, "those are of the steps of a secure sum"


def test_one_line_outside_privacy_asks_which_mechanism_it_is() -> None:
    """The page's, whose study may have another one by now than the round had."""
    (place,) = asking_for_mechanism(HOUSE)
    assert place.startswith("tasks/rounds/page/privacy_view.py:")
    assert {"PatientLevel", "NoiseShares", *(section.__name__ for section in PRIVACY_SECTIONS.values())} == SECTIONS


def test_only_a_study_s_rules_and_privacy_ask_which_channel_it_is() -> None:
    """Everybody else asks a channel what it does: a new one is a module, and its entry among the study's channels."""
    asking = asking_for_channel(HOUSE)
    assert {place.split("/")[1] for place in asking} <= {"study", "privacy"}
    assert len(asking) <= 10, asking


def test_no_two_modules_give_a_class_or_type_one_name() -> None:
    assert {name: places for name, places in doubles(HOUSE).items() if name not in SHARED_NAMES} == {}
    assert set(doubles(HOUSE)) == SHARED_NAMES


# that the test would see it


def built(root: Path, **files: str) -> House:
    """A house of these modules: `room__name` is `tasks/room/name.py`."""
    for name, text in files.items():
        path = root.joinpath("tasks", *name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name("__init__.py").touch()
        path.write_text(text)
    return House(root)


@pytest.mark.parametrize(
    "line",
    [
        "isinstance(privacy, LocalDP)",
        "isinstance(privacy, (GaussianUpdate | SparseVector))",
        "match privacy:\n    case NoPrivacy():\n        pass",
        "match privacy:\n    case PatientLevel(clip_norm=clip):\n        pass",
        "now.mechanism in ('svt', 'local_dp')",
        "mechanism == 'none'",
    ],
)
def test_a_line_that_asks_is_seen_but_for_those_of_privacy_itself(tmp_path: Path, line: str) -> None:
    house = built(tmp_path, report__page=line, privacy__door=line, study__privacy=line)
    (place,) = asking_for_mechanism(house)
    assert place.startswith("tasks/report/page.py:")


@pytest.mark.parametrize(
    "line",
    [
        "from tasks.rounds.open import f",
        "from tasks.rounds import open as g",
        "import tasks.rounds.open",
        "def f():\n    from tasks.rounds.open import f",
        "class A:\n    def f(self):\n        if True:\n            import tasks.rounds.open as o",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tasks.rounds.open import f",
        "try:\n    from tasks import rounds\nexcept ImportError:\n    pass",
    ],
)
def test_a_wrong_way_is_named_wherever_it_stands(tmp_path: Path, line: str) -> None:
    house = built(tmp_path, rounds__open="f = 1", study__file=line)
    (told,) = map(str, upward(house.between_rooms()))
    number = len(line.split("import tasks")[0].split("from tasks")[0].splitlines()) or 1
    assert re.fullmatch(rf"tasks/study/file\.py:{number}: tasks\.study\.file imports tasks\.rounds(\.open)?", told)


def test_the_right_way_and_a_room_s_own_modules_are_not_named(tmp_path: Path) -> None:
    right = "from tasks.study.file import f\nfrom tasks.rounds.close import g\nfrom tasks.errors import E"
    house = built(tmp_path, study__file="f = 1", rounds__close="g = 1", rounds__open=right, errors="E = 1", cli="")
    assert [room_of(each.target) for each in house.between_rooms()] == ["study", "errors"]
    assert upward(house.between_rooms()) == []
    assert cycles(graph_of((each.source, each.target) for each in house.imports())) == []


@pytest.mark.parametrize(
    "line",
    [
        'x = plan.aggregation == "masks"',
        'if channel != "plain":\n    pass',
        "y = plan.channel in MASKED",
        'x = plan.channel.name == "masks"',
        'x = "ckks" != channel.name',
        "x = study.channel is PLAIN",
    ],
)
def test_who_asks_for_a_channel_is_named_outside_its_room(tmp_path: Path, line: str) -> None:
    house = built(tmp_path, rounds__open=line, rounds__channels__open=line, study__file="x = plan.channel.adds_only")
    assert asking_for_channel(house) == ["tasks/rounds/open.py:1"]


def test_a_circle_is_found_with_all_that_are_in_it(tmp_path: Path) -> None:
    circle = {"a": "b", "b": "c", "c": "a", "d": "a"}
    files = {f"study__{name}": f"from tasks.study.{other} import x" for name, other in circle.items()}
    graph = graph_of((each.source, each.target) for each in built(tmp_path, **files).imports())
    assert cycles(graph) == [{"tasks.study.a", "tasks.study.b", "tasks.study.c"}]


@pytest.mark.parametrize(
    "line",
    [
        "class Run:\n    pass",
        "Run = dict[str, int]",
        "Run: TypeAlias = int | None",
        "Run = TypeVar('Run')",
        "Run = Literal['one']",
        "@dataclass\nclass Run(Record):\n    pass",
    ],
)
def test_a_name_of_two_things_is_told_with_both_places(tmp_path: Path, line: str) -> None:
    house = built(tmp_path, exam__records="class Run:\n    pass", deploy__follow=f"import os\n{line}")
    (number,) = (at for at, text in enumerate(line.splitlines(), 2) if "Run" in text)
    assert doubles(house) == {"Run": [f"tasks/deploy/follow.py:{number}", "tasks/exam/records.py:1"]}


@pytest.mark.parametrize(
    "line",
    [
        "from tasks.exam.records import Run",
        "from tasks.exam.records import Run as Run",
        "class _Run:\n    pass",
        "RUN = 'run.json'",
        "def run(Run: int) -> None:\n    class Run:\n        pass",
        "class Runs:\n    Run: int = 1",
        "if True:\n    from tasks.exam.records import Run",
    ],
)
def test_what_is_imported_private_or_within_is_no_second_thing(tmp_path: Path, line: str) -> None:
    house = built(tmp_path, exam__records="class Run:\n    pass\nRUN = 1", deploy__follow=line)
    assert doubles(house) == {}
