"""Faults are told once each, with their places, and no more of them than a person reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.errors import DataError
from tasks.exam.bank.faults import MAX_FAULTS, Faults, first_few


def test_no_fault_is_no_error() -> None:
    faults = Faults()
    assert not faults
    faults.refuse()


def test_one_fault_is_one_sentence() -> None:
    faults = Faults()
    faults.add(Path("a"), "is wrong", "Mend it", "line 3")
    with pytest.raises(DataError, match=r"^a line 3: is wrong\. Mend it; nothing has been imported$"):
        faults.refuse()


def test_the_same_fault_in_many_lines_is_told_once() -> None:
    faults = Faults()
    for number in range(1, 400):
        faults.add(Path("a"), "is wrong", "Mend it", f"line {number}")
    faults.add_error(DataError("b is missing; nothing has been imported"))
    with pytest.raises(DataError) as refused:
        faults.refuse()
    lines = str(refused.value).splitlines()
    assert lines[:2] == ["2 faults, and nothing has been imported:", "b is missing"]
    assert lines[2].startswith("a line 1: is wrong (and line 2, line 3, ")
    assert lines[2].endswith("line 11 ... 398 in all). Mend it")


def test_of_very_many_faults_the_first_are_told() -> None:
    faults = Faults()
    for number in range(1000):
        faults.add("a", f"fault {number}", "Mend it")
    with pytest.raises(DataError) as refused:
        faults.refuse()
    lines = str(refused.value).splitlines()
    assert (len(lines), lines[-1]) == (MAX_FAULTS + 2, f"... and {1000 - MAX_FAULTS} more")


def test_names_are_listed_up_to_ten() -> None:
    assert first_few("abc") == "a, b, c"
    assert first_few(map(str, range(12))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 ... 12 in all"
