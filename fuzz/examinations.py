"""What an import reads of an examination that others published: a line of its items, and a file of corrections."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from tasks.exam.bank.answer_keys import KeyProblem, note_takes_out, read_key, read_n_select, read_note
from tasks.exam.bank.corrections import read_corrections
from tasks.exam.bank.faults import Faults
from tasks.exam.bank.jsonl import read_lines
from tasks.exam.bank.published import Problem, read_record
from tasks.exam.bank.references import announced_case, refers_back, shows_a_picture

EXAM = "100"
ITEM = json.dumps(
    {
        "problem_id": "100206",
        "problem_text": "60歳男性。以下の処方箋を持参した。この患者への説明として、適切なのはどれか。2つ選べ。",
        "choices": ["ア", "イ", "ウ", "エ", "1、2のうちいずれか1つを正解とする"],
        "text_only": False,
        "answer": ["1", "3（いずれか1つ）"],
    }
).encode()
CORRECTIONS = json.dumps(
    [
        {"item": "100206", "reason": "the paper", "answer": ["1"], "choices": ["ア", "イ"], "line": 206},
        {
            "item": 100207,
            "reason": "the paper",
            "follows": True,
            "category": "Law",
            "note": "解なし",
            "text_only": True,
        },
    ]
).encode()


def on_disk(read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """A parser of bytes from one of files."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))

    def parse(body: bytes) -> object:
        path = folder / "file"
        path.write_bytes(body)
        return read(path)

    return parse


def item(path: Path) -> object:
    """As an import reads it, and every text of it as stem, key and note."""
    faults = Faults()
    read = [read_record(line, Problem, EXAM, faults) for line in read_lines(path, faults)]
    for one in filter(None, read):
        for text in (one.problem_text, *one.choices, *one.answer):
            _read_text(text, one.number)
    faults.refuse()
    return read


def _read_text(text: str, number: int) -> None:
    refers_back(text, number), announced_case(text, number), shows_a_picture(text)
    for read in (read_note, note_takes_out, read_n_select, lambda text: read_key([text])):
        try:
            read(text)
        except KeyProblem:
            continue


def corrections(path: Path) -> object:
    """By item."""
    return read_corrections(path, EXAM)
