"""Lines of a JSON Lines file, each with its place. What is not UTF-8 or not JSON is refused by file and line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.errors import DataError
from tasks.foreign_files import read_ordinary

#: In this order: text in one of them can read as the next, seldom the other way round.
_JAPANESE = (("euc_jp", "EUC-JP"), ("cp932", "CP932"), ("iso2022_jp", "ISO-2022-JP"))
#: A year's examination has some hundred kilobytes.
MAX_BYTES = 64 << 20
_BOM = "\ufeff"
#: What a reader puts in place of bytes that it could not decode.
_LOST = "\ufffd"


@dataclass(frozen=True)
class Line:
    """One object of a file. `number` counts from 1."""

    path: Path
    number: int
    value: dict[str, Any]

    def refuse(self, problem: str, remedy: str) -> DataError:
        """The error for a bad line: its file, number, id, what is wrong and what to do."""
        identity = self.value.get("problem_id")
        name = f" ({identity})" if isinstance(identity, str) else ""
        return DataError(f"{self.path} line {self.number}{name}: {problem}. {remedy}; nothing has been imported")


def read_lines(path: Path) -> list[Line]:
    """Read a file of JSON objects, one a line; empty lines and byte order marks are passed over.

    Raises:
        DataError: the file is missing or empty, or a line is not UTF-8, not JSON or not an object.
    """
    try:
        content = read_ordinary(path, MAX_BYTES, DataError)
    except FileNotFoundError:
        raise DataError(f"{path} is missing: name the folder with the exam's JSON Lines files") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path} is UTF-16: convert it with `iconv -f UTF-16 -t UTF-8`; nothing has been imported")
    raw = content.split(b"\n")
    lines = [_parse(path, number, line, raw) for number, line in enumerate(raw, 1) if line.strip(b" \t\r\xef\xbb\xbf")]
    if not lines:
        raise DataError(f"{path} has no lines: fetch it again; nothing has been imported")
    return lines


def _parse(path: Path, number: int, raw: bytes, all_lines: list[bytes]) -> Line:
    nowhere = Line(path, number, {})
    try:
        text = raw.decode("utf-8").lstrip(_BOM)
    except UnicodeDecodeError:
        raise nowhere.refuse(*_encoding_problem(raw, all_lines)) from None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        remedy = "Correct the line or fetch the file again"
        raise nowhere.refuse(f"broken JSON at column {error.colno} ({error.msg})", remedy) from None
    except RecursionError:
        raise nowhere.refuse("JSON nested too deeply", "Fetch the file again") from None
    except ValueError:  # of int()
        raise nowhere.refuse("a number of thousands of digits", "Fetch the file again") from None
    if not isinstance(value, dict):
        raise nowhere.refuse("not a JSON object", "Fetch the file again")
    line = Line(path, number, value)
    if _LOST in text or "\\ufffd" in text.lower():
        remedy = "Fetch the file again and convert it from the encoding it was written in"
        raise line.refuse("characters were lost in an earlier conversion (U+FFFD)", remedy)
    return line


def _encoding_problem(raw: bytes, all_lines: list[bytes]) -> tuple[str, str]:
    """What is wrong and the remedy for a line that is not UTF-8."""
    name = next((name for codec, name in _JAPANESE if _decodes(raw, codec)), None)
    if any(_decodes(line, "utf-8") and not line.isascii() for line in all_lines):
        problem = "not UTF-8 while other lines are: the file mixes encodings"
        return problem + (f" (this line reads as {name})" if name else ""), "Convert the parts to UTF-8 before joining"
    if name is None:
        return "not UTF-8", "Convert the file to UTF-8"
    return f"not UTF-8, it reads as {name}", f"Convert the file with `iconv -f {name} -t UTF-8`"


def _decodes(raw: bytes, codec: str) -> bool:
    try:
        raw.decode(codec)
    except UnicodeDecodeError:
        return False
    return True
