"""Small exams and settings for the tests of asking."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from tasks.exam.asking.prompts import load_prompt
from tasks.exam.bank.records import Exam, ExamItem, ItemText, RunSettings

MODEL = "openai-api/scripted/echo"
#: One white pixel.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c6360000000020001e221bc33"
    "0000000049454e44ae426082"
)


def item(number: int, **changes: object) -> ExamItem:
    """Item `number`; its stem holds "item-<number>;", which a script can match."""
    values: dict[str, object] = {
        "id": f"t{number:03}",
        "exam": "test",
        "number": number,
        "section": "general",
        "subject": "physics",
        "text": {
            "ja": ItemText(stem=f"item-{number}; 正しいのはどれか。", choices=("甲", "乙", "丙", "丁", "戊")),
            "en": ItemText(stem=f"item-{number}; Which is right?", choices=("a", "b", "c", "d", "e")),
        },
        "num_choices": 5,
        "labels": ("1", "2", "3", "4", "5"),
        "n_select": 1,
        "answers": (("1",),),
        "diagram": False,
        "diagram_source": "none",
        "text_length": 20,
        "source": "test",
    }
    return ExamItem.model_validate(values | changes)


def exam(items: Sequence[ExamItem]) -> Exam:
    """An exam of these items."""
    return Exam(id="test", title="t", languages=("ja", "en"), items=tuple(items), source="test", licence="none")


def settings(of: Exam, **changes: object) -> RunSettings:
    """What a test's run asks: Japanese prompt v1, one epoch, no pictures."""
    prompt = str(changes.get("prompt", "ja/v1"))
    values: dict[str, object] = {
        "exam": of.id,
        "exam_digest": of.digest,
        "model": MODEL,
        "language": "ja",
        "prompt": prompt,
        "prompt_digest": load_prompt(prompt)[1],
        "temperature": 0.0,
        "epochs": 1,
        "max_tokens": 256,
        "limit": None,
        "images": False,
    }
    return RunSettings.model_validate(values | changes)


def write_picture(folder: Path, name: str = "figure.png") -> str:
    """A picture in `folder`; returns its name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(PNG)
    return name


def sha256(content: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(content).hexdigest()
