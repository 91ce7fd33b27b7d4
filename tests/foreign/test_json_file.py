"""JSON by people: every value has its line, whatever editor or program wrote the file, and nothing is read twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import ConfigError
from tasks.foreign.files import MAX_TEXT_BYTES
from tasks.foreign.json_file import MAX_DEPTH, read_json

CONTENT: dict[str, Any] = {
    "name": "labs",
    "text": 'a, "b": {c} [d] \\ 検査値 \U00020bb7',
    "deep": [{"values": [1, -2.5e3, True, None]}, {}, []],
}


def write(tmp_path: Path, raw: bytes | str) -> Path:
    path = tmp_path / "labs.json"
    path.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    return path


WRITTEN = {
    "by spaces": json.dumps(CONTENT, indent=2),
    "by tabs": json.dumps(CONTENT, indent="\t"),
    "by Windows, with a byte order mark": "\ufeff" + json.dumps(CONTENT, indent=1).replace("\n", "\r\n"),
    "with every character as it is": json.dumps(CONTENT, indent=2, ensure_ascii=False),
    "without blanks": json.dumps(CONTENT, separators=(",", ":")),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_the_content_is_that_of_json(how: str, tmp_path: Path) -> None:
    assert read_json(write(tmp_path, WRITTEN[how])).content == CONTENT


@pytest.mark.parametrize("how", ["by spaces", "by tabs", "by Windows, with a byte order mark"])
def test_every_value_has_its_line(how: str, tmp_path: Path) -> None:
    file = read_json(write(tmp_path, WRITTEN[how]))
    lines = WRITTEN[how].split("\n")
    found = {place: file.line(place) for place in [("name",), ("text",), ("deep",), ("deep", 0), ("deep", 0, "values")]}
    assert [lines[line - 1].strip()[:6] for line in found.values()] == ['"name"', '"text"', '"deep"', "{", '"value']
    assert lines[file.line(("deep", 0, "values", 1)) - 1].strip() == "-2500.0,"
    assert file.line(("deep", 0, "missing", "more")) == found["deep", 0]


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ('{"a": 1,\n "b": 2,\n "a": 3}', ":3: not readable as JSON: the key 'a' stands here for the second time"),
        ('{"a": [{"b": 1,\n"b": 1}]}', ":2: .*the key 'b' stands here"),
        ('{\n"a": 1,\n}', ":3: not readable as JSON: Expecting property name"),
        ("{'a': 1}", ":1: not readable as JSON: Expecting property name"),
        ('{"a": 1}\n{"b": 2}', ":2: not readable as JSON: Extra data"),
        ('{\n"a": 1 // years\n}', ":2: not readable as JSON: Expecting ',' delimiter"),
        ("", ":1: not readable as JSON: Expecting value"),
        ("[1,\nNaN]", ":2: .*no finite number"),
        ("[-Infinity]", ":1: .*no finite number"),
        ('{"a":\n1e999}', ":1: .*no finite number"),
        ("[" + "9" * 400 + "]", ":1: .*no finite number"),
        ("[" + "9" * 5000 + "]", "more than 4,300 digits"),
        ('{"a": "x\ty"}', ":1: .*Invalid control character"),
        ('["a",\n"\xff"]'.encode("latin-1"), ":2: .*it is not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), ":1: .*it is not UTF-8"),
        ("[" * (MAX_DEPTH + 1) + "1" + "]" * (MAX_DEPTH + 1), f":1: .*nested deeper than {MAX_DEPTH}"),
        ("[" * 100_000, f"nested deeper than {MAX_DEPTH}"),
        ('{"a":' * 100_000, f"nested deeper than {MAX_DEPTH}"),
    ],
)
def test_what_is_no_json_of_a_person_is_refused_with_its_line(raw: str | bytes, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"labs.json.*{problem}") as caught:
        read_json(write(tmp_path, raw))
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


def test_depth_up_to_the_limit_is_read(tmp_path: Path) -> None:
    assert read_json(write(tmp_path, "[" * MAX_DEPTH + "1" + "]" * MAX_DEPTH)).line((0,) * 99) == 1


def test_a_large_file_a_link_and_a_folder(tmp_path: Path) -> None:
    path = write(tmp_path, b" " * (MAX_TEXT_BYTES + 1))
    with pytest.raises(ConfigError, match="more than the 4,194,304"):
        read_json(path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="folder"):
        read_json(tmp_path / "folder")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")
