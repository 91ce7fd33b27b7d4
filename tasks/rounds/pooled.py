"""Figures over all sites' held-out patients together, for studies on public data: a real federation has none of them.

They are made only where the study says `data_are_public`, and only on a machine that holds every site's folder.
"""

from __future__ import annotations

from tasks.data.reading.patients import Patients
from tasks.errors import DataError, PharmafedError
from tasks.learning.metrics import METRICS
from tasks.rounds.scores import score_held_out
from tasks.rounds.site.context import SiteContext
from tasks.rounds.site.guard import no_values_in_errors
from tasks.rounds.site.validation import valid_patients
from tasks.store.objects import ObjectStore
from tasks.store.records.model import ModelRef
from tasks.store.weights import fetch_model
from tasks.study.sections import Study


def pooled_figures(study: Study, store: ObjectStore, model: ModelRef) -> dict[str, float]:
    """Figures of a stored model over every site's held-out patients; none where they may not be pooled."""
    patients = public_patients(study)
    if patients is None:
        return {}
    try:
        found = score_held_out(study, fetch_model(store, model), patients)
    except DataError:  # the model has come to outputs that are not finite: no reason not to close its round
        return {}
    return {name: round(value, 4) for name, value in found.items() if METRICS[name].allows(value)}


def public_patients(study: Study) -> dict[str, Patients] | None:
    """Every site's arrays, or None: the data are not public, or not all on this machine and valid."""
    if not study.evaluation.data_are_public:
        return None
    try:
        return {site: _patients(study, site) for site in study.sites}
    except PharmafedError:
        return None


def _patients(study: Study, site: str) -> Patients:
    with no_values_in_errors("reference figures", site):
        return valid_patients(SiteContext.load(study.study, site, connect=False))
    raise AssertionError("unreachable: the guard raises")
