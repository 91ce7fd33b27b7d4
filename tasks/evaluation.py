"""How good a model is on held-out patients, and what of that may leave a site."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from tasks.records import Plan, SiteMetrics


def validate_model(
    model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, plan: Plan, site: str, model_sha256: str
) -> SiteMetrics:
    """The full figures of one site; they stay there until `suppress` has passed over them."""
    with torch.no_grad():
        scores = model(inputs).double().numpy()
    truth = labels.numpy()
    return SiteMetrics(
        study=plan.study,
        server_round=plan.server_round,
        site=site,
        model_sha256=model_sha256,
        min_cell=plan.evaluation.min_cell,
        num_examples=len(truth),
        log_loss=log_loss(scores, truth),
        auc=auc(scores, truth),
    )


def suppress(metrics: SiteMetrics, labels: torch.Tensor) -> SiteMetrics:
    """Leave out what stands on fewer than `min_cell` patients, and round the rest to three digits.

    Counts and log-loss need `min_cell` held-out patients; AUC compares two groups, so each needs as many.
    """
    total, positive = len(labels), int(labels.sum())
    smallest = {"num_examples": total, "log_loss": total, "auc": min(positive, total - positive)}
    hidden = tuple(name for name, cell in smallest.items() if cell < metrics.min_cell)
    kept = {name: None if name in hidden else _rounded(getattr(metrics, name)) for name in smallest}
    return metrics.model_copy(update={**kept, "suppressed": hidden})


def auc(scores: npt.NDArray[np.floating], labels: npt.NDArray[np.floating]) -> float | None:
    """Area under the ROC curve, ties counting half (Mann-Whitney); None unless both labels occur."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    if len(positive) == 0 or len(negative) == 0:
        return None
    order = np.sort(negative)
    below = np.searchsorted(order, positive, side="left")
    not_above = np.searchsorted(order, positive, side="right")
    return float((below + not_above).sum() / (2 * len(positive) * len(negative)))


def log_loss(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.floating]) -> float | None:
    """Mean negative log-likelihood in nats; None without patients."""
    if len(labels) == 0:
        return None
    return float(np.mean(np.logaddexp(0.0, logits) - labels * logits))


def _rounded(value: float | int | None) -> float | int | None:
    return round(value, 3) if isinstance(value, float) else value
