"""The worked examples of docs/architecture.md, taken from the page as it is printed.

A file's path in a line of its own, then its block: `python` is a new file, `diff` changes one that is there. A hunk
of a diff has no line numbers: what it says was there must be there, once.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tasks.store.settings import PROJECT

PAGE = PROJECT / "docs" / "architecture.md"
#: A study of three sites, each of two inputs; an example puts its own section into it.
STUDY: dict[str, Any] = {
    "study": "one_more",
    "title": "t",
    "description": "d",
    "owner": "o",
    "data": {"tables": ["adsl"]},
    "sites": {"a": ["a"], "b": ["b"], "c": ["c"]},
    "label": {"name": "y", "table": "adsl", "positive_when": [{"column": "Y", "is": 1}]},
    "inputs": [{"name": name, "table": "adsl", "column": name.upper(), "centre": 0, "scale": 1} for name in ("u", "v")],
    "model": {"path": "tasks.models:LogisticRegression"},
    "training": {"lr": 0.3, "weighting": "plain", "local_epochs": 2, "batch_size": 4},
    "rounds": {"total": 2, "min_sites": 3, "deadline_seconds": 60},
    "evaluation": {"holdout_fraction": 0.2},
}
_BLOCK = re.compile(r"^`(?P<path>[\w/.]+)`[^\n]*:\n\n```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(heading: str, page: str | None = None) -> dict[str, tuple[str, str]]:
    """Path -> kind and text of every block under a heading, up to the next heading of its level."""
    text = PAGE.read_text() if page is None else page
    level = heading.split(" ")[0]
    parts = re.split(rf"^(?={level} )", text, flags=re.MULTILINE)
    (part,) = (part for part in parts if part.startswith(f"{heading}\n"))
    found = list(_BLOCK.finditer(part))
    assert len(found) == part.count("\n```") // 2, "every block says which file it is"
    return {match["path"]: (match["kind"], match["text"]) for match in found}


def patched(text: str, diff: str) -> str:
    """A file's text after a diff's hunks, each of which begins with a line of `@@`."""
    hunks = [hunk for hunk in re.split(r"^@@.*\n", diff, flags=re.MULTILINE) if hunk]
    assert hunks
    for hunk in hunks:
        lines = [line if line else " " for line in hunk.splitlines()]
        assert {line[0] for line in lines} <= {" ", "+", "-"}, hunk
        before, after = ("".join(f"{line[1:]}\n" for line in lines if line[0] != without) for without in ("+", "-"))
        assert text.count(before) == 1, f"what the page says was there is there {text.count(before)} times:\n{before}"
        text = text.replace(before, after)
    return text


def apply(heading: str, root: Path) -> list[str]:
    """Write the blocks under a heading into a tree; gives the paths of the files that are new or changed."""
    found = blocks(heading)
    for path, (kind, text) in found.items():
        place = root / path
        assert place.exists() == (kind == "diff"), f"{path} is {'not ' * (kind == 'diff')}there"
        place.write_text(patched(place.read_text(), text) if kind == "diff" else text)
    return list(found)


def scratch_copy(root: Path) -> Path:
    """A copy of the project's code, to change."""
    shutil.copytree(PROJECT / "tasks", root / "tasks")  # compiled files too: what is changed is newer than they are
    return root


def run(root: Path, program: str, *arguments: str, given: object = None, also: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Run a program in a scratch copy; gives the JSON object in the last line that it prints.

    Args:
        given: what it reads from stdin, as JSON. also: folders to import from where the copy has no such module.
    """
    paths = os.pathsep.join(map(str, (root, *also)))
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=root,
        env=os.environ | {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"},
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
