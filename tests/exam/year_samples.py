"""A made-up year in the YakugakuQA layout, and exam 107 where the environment names its folder."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from PIL import Image

ENVIRONMENT = "PHARMAFED_EXAM_107"
NAMES = ("Physics", "Chemistry", "Biology", "Hygiene", "Pharmacology", "Pharmacy", "Pathology", "Law")
#: Items by subject, in the order of the paper's tables; every year since 2012 has them.
ESSENTIAL_TABLE = (5, 5, 5, 10, 15, 15, 15, 10, 10)
GENERAL_TABLE = (15, 15, 15, 30, 25, 25, 25, 20, 85)
THEORY = (10, 10, 10, 20, 15, 15, 15, 10)
LINKED = (5, 5, 5, 10, 10, 10, 10, 10)

Items = dict[int, dict[str, Any]]
Edit = Callable[[Items, Items], None]


def exam_107_folder() -> Path | None:
    """The folder of the real exam, or None where the environment names none."""
    name = os.environ.get(ENVIRONMENT)
    return Path(name) if name else None


def categories() -> list[str]:
    """The subject of items 1-345, in the examination's order; a linked pair is a practice item and another one."""
    essential = [name for name, count in zip((*NAMES, "Practice"), ESSENTIAL_TABLE, strict=True) for _ in range(count)]
    theory = [name for name, count in zip(NAMES, THEORY, strict=True) for _ in range(count)]
    linked = [name for name, count in zip(NAMES, LINKED, strict=True) for _ in range(count)]
    return essential + theory + [each for name in linked for each in ("Practice", name)] + ["Practice"] * 20


def problem(exam: str, number: int) -> dict[str, Any]:
    """A made-up item with one answer; every third has two, every fifth a diagram."""
    count = 2 if number % 3 == 0 else 1
    return {
        "problem_id": f"{exam}{number:03}",
        "problem_text": f"作例{number}の記述のうち、正しいのはどれか。{count}つ選べ。",
        "choices": [f"作例{number}の記述{option}である。" for option in "アイウエオ"],
        "text_only": number % 5 != 0,
        "answer": [str(number % 4 + 1), "5"][:count],
        "comment": f"作例{number}の解説文であり、取り込んではならない。",
        "points": "1",
    }


def write_year(
    folder: Path,
    exam: str = "100",
    *,
    edit: Edit | None = None,
    repeat_metadata: int = 1,
    shuffle: bool = False,
    names: tuple[str, str] = ("data.jsonl", "metadata.jsonl"),
) -> Path:
    """Write a whole made-up year after `edit(problems, metadata)`, both by item number."""
    problems: Items = {number: problem(exam, number) for number in range(1, 346)}
    metadata: Items = {
        number: {"problem_id": f"{exam}{number:03}", "category": name, "note": ""}
        for number, name in enumerate(categories(), 1)
    }
    if edit:
        edit(problems, metadata)
    about = list(metadata.values()) * repeat_metadata
    if shuffle:
        random.Random(20260107).shuffle(about)
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder / names[0], problems.values())
    write_lines(folder / names[1], about)
    return folder


def write_lines(path: Path, values: Iterable[dict[str, Any]]) -> None:
    """UTF-8, one object a line."""
    path.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values), encoding="utf-8")


def write_pictures(folder: Path, ids: Iterable[str]) -> Path:
    """A small PNG for each id."""
    folder.mkdir(parents=True, exist_ok=True)
    for identity in ids:
        Image.new("RGB", (8, 8), "white").save(folder / f"{identity}.png")
    return folder
