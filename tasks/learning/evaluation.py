"""How good a model is on held-out patients, and what of that may leave a site."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, vmap

from tasks.errors import DataError
from tasks.learning.arrays import Floats
from tasks.learning.metrics import METRICS
from tasks.learning.tasks.task import Task
from tasks.store.records.report import SiteMetrics
from tasks.store.records.round import Plan
from tasks.store.weights import in_float64


def validate_model(
    task: Task, model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, plan: Plan, site: str, model_sha256: str
) -> SiteMetrics:
    """The full figures of one site; they stay there until `suppress` has passed over them. Raises DataError."""
    found = task.figures(predict(model, inputs), labels.double().numpy())
    return SiteMetrics(
        study=plan.study,
        server_round=plan.server_round,
        site=site,
        model_sha256=model_sha256,
        min_cell=plan.evaluation.min_cell,
        num_examples=len(labels),
        figures={name: v for name, v in found.items() if v is not None and METRICS[name].allows(v)},
    )


def predict(model: nn.Module, inputs: torch.Tensor) -> Floats:
    """Each patient's outputs in eval mode, (patients,) or (patients, num_outputs). Raises DataError: one not finite."""
    if len(inputs) == 0:  # a model of one's own need not be able to
        return np.empty(0)
    model.eval()
    with torch.no_grad():
        outputs: Floats = model(inputs).double().numpy()
    if not np.isfinite(outputs).all():
        raise DataError("the model's outputs of held-out patients are not all finite: lower training.lr or the rounds")
    return outputs


def suppress(metrics: SiteMetrics, task: Task, labels: torch.Tensor, *, promises: bool) -> SiteMetrics:
    """What of a site's metrics may leave it.

    Where the mechanism `promises` something, no figure about patients leaves outside the budget: they stay at the
    site, and quality travels as noised sums inside the update (`tasks.privacy.sum_statistics`). Elsewhere, what stands
    on fewer than `min_cell` patients is left out and the rest is rounded to three digits; a task says on how many
    patients each of its figures stands.
    """
    cells = {metric.name: 0 for metric in task.metrics} if promises else task.cells(labels.double().numpy())
    smallest = {"num_examples": len(labels), **cells}
    hidden = tuple(name for name, cell in smallest.items() if cell < metrics.min_cell)
    kept = {name: round(value, 3) for name, value in metrics.figures.items() if name not in hidden}
    number = None if "num_examples" in hidden else metrics.num_examples
    return metrics.model_copy(update={"num_examples": number, "figures": kept, "suppressed": hidden})


def outputs_alone(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Outputs in eval mode and float64, each from a call with one patient, as in `gradient_rows`."""
    model.eval()
    weights = in_float64(model)
    with torch.no_grad():
        found: torch.Tensor = vmap(lambda x: functional_call(model, weights, (x.unsqueeze(0),)).squeeze(0))(
            inputs.double()
        )
    return found
