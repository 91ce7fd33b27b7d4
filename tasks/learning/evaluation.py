"""How good a model is on held-out patients, and what of that may leave a site."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.func import functional_call, vmap

from tasks.errors import DataError
from tasks.store.records.report import SiteMetrics
from tasks.store.records.round import Plan
from tasks.store.weights import in_float64


def validate_model(
    model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, plan: Plan, site: str, model_sha256: str
) -> SiteMetrics:
    """The full figures of one site; they stay there until `suppress` has passed over them. Raises DataError."""
    scores, truth = predict(model, inputs), labels.numpy()
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


def predict(model: nn.Module, inputs: torch.Tensor) -> npt.NDArray[np.float64]:
    """Each patient's logit in eval mode, (patients,). Raises DataError where one is not finite."""
    if len(inputs) == 0:  # a model of one's own need not be able to
        return np.empty(0)
    model.eval()
    with torch.no_grad():
        logits: npt.NDArray[np.float64] = model(inputs).double().numpy()
    if not np.isfinite(logits).all():
        raise DataError("the model's logits of held-out patients are not all finite: lower training.lr or the rounds")
    return logits


def suppress(metrics: SiteMetrics, labels: torch.Tensor, *, promises: bool) -> SiteMetrics:
    """What of a site's metrics may leave it.

    Where the mechanism `promises` something, no figure about patients leaves outside the budget: AUC and log-loss stay
    at the site, and quality travels as noised counts inside the update (`count_scores`). Elsewhere, what stands on
    fewer than `min_cell` patients is left out and the rest is rounded to three digits: counts and log-loss need
    `min_cell` held-out patients; AUC compares two groups, so each needs as many.
    """
    total, positive = len(labels), int(labels.sum())
    smallest = {"num_examples": total, "log_loss": total, "auc": min(positive, total - positive)}
    if promises:
        smallest |= {"log_loss": 0, "auc": 0}
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


def count_scores(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, bins: int) -> npt.NDArray[np.int64]:
    """Held-out patients by label and bin of predicted risk, (2, bins): one patient is one count in one cell.

    Guarantee: leaving one patient out changes one cell by one, whatever the model's code does with a batch, because
    each call of it sees one patient. In float64, on a grid of 2^-20: a float32 logit depends in its last bits on how
    many patients are computed together, and could carry another patient over the edge of a bin.
    """
    counts: npt.NDArray[np.int64] = np.zeros((2, bins), dtype=np.int64)
    if len(inputs) == 0:
        return counts
    logits = logits_alone(model, inputs)
    risk = torch.sigmoid(torch.round(logits * 2**20) / 2**20).numpy()
    cells = np.clip(np.nan_to_num(risk * bins, nan=0.0), 0, bins - 1).astype(np.int64)
    np.add.at(counts, (labels.numpy().astype(np.int64), cells), 1)
    return counts


def logits_alone(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Logits (patients,) in eval mode and float64, each from a call with one patient, as in `gradient_rows`."""
    model.eval()
    weights = in_float64(model)
    with torch.no_grad():
        found: torch.Tensor = vmap(lambda x: functional_call(model, weights, (x.unsqueeze(0),)).squeeze(0))(
            inputs.double()
        )
    return found


def auc_of_counts(counts: npt.NDArray[np.float64], noise_sd: float, *, draws: int = 2000) -> tuple[float, float] | None:
    """AUC from noised counts, (2, bins), and its standard error from the noise alone; None where noise swamps them.

    Counts below zero are noise and become zero. The error is that of the same estimate after the same noise once
    more: post-processing, so it costs no privacy.
    """
    found = _auc_of_table(np.maximum(counts, 0.0)[None])[0]
    if not np.isfinite(found):
        return None
    noise = np.random.default_rng(0).normal(0.0, noise_sd, (draws, *counts.shape))
    again = _auc_of_table(np.maximum(np.maximum(counts, 0.0)[None] + noise, 0.0))
    return float(found), float(np.nanstd(again))


def _auc_of_table(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mann-Whitney on bins, ties counting half; counts (draws, 2, bins), NaN where a label has no patient."""
    negative, positive = counts[:, 0], counts[:, 1]
    below = np.cumsum(negative, axis=1) - negative
    pairs = negative.sum(axis=1) * positive.sum(axis=1)
    won = ((below + negative / 2) * positive).sum(axis=1)
    share: npt.NDArray[np.float64] = np.divide(won, pairs, out=np.full(len(counts), np.nan), where=pairs > 0)
    return share


def log_loss(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.floating]) -> float | None:
    """Mean negative log-likelihood in nats; None without patients."""
    if len(labels) == 0:
        return None
    return float(np.mean(np.logaddexp(0.0, logits) - labels * logits))


def _rounded(value: float | int | None) -> float | int | None:
    return round(value, 3) if isinstance(value, float) else value
