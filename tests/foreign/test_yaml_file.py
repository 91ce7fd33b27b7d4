"""A hostile YAML file is refused by its line; each attack has a twin that is just within the limits and is read."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.data.checks.suites import load_suite
from tasks.data.checks.waivers import load_waivers
from tasks.data.pin import read_pin
from tasks.errors import ConfigError, DataError, PharmafedError
from tasks.exam.asking.prices import cost
from tasks.exam.asking.prompts import load_prompt
from tasks.exam.bank.items import load_exam
from tasks.exam.bank.jsonl import read_lines
from tasks.exam.bank.practice import build_practice
from tasks.foreign.yaml_file import MAX_DEPTH, MAX_NUMBER, read_yaml
from tasks.study.file import load_study

DEEP = "[" * 100_000
HEAD = "first: 1\nsecond:"


def bomb(levels: int) -> str:
    """Billion laughs: each level holds the one before ten times."""
    lines = ["a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


#: Name -> attack, its twin within the limits, what is said.
ATTACKS: dict[str, tuple[str, str, str]] = {
    "deep list": (f"{HEAD} {DEEP}", f"{HEAD} {'[' * (MAX_DEPTH - 1)}{']' * (MAX_DEPTH - 1)}", ":2: lists and mappings"),
    "deep mapping": (f"{HEAD} {'{a: ' * 100_000}", f"{HEAD} {{a: {{b: 1}}}}", ":2: lists and mappings nested"),
    "deep by dashes": (f"first: 1\n{'- ' * 100_000}1", "- - - 1", "nested|readable"),
    "aliases": (bomb(9), bomb(4), r":\d+: more than 1,000,000 values"),
    "an alias of itself": ("a: &a [1, *a]", "a: &a [1]\nb: *a", r":1: \*a stands for nothing before it, or for itself"),
    "a merge of aliases": (
        bomb(9) + "b: {<<: [*a8]}",
        "a: &a {x: 1}\nb: {<<: *a}",
        r":\d+: more than 1,000,000 values",
    ),
    "a Python object": ("a: 1\nb: !!python/object/apply:os.system [id]", "a: 1\nb: os.system", ":2: a tag"),
    "a long number": (f"a: 1{':10' * 100_000}", f"a: {'1' * MAX_NUMBER}", ":1: a number of 300,001 characters"),
    "no date": ("a: 2026-13-45", "a: '2026-13-45'", "a number or date that there cannot be"),
    "control characters": ("a: 1\nb: \x07", "a: 1\nb: x", "not readable as YAML"),
    "too large": ("# " + "x" * (4 << 20), "# " + "x" * (1 << 20), "more than the 4,194,304"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_document_is_refused_by_its_line_and_its_twin_is_read(name: str, tmp_path: Path) -> None:
    attack, twin, says = ATTACKS[name]
    path = tmp_path / "a.yaml"
    path.write_text(attack)
    with pytest.raises(ConfigError, match=says) as caught:
        read_yaml(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 400, "the attack is not repeated in the message"
    path.write_text(twin)
    read_yaml(path)


def test_aliases_and_lines_of_an_ordinary_file_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("quick: &quick {total: 3}\nrounds:\n  <<: *quick\n  min_sites: 2\n")
    document = read_yaml(path)
    assert document.content["rounds"] == {"total": 3, "min_sites": 2}
    assert document.root is not None
    assert document.root.start_mark.line == 0


def test_the_old_reader_was_ended_by_depth(tmp_path: Path) -> None:
    """The control: the loader underneath dies of what `read_yaml` refuses, so the check must come before it."""
    (tmp_path / "a.yaml").write_text(DEEP)
    code = "import sys, yaml; yaml.load(open(sys.argv[1]), Loader=yaml.CSafeLoader)"
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a.yaml"], capture_output=True, preexec_fn=no_core)
    assert done.returncode < 0, "ended by a signal"


def no_core() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@pytest.mark.parametrize("make", [lambda path: os.mkfifo(path), lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
def test_what_is_no_file_is_neither_waited_for_nor_read_for_ever(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match=r"a\.yaml: no ordinary file but a (pipe|device|folder)"):
        read_yaml(tmp_path / "a.yaml")


def study(root: Path, text: str) -> None:
    (root / "a.yaml").write_text(text)
    load_study(root / "a.yaml")


def waivers(root: Path, text: str) -> None:
    (root / "waivers.yaml").write_text(text)
    load_waivers(root / "waivers.yaml", ())


def pin(root: Path, text: str) -> None:
    (root / "data.dvc").write_text(text)
    read_pin(root / "data.dvc")


def prompt(root: Path, text: str) -> None:
    (root / "exams/prompts/en").mkdir(parents=True)
    (root / "exams/prompts/en/v1.yaml").write_text(text)
    load_prompt("en/v1")


def prices(root: Path, text: str) -> None:
    (root / "exams").mkdir()
    (root / "exams/prices.yaml").write_text(text)
    cost("a/b", "b", 1, 1)


def practice(root: Path, text: str) -> None:
    (root / "exam.yaml").write_text(text)
    build_practice(root, source=root)


def suite(root: Path, text: str) -> None:
    (root / "adsl.json").write_text(text)
    load_suite(root, "adsl")


def exam(root: Path, text: str) -> None:
    (root / "exam.json").write_text(text)
    load_exam(root)


def lines(root: Path, text: str) -> None:
    (root / "data.jsonl").write_text(text)
    read_lines(root / "data.jsonl")


YAML_READERS = [study, waivers, pin, prompt, prices, practice]
JSON_READERS = [suite, exam, lines]


@pytest.mark.parametrize("read", YAML_READERS)
@pytest.mark.parametrize("text", [DEEP, bomb(9), "!!python/name:os.system"], ids=["deep", "bomb", "tag"])
def test_every_reader_of_yaml_refuses_in_words(
    read: Callable[[Path, str], None], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHARMAFED_PROJECT", str(tmp_path))
    with pytest.raises((ConfigError, DataError), match=r":\d+: (lists and mappings|more than|a tag)"):
        read(tmp_path, text)


@pytest.mark.parametrize("read", JSON_READERS)
@pytest.mark.parametrize(
    "text",
    [DEEP, '{"a":' * 100_000, json.dumps({"a": 1}).replace("1", "9" * 5_000), '"' + "x" * (65 << 20) + '"'],
    ids=["deep list", "deep mapping", "long number", "too large"],
)
def test_every_reader_of_json_refuses_in_words(read: Callable[[Path, str], None], text: str, tmp_path: Path) -> None:
    with pytest.raises(PharmafedError) as caught:
        read(tmp_path, text)
    assert str(tmp_path) in str(caught.value)
    assert len(str(caught.value)) < 500
