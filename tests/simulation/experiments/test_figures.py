"""The figures: readable on both papers, the same twice, and of the numbers."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tasks.simulation.experiments import figures, figures_privacy, run
from tasks.simulation.experiments.drawing import DARK, LIGHT, THEMES, Theme, name_lines
from tasks.simulation.experiments.plan import EXPERIMENTS
from tasks.simulation.experiments.records import Measured
from tasks.study.sections import Study
from tests.simulation.experiments.made_up import SEEDS, cohort, results


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", THEMES, ids=("light", "dark"))
def test_words_can_be_read_on_their_paper(theme: Theme) -> None:
    colours = (theme.ink, theme.muted, *theme.series.values())
    assert len(colours) == 6
    assert min(contrast(colour, theme.paper) for colour in colours) >= 4.5
    assert max(contrast(theme.grid, theme.paper) for theme in THEMES) < 1.6, "the grid stays behind"


def test_series_of_one_paper_cannot_be_read_on_the_other() -> None:
    """So that the test above could fail."""
    assert min(contrast(colour, DARK.paper) for colour in LIGHT.series.values()) < 4.5


def test_a_figure_has_four_files_and_is_the_same_twice(flat: dict[str, Measured]) -> None:
    one, again = (figures.choices([flat["restart"]]) for _ in range(2))
    assert one.files == again.files
    name = "findings-choices"
    assert list(one.files) == [f"{name}.svg", f"{name}.png", f"{name}-dark.svg", f"{name}-dark.png"]
    corners = [
        Image.open(io.BytesIO(one.files[f"{name}{t.suffix}.png"])).convert("RGB").getpixel((0, 0)) for t in THEMES
    ]
    assert corners == [(255, 255, 255), (13, 17, 23)]
    assert b"<text" not in one.files[f"{name}.svg"], "letters are outlines"


def test_figures_are_of_the_numbers(study: Study, flat: dict[str, Measured]) -> None:
    """Other numbers, another picture and other words for those who cannot see it."""
    one = EXPERIMENTS["fraction_at_epsilon"]
    other = run.compare_results(one, study, SEEDS, results(one, lambda _, s: 0.05 * (s == "10%, ε 8, 1 round")))
    first, second = (figures_privacy.fraction_at_epsilon(found) for found in (flat[one.name], other))
    assert first.alt != second.alt
    assert all(first.files[file] != second.files[file] for file in first.files)
    assert "20 seeds" in first.caption


def test_names_beside_an_axis_do_not_overlap() -> None:
    """Those that are apart stay where their lines end; those at the top go down, and nobody else with them."""
    figure = Figure()
    ax = figure.add_subplot()
    ax.set_ylim(0, 1)
    name_lines(ax, LIGHT, [(0.99, "c", "blue"), (0.3, "a", "red"), (0.98, "b", "green"), (0.31, "a2", "")])
    heights = {text.get_text(): text.get_position()[1] for text in ax.texts}
    assert heights == pytest.approx({"a": 0.3, "a2": 0.375, "b": 0.925, "c": 1.0})


def test_patients_are_named_and_counted() -> None:
    drawn = figures.patients(cohort())
    assert "33 trained on, 9 held out" in drawn.caption
    assert "703: 11 and 3" in drawn.alt


def test_the_bound_is_the_accountings() -> None:
    found = [figures_privacy.membership_bound(e) for e in (1, 3, 8)]
    assert found == pytest.approx([0.575, 0.694, 0.881], abs=5e-4)
