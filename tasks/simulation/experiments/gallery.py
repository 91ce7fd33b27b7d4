"""All figures of the page."""

from __future__ import annotations

from tasks.simulation.experiments import figures, figures_privacy
from tasks.simulation.experiments.drawing import Picture
from tasks.simulation.experiments.records import Cohort, Numbers


def draw(numbers: Numbers, cohort: Cohort) -> list[Picture]:
    """Every figure, from every experiment of the plan."""
    return [
        figures.patients(cohort),
        figures.over_rounds(numbers["rounds"]),
        figures.federated_minus_pooled(numbers["rounds"]),
        figures.by_fraction(numbers["fraction"]),
        figures.choices([numbers[name] for name in ("restart", "weighting", "local_work")]),
        figures_privacy.by_epsilon(numbers["privacy"]),
        figures_privacy.fraction_at_epsilon(numbers["fraction_at_epsilon"]),
        figures_privacy.membership(),
    ]
