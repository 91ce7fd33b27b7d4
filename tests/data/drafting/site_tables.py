"""Small tables whose cells may differ from site to site, and drafts of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tasks.data.drafting.draft import Draft, DraftOptions, draft_study
from tasks.data.drafting.told import ToldOptions
from tests.data.drafting.unseen_study import write_csv

SITES, EACH = ("north", "south", "west", "east", "isle"), 30
#: Column -> its cell, from the site and the patient's number.
Cells = dict[str, Callable[[str, int], Any]]


def noise(site: str, i: int, salt: int = 0) -> float:
    """A number without a pattern, the same every time."""
    return float(np.random.default_rng([SITES.index(site), i, salt]).normal())


def chance(site: str, i: int, salt: int = 0) -> float:
    """The same, between 0 and 1."""
    return float(np.random.default_rng([SITES.index(site), i, salt + 100]).random())


def outcome(_: str, i: int) -> int:
    return i % 2


def write_tables(folder: Path, cells: Cells, sites: tuple[str, ...] = SITES) -> Path:
    """`<folder>/<site>/people.csv`: 30 patients a site, with an id, a measurement x, an outcome and these columns."""
    base: Cells = {"id": lambda _, i: f"a{i}", "x": lambda s, i: noise(s, i, 77), "outcome": outcome} | cells
    for site in sites:
        rows = [{name: cell(site, i) for name, cell in base.items()} for i in range(EACH)]
        write_csv(folder / site / "people.csv", tuple(base), rows)
    return folder


def draft(
    folder: Path,
    project: Path,
    cells: Cells,
    label: str = "people.outcome",
    sites: tuple[str, ...] = SITES,
    **told: Any,
) -> Draft:
    """A draft of `write_tables`; `told` are the answers about cells."""
    options = DraftOptions(label=label, name="small", answers=ToldOptions(**told))
    return draft_study(write_tables(folder, cells, sites), options, project / "expectations")
