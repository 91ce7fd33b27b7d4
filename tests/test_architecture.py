"""docs/architecture.md names what there is, and its examples are applied as a reader would apply them."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tasks.store import keys
from tasks.store.settings import PROJECT
from tests.house import ROOMS
from tests.worked_examples import PAGE, apply, blocks, patched

TEXT = PAGE.read_text()
EXAMPLES = ("## One mechanism more", "## One strategy more", "## One channel more")
NEW = {path for heading in EXAMPLES for path, (kind, _) in blocks(heading).items() if kind == "python"}


def section(heading: str) -> str:
    return TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def quoted(text: str) -> set[str]:
    return set(re.findall(r"`([^`\s]+)`", text))


def test_every_file_that_it_names_is_there() -> None:
    folders = r"(?:tasks|tests|dags|docs|fuzz|exams|expectations)/[\w./]*"
    named = {path for path in quoted(TEXT) if re.fullmatch(folders, path)}
    assert len(named) > 40
    assert {path for path in named - NEW if not (PROJECT / path).exists()} == set()


def test_its_rooms_are_those_that_there_are_in_their_order() -> None:
    assert tuple(re.findall(r"^\| `(\w+)/` \|", section("The rooms"), re.MULTILINE)) == ROOMS


def test_every_function_on_an_update_s_way_is_there() -> None:
    named = {name for name in quoted(section("The way of one update")) if re.fullmatch(r"[a-z_]+(\.\w+){2,}", name)}
    named = {name for name in named if name.split(".")[0] in ROOMS}
    assert len(named) > 20
    for name in named:
        found: Any = None
        for part in f"tasks.{name}".split("."):
            here = getattr(found, part, None)
            found = here if here is not None else import_module(f"{found.__name__}.{part}" if found else part)
        assert found is not None, name


def test_every_key_on_its_way_is_one_of_the_store() -> None:
    """`N` is a round's number and `S` a site's name."""
    cells = quoted(section("The way of one update"))
    places = {cell for cell in cells if re.match(r"(rounds|sites|records|models|ledger|reports)/", cell)}
    forms = [
        form.removeprefix(f"{keys.STUDY}/").replace("{server_round}", "N").replace("{site}", "S")
        for form in keys.KEYS.values()
    ]
    assert len(places) >= 12
    assert {one for one in places if not any(form.startswith(one.rstrip("…")) for form in forms)} == set()


@pytest.mark.parametrize("heading", EXAMPLES)
def test_an_example_is_not_in_the_tree_and_the_tree_is_as_it_says(heading: str, tmp_path: Path) -> None:
    for path, (kind, _) in blocks(heading).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        if kind == "diff":
            (tmp_path / path).write_text((PROJECT / path).read_text())
    assert set(apply(heading, tmp_path)) == set(blocks(heading))
    with pytest.raises(AssertionError):
        apply(heading, tmp_path)  # what is new is there, and what was there is changed


@pytest.mark.parametrize(
    ("diff", "made"),
    [
        (" b\n+c\n", "a\nb\nc\nd\n"),
        ("-b\n+c\n d\n", "a\nc\nd\n"),
        ("@@\n a\n+1\n@@ the end\n d\n+2\n", "a\n1\nb\nd\n2\n"),
    ],
)
def test_a_diff_is_put_where_it_says(diff: str, made: str) -> None:
    assert patched("a\nb\nd\n", diff) == made


@pytest.mark.parametrize("diff", [" c\n+e\n", "-a\n-d\n", "+e\n", "", "?b\n"])
def test_a_diff_of_what_is_not_there_is_refused(diff: str) -> None:
    with pytest.raises(AssertionError):
        patched("a\nb\nd\n", diff)


def test_what_is_there_twice_is_no_place() -> None:
    with pytest.raises(AssertionError, match="2 times"):
        patched("a\nb\na\n", " a\n+c\n")


def test_a_block_without_its_file_is_refused() -> None:
    page = "## One\n\n`tasks/a.py`, new:\n\n```python\nx = 1\n```\n\n## Two\n\n```python\ny = 1\n```\n"
    assert blocks("## One", page) == {"tasks/a.py": ("python", "x = 1\n")}
    with pytest.raises(AssertionError, match="which file"):
        blocks("## Two", page)
