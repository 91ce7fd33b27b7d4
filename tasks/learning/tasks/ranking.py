"""How well scores put patients in order: all pairs are compared, ties count half."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tasks.learning.arrays import Floats


def auc(scores: npt.NDArray[np.floating], labels: npt.NDArray[np.floating]) -> float | None:
    """Area under the ROC curve, ties counting half (Mann-Whitney); None unless both labels occur."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    if len(positive) == 0 or len(negative) == 0:
        return None
    order = np.sort(negative)
    below = np.searchsorted(order, positive, side="left")
    not_above = np.searchsorted(order, positive, side="right")
    return float((below + not_above).sum() / (2 * len(positive) * len(negative)))


def average_precision(scores: npt.NDArray[np.floating], labels: npt.NDArray[np.floating]) -> float | None:
    """Mean precision at each positive, by falling score, tied scores taken together; None without a positive."""
    if not (labels == 1).any():
        return None
    order = np.argsort(-scores, kind="stable")
    hits, falling = np.cumsum(labels[order]), scores[order]
    last = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)  # of each group of tied scores
    precision, recall = hits[last] / (last + 1), hits[last] / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def concordance(risk: Floats, times: Floats, events: Floats) -> float | None:
    """Harrell's C: of pairs whose order in time is known, the share in which who fails first has the higher risk.

    A pair is known where the earlier time is an event, or both are at one time and one is an event. None without any.
    Memory grows with the patients, time with patients times events.
    """
    known, won = 0, 0.0
    for one in np.flatnonzero(events == 1):
        later = (times > times[one]) | ((times == times[one]) & (events == 0))
        known += int(later.sum())
        won += float((risk[one] > risk[later]).sum() + 0.5 * (risk[one] == risk[later]).sum())
    return won / known if known else None


def auc_of_tables(counts: Floats) -> Floats:
    """AUC on bins, ties counting half; counts (draws, 2, bins), (draws,) NaN where a label has no patient."""
    negative, positive = counts[:, 0], counts[:, 1]
    below = np.cumsum(negative, axis=1) - negative
    pairs = negative.sum(axis=1) * positive.sum(axis=1)
    won = ((below + negative / 2) * positive).sum(axis=1)
    share: Floats = np.divide(won, pairs, out=np.full(len(counts), np.nan), where=pairs > 0)
    return share
