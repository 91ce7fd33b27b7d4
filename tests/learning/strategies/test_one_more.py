"""A strategy more is one file, its section and a line in the table: the one of docs/architecture.md, as it is printed.

In a copy of `tasks`: the geometric median.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tasks.store.settings import PROJECT
from tasks.study.strategy import STRATEGY_SECTIONS
from tests import worked_examples
from tests.worked_examples import apply, blocks, run, scratch_copy

HEADING = "## One strategy more"
FILE = "tasks/learning/strategies/geometric_median.py"
UPDATES = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1e6, 1e6]]
RUN = """
import json, sys
import torch
from pydantic import ValidationError
from tasks.data.reading.patients import Patients
from tasks.errors import QuorumMissed
from tasks.learning.strategies import strategy_of
from tasks.privacy.noise.source import SeededNoise
from tasks.simulation.rounds import simulate
from tasks.store.plans import plan_round
from tasks.store.record_size import max_bytes
from tasks.store.objects import to_json
from tasks.store.records.round import Plan
from tasks.study.sections import Study

given = json.load(sys.stdin)
content = given["study"]
def said(**changes):
    try:
        Study.model_validate(content | changes)
    except ValidationError as error:
        return error.errors()[0]["msg"]
study = Study.model_validate(content)
generator = torch.Generator().manual_seed(1)
def site():
    x = torch.randn(20, 2, generator=generator)
    return Patients(x, (x[:, 0] > 0).float(), x[:4], (x[:4, 0] > 0).float())
rounds = list(simulate(study, {name: site() for name in study.sites}, 2, noise=SeededNoise(bytes(32))))
def combined(updates):
    combiner = strategy_of(study.strategy).combiner({"w": torch.zeros(2)})
    for update in updates:
        combiner.add(torch.tensor(update), 1.0)
    try:
        return combiner.mean()["w"].tolist()
    except QuorumMissed as error:
        return str(error)
plan = plan_round(study, tuple(study.sites), {}, {}, 1)
print(json.dumps({
    "moved": [bool((r.weights["linear.weight"] != 0).all()) for r in rounds],
    "median": combined(given["updates"]),
    "even": combined([[2.0, 3.0]] * 4),
    "masks": said(channel="masks"),
    "top": said(privacy={"mechanism": "top", "fraction": 0.5, "i_accept_no_privacy": True}),
    "samples": said(training=content["training"] | {"weighting": "samples"}),
    "steps": said(strategy={"name": "geometric_median", "steps": 0}),
    "plan": Plan.model_validate_json(to_json(plan)).strategy == study.strategy,
    "size": max_bytes(Plan),
}))
"""
STUDY = worked_examples.STUDY | {
    "privacy": {"mechanism": "none", "i_accept_no_privacy": True},
    "strategy": {"name": "geometric_median"},
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of two rounds with it."""
    root = scratch_copy(tmp_path_factory.mktemp("one_more"))
    apply(HEADING, root)
    return run(root, RUN, given={"study": STUDY, "updates": UPDATES})


def test_it_is_twenty_lines_and_touches_two_files() -> None:
    found = blocks(HEADING)
    kind, text = found.pop(FILE)
    assert kind == "python"
    lines = [line for line in text.split("\n\n\n", 1)[1].splitlines() if line]
    assert len(lines) <= 20
    assert {path: kind for path, (kind, _) in found.items()} == {
        "tasks/study/strategy.py": "diff",
        "tasks/learning/strategies/__init__.py": "diff",
    }


def test_rounds_are_made_with_it_and_plans_say_it(done: dict[str, Any]) -> None:
    assert done["moved"] == [True, True]
    assert done["plan"]
    assert done["size"] > 0


def test_it_is_the_geometric_median(done: dict[str, Any]) -> None:
    """No step from it makes the sum of distances smaller; and of one site far away there is little in it."""
    rows, point = np.array(UPDATES), np.array(done["median"])

    def distances(at: np.ndarray) -> float:
        return float(np.linalg.norm(rows - at, axis=1).sum())

    for angle in np.linspace(0, 2 * np.pi, 16):
        step = 0.05 * np.array([np.cos(angle), np.sin(angle)])
        assert distances(point) < distances(point + step)
    assert np.abs(point).max() <= 1
    assert done["even"] == [2.0, 3.0]


def test_what_it_does_not_go_with_is_refused_though_nobody_wrote_that_down(done: dict[str, Any]) -> None:
    assert done["masks"].endswith("with channel masks: geometric_median looks at what each site sends")
    assert done["top"].endswith("with codec.name top: geometric_median compares whole updates")
    assert done["samples"].startswith(
        "Value error, training.weighting must be plain with strategy.name geometric_median"
    )
    assert done["steps"] == "Input should be greater than or equal to 1"


def test_every_strategy_has_its_row_in_the_docs() -> None:
    page = (PROJECT / "docs" / "strategies.md").read_text()
    rows = {
        cells[1].strip("` "): cells for line in page.splitlines() if (cells := line.split("|"))[1:] and "`" in cells[1]
    }
    rows.pop("strategy.name")
    assert list(rows) == list(STRATEGY_SECTIONS)
    for name, cells in rows.items():
        fields = STRATEGY_SECTIONS[name].model_fields
        said = {key: value for key, value in re.findall(r"`(\w+)`(?: ([\d.]+))?", cells[3]) if key in fields}
        if name not in ("fed_yogi", "krum"):
            assert set(said) == set(fields) - {"name"}, name
        for key, value in said.items():
            assert value == "" or float(value) == fields[key].default, (name, key)
