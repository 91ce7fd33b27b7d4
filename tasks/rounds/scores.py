"""How good a model is on the held-out patients of several sites together."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import nn

from tasks.data.reading.patients import Patients
from tasks.learning.building import build_model
from tasks.learning.evaluation import auc, log_loss, predict
from tasks.store.weights import Weights, set_parameters
from tasks.study.sections import Study


def score_held_out(
    study: Study, weights: Weights, patients: Mapping[str, Patients]
) -> tuple[float | None, float | None]:
    """AUC and log-loss over the held-out patients of all sites together. Raises DataError: a logit is not finite."""
    model = _new_model(study)
    set_parameters(model, weights)
    logits = np.concatenate([predict(model, p.held_out_inputs) for p in patients.values()])
    labels = np.concatenate([p.held_out_labels.numpy() for p in patients.values()])
    return auc(logits, labels), log_loss(logits, labels)


def _new_model(study: Study) -> nn.Module:
    """The study's model, where its class has been looked at already, if need be for another mechanism."""
    return build_model(study.model.path, len(study.inputs), study.model.options, seed=study.training.seed)
