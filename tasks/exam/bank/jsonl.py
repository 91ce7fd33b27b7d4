"""Lines of a JSON Lines file, each with its place. What is not UTF-8 or not JSON is refused by file and line."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.errors import DataError
from tasks.exam.bank.faults import Faults
from tasks.foreign.files import read_ordinary

#: In this order: text in one of them can read as the next, seldom the other way round.
_JAPANESE = (("euc_jp", "EUC-JP"), ("cp932", "CP932"), ("iso2022_jp", "ISO-2022-JP"))
#: A year's examination has some hundred kilobytes.
MAX_BYTES = 64 << 20
_BOM = "\ufeff"


@dataclass(frozen=True)
class JsonLine:
    """One object of a file. `number` counts from 1."""

    path: Path
    number: int
    value: dict[str, Any]

    @property
    def place(self) -> str:
        """Its number, and the id where it has one."""
        identity = self.value.get("problem_id")
        return f"line {self.number}" + (f" ({identity})" if isinstance(identity, str) else "")

    def fault(self, faults: Faults, problem: str, remedy: str) -> None:
        """Note what is wrong in this line and what to do."""
        faults.add(self.path, problem, remedy, self.place)


class _BadLine(Exception):
    """What is wrong with a line, and what to do."""

    def __init__(self, line: JsonLine, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.line, self.problem, self.remedy = line, problem, remedy


def read_lines(path: Path, faults: Faults | None = None, *, replaced: Collection[int] = ()) -> list[JsonLine]:
    """Read a file of JSON objects, one a line; empty lines, byte order marks and `replaced` lines are passed over.

    Lines that are not UTF-8, not JSON or not an object are left out and noted in `faults`; without it they are refused.

    Raises:
        DataError: the file is missing, empty or too large, or a line is at fault and no `faults` were given.
    """
    try:
        content = read_ordinary(path, MAX_BYTES, DataError)
    except FileNotFoundError:
        raise DataError(f"{path} is missing: name the folder with the exam's JSON Lines files") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path} is UTF-16: convert it with `iconv -f UTF-16 -t UTF-8`; nothing has been imported")
    raw = content.split(b"\n")
    if not any(map(_filled, raw)):
        raise DataError(f"{path} has no lines: fetch it again; nothing has been imported")
    noted = Faults() if faults is None else faults
    mixed = any(_decodes(line, "utf-8") and not line.isascii() for line in raw)
    wanted = [(number, line) for number, line in enumerate(raw, 1) if _filled(line) and number not in replaced]
    parsed = [_parse(path, number, line, noted, mixed) for number, line in wanted]
    if faults is None:
        noted.refuse()
    return [line for line in parsed if line is not None]


def _filled(line: bytes) -> bool:
    return bool(line.strip(b" \t\r\xef\xbb\xbf"))


def _parse(path: Path, number: int, raw: bytes, faults: Faults, mixed: bool) -> JsonLine | None:
    """None where the line is at fault."""
    try:
        return _object(path, number, raw, mixed)
    except _BadLine as bad:
        bad.line.fault(faults, bad.problem, bad.remedy)
        return None


def _object(path: Path, number: int, raw: bytes, mixed: bool) -> JsonLine:
    nowhere = JsonLine(path, number, {})
    try:
        text = raw.decode("utf-8").lstrip(_BOM)
        value = json.loads(text)
    except UnicodeDecodeError:
        raise _BadLine(nowhere, *_encoding_problem(raw, mixed)) from None
    except json.JSONDecodeError as error:
        problem = f"broken JSON at column {error.colno} ({error.msg})"
        raise _BadLine(nowhere, problem, "Correct the line or fetch the file again") from None
    except RecursionError:
        raise _BadLine(nowhere, "JSON nested too deeply", "Fetch the file again") from None
    except ValueError:  # of int()
        raise _BadLine(nowhere, "a number of thousands of digits", "Fetch the file again") from None
    if not isinstance(value, dict):
        raise _BadLine(nowhere, "not a JSON object", "Fetch the file again")
    return JsonLine(path, number, value)


def _encoding_problem(raw: bytes, mixed: bool) -> tuple[str, str]:
    """What is wrong and the remedy for a line that is not UTF-8."""
    name = next((name for codec, name in _JAPANESE if _decodes(raw, codec)), None)
    if mixed:
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
