"""What a federation is compared with: all patients in one place, and each site on its own.

The same functions train them. Nobody shares anything in either, so both train without a privacy mechanism, on the
study's own `training` section. No federation could compute them: they are for public data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tasks.data.reading.patients import Patients
from tasks.errors import DataError
from tasks.learning.metrics import metrics_of
from tasks.privacy.noise.source import SeededNoise
from tasks.rounds.scores import score_held_out
from tasks.simulation.rounds import SimulatedRound, pool, simulate, without_privacy
from tasks.store.weights import Weights
from tasks.study.sections import Study

Score = dict[str, float]
_UNUSED = SeededNoise(bytes(32))  # without a privacy mechanism nothing is drawn from it


def pooled(study: Study, patients: Mapping[str, Patients], rounds: int) -> Iterator[SimulatedRound]:
    """Train one site that holds everybody, for `rounds` rounds of the study's local training."""
    return simulate(without_privacy(study, study.training), {"pool": pool(patients)}, rounds, noise=_UNUSED)


def local_only(study: Study, patients: Mapping[str, Patients], rounds: int) -> Iterator[dict[str, SimulatedRound]]:
    """Train every site on its own patients alone: each round gives each site's own model."""
    open_study = without_privacy(study, study.training)
    alone = {site: simulate(open_study, {site: own}, rounds, noise=_UNUSED) for site, own in patients.items()}
    for _ in range(rounds):
        yield {site: next(run) for site, run in alone.items()}


def full_score(study: Study, weights: Weights, patients: Mapping[str, Patients]) -> Score:
    """Each figure over all sites' held-out patients together that they can show.

    Raises:
        DataError: they cannot show the study's own: they all have the same label, or there are none.
    """
    first, found = metrics_of(study.label.task)[0], score_held_out(study, weights, patients)
    if first.name not in found:
        raise DataError(
            f"the held-out patients of all sites together are too few or too much alike, so there is no {first.label}: "
            "raise evaluation.holdout_fraction"
        )
    return found


def local_score(study: Study, models: Mapping[str, Weights], patients: Mapping[str, Patients]) -> Score:
    """Each site's own model on all held-out patients; the mean, weighted by how many of them are the site's.

    Raises:
        DataError: as `full_score`.
    """
    counts = {site: len(patients[site].held_out_labels) for site in models}
    scores = {site: full_score(study, weights, patients) for site, weights in models.items()}
    total = sum(counts.values())
    known = set.intersection(*(set(own) for own in scores.values()))
    return {
        metric.name: sum(counts[site] * scores[site][metric.name] for site in models) / total
        for metric in metrics_of(study.label.task)
        if metric.name in known
    }
