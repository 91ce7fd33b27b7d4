"""Figures over all sites' held-out patients together, for studies on public data: a real federation has none of them.

They are made only where the study says `data_are_public`, and only on a machine that holds every site's folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from tasks.data.patients import Patients
from tasks.errors import DataError, PharmafedError
from tasks.learning.building import build_model
from tasks.learning.evaluation import auc, log_loss, predict
from tasks.rounds.site.context import SiteContext
from tasks.rounds.site.guard import no_values_in_errors
from tasks.rounds.site.validation import valid_patients
from tasks.store.objects import ObjectStore
from tasks.store.records.model import ModelRef
from tasks.store.weights import Weights, fetch_model, set_parameters
from tasks.study.sections import Study


@dataclass(frozen=True)
class PooledFigures:
    """The global model on all held-out patients together; None where they may not be pooled."""

    auc: float | None = None
    log_loss: float | None = None


def pooled_figures(study: Study, store: ObjectStore, model: ModelRef) -> PooledFigures:
    """AUC and log-loss of a stored model over every site's held-out patients."""
    patients = public_patients(study)
    if patients is None:
        return PooledFigures()
    try:
        auc, log_loss = score(study, fetch_model(store, model), patients)
    except DataError:  # the model has come to logits that are not finite: no reason not to close its round
        return PooledFigures()
    return PooledFigures(_rounded(auc), _rounded(log_loss))


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


def score(study: Study, weights: Weights, patients: Mapping[str, Patients]) -> tuple[float | None, float | None]:
    """AUC and log-loss over the held-out patients of all sites together. Raises DataError: a logit is not finite."""
    model = _new_model(study)
    set_parameters(model, weights)
    logits = np.concatenate([predict(model, p.held_out_inputs) for p in patients.values()])
    labels = np.concatenate([p.held_out_labels.numpy() for p in patients.values()])
    return auc(logits, labels), log_loss(logits, labels)


def _new_model(study: Study) -> nn.Module:
    """The study's model, where its class has been looked at already, if need be for another mechanism."""
    return build_model(study.model.path, len(study.inputs), study.model.options, seed=study.training.seed)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
