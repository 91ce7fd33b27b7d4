"""How good a model is on the held-out patients of several sites together."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tasks.data.reading.patients import Patients
from tasks.learning.building import study_model
from tasks.learning.evaluation import predict
from tasks.learning.tasks import task_of
from tasks.store.weights import Weights, set_parameters
from tasks.study.sections import Study


def score_held_out(study: Study, weights: Weights, patients: Mapping[str, Patients]) -> dict[str, float]:
    """Each figure over the held-out patients of all sites together that they can show, in the task's order.

    Raises:
        DataError: an output of the model is not finite.
    """
    model = study_model(study)
    set_parameters(model, weights)
    some = [p for p in patients.values() if len(p.held_out_labels)]
    if not some:
        return {}
    outputs = np.concatenate([predict(model, p.held_out_inputs) for p in some])
    labels = np.concatenate([p.held_out_labels.double().numpy() for p in some])
    found = task_of(study.label).figures(outputs, labels)
    return {name: value for name, value in found.items() if value is not None}
