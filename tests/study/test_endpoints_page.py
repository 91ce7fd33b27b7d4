"""The labels that docs/endpoints.md prints are labels, one of each task, and the table names each with its figures."""

from __future__ import annotations

import re

import pytest
import yaml
from pydantic import TypeAdapter

from tasks.learning.metrics import OF_TASK
from tasks.store.settings import PROJECT
from tasks.study.label import LABEL_SECTIONS, Label

PAGE = (PROJECT / "docs" / "endpoints.md").read_text()
BLOCKS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


def test_there_is_one_of_each_task() -> None:
    assert sorted(block.get("task", "binary") for block in BLOCKS) == sorted(LABEL_SECTIONS)


@pytest.mark.parametrize("block", BLOCKS, ids=[block["name"] for block in BLOCKS])
def test_each_is_a_label(block: dict[str, object]) -> None:
    found = TypeAdapter[Label](Label).validate_python(block)
    assert found.task == block.get("task", "binary")


def test_the_table_has_a_row_for_each_task_with_its_own_figure_first() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", PAGE, re.MULTILINE))
    assert rows.pop("task").startswith("judged by")
    assert set(rows) == set(LABEL_SECTIONS)
    for task, figures in rows.items():
        first = OF_TASK[task][0].label.lower()
        assert figures.lower().startswith(first if first != "mean poisson deviance" else "mean deviance"), task
