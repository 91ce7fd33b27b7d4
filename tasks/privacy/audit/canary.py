"""Attack 3: worst-case canaries, each in or out by a coin, through all rounds.

A canary is an artificial patient, at the edge of the public ranges, whose clipped gradient has the full length C in
every round: nobody can leave more trace. (Where the unit is a site, it is a site full of such patients.) Several
canaries, along different inputs, share one transcript, each with a coin of its own, so that few transcripts give many
trials (Steinke, Nasr & Jagielski 2023). The adversary knows everything but the coin in question.

The statistic is the log-likelihood ratio with the noise's covariance as estimated, over coordinates and over rounds,
on the other half of the transcripts: noise that is missing in a coordinate, or repeats in another, is found and used.
Scores have unit variance where the estimate is right, so the distance between in and out is mu itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tasks.learning.arrays import Floats
from tasks.learning.training import num_iterations
from tasks.privacy.audit.adversary import Adversary, deal_out
from tasks.privacy.audit.observer import Observer, Observers, PatientGroup
from tasks.privacy.audit.trials import Coins, Trials
from tasks.privacy.mechanisms import mechanism_for
from tasks.store.weights import Weights

#: Identical patients that fill a canary site.
_SITE_COPIES = 8


@dataclass(frozen=True)
class Canaries:
    """What is inserted: each one's rows, the site that it is in, and what it adds, (rounds, canaries, parameters)."""

    groups: tuple[PatientGroup, ...]
    sites: tuple[str, ...]
    traces: Floats
    whole_sites: bool

    def at_one_site(self, site: str) -> Canaries:
        """The same in the first round of one site by itself, as the raw update shows it."""
        if self.whole_sites:
            return Canaries(self.groups[:1], (site,), self.traces[:1, :1], True)
        return Canaries(self.groups, (site,) * len(self.groups), self.traces[:1], False)


def plant(
    adversary: Adversary, observers: Observers, models: Sequence[Weights], sites: Sequence[str], *, whole_sites: bool
) -> Canaries:
    """Choose canaries: per input the sign, value at the edge of the range and label with the longest gradient."""
    found = _edge_patients(adversary, models)
    if not whole_sites:
        with torch.no_grad():
            traces = np.stack([adversary.contributions(weights, *found).numpy() for weights in models])
        groups = tuple((found[0][k : k + 1], found[1][k : k + 1]) for k in range(len(found[1])))
        return Canaries(groups, tuple(sites[k % len(sites)] for k in range(len(groups))), traces, False)
    count = max(1, (len(sites) - 1) // 3)
    groups = tuple((found[0][k].repeat(_SITE_COPIES, 1), found[1][k].repeat(_SITE_COPIES)) for k in range(count))
    traces = np.stack(
        [
            np.stack(
                [_as_clipped(adversary, observers.raw(weights, {sites[k]: groups[k]}, t + 1)) for k in range(count)]
            )
            for t, weights in enumerate(models)
        ]
    )
    return Canaries(groups, tuple(sites[:count]), traces, True)


def _edge_patients(adversary: Adversary, models: Sequence[Weights]) -> PatientGroup:
    """The best candidate of each input, the longest gradients first; all that saturate the clip, if any does."""
    limits = torch.tensor([spec.clip * spec.gain for spec in adversary.study.inputs], dtype=torch.float32)
    corners = torch.cat([torch.diag(limits), torch.diag(-limits)]).repeat(2, 1)
    labels = torch.tensor([0.0, 1.0]).repeat_interleave(2 * len(limits))
    with torch.no_grad():
        shortest = np.stack([adversary.lengths(weights, corners, labels) for weights in models]).min(axis=0)
    best = shortest.reshape(4, -1).argmax(axis=0) * len(limits) + np.arange(len(limits))
    best = best[np.argsort(-shortest[best], kind="stable")]
    if adversary.clip_norm is not None and (shortest[best] >= adversary.clip_norm).any():
        best = best[shortest[best] >= adversary.clip_norm]
    return corners[best], labels[best]


def _as_clipped(adversary: Adversary, update: Floats) -> Floats:
    """A site's update as its mechanism bounds it."""
    study = adversary.study
    mechanism = mechanism_for(study.privacy, study.rounds.total)
    return mechanism.trace(update, num_iterations(study.training, _SITE_COPIES))


def attack_canaries(
    observe: Observer,
    adversary: Adversary,
    canaries: Canaries,
    models: Sequence[Weights],
    fillers: PatientGroup,
    sites: Sequence[str],
    *,
    transcripts: int,
    seed: int,
    tick: Callable[[], None] = lambda: None,
) -> Trials:
    """Toss the coins `transcripts` times, watch all rounds each time, and score every canary.

    `fillers` are ordinary patients, one for each site, known to the adversary.
    """
    coins = np.random.default_rng([seed, 2]).random((transcripts, len(canaries.groups))) < 0.5
    around = deal_out(sites, fillers, np.arange(len(sites)))
    seen = []
    for row in coins:
        groups = _insert(around, canaries, row)
        seen.append(np.stack([observe(weights, groups, t + 1) for t, weights in enumerate(models)]))
        tick()
    left = np.stack(seen) - np.einsum("ik,tkp->itp", coins.astype(np.float64), canaries.traces)
    if not canaries.whole_sites:
        with torch.no_grad():
            left -= np.stack([adversary.contributions(weights, *fillers).sum(dim=0).numpy() for weights in models])
    half = transcripts // 2
    scores = [_score(left[:half], coins[:half], canaries.traces, left[half:])]
    scores.append(_score(left[half:], coins[half:], canaries.traces, left[:half]))
    return Trials(np.concatenate(scores), coins)


def _insert(around: dict[str, PatientGroup], canaries: Canaries, coins: Coins) -> dict[str, PatientGroup]:
    groups = dict(around)
    for group, site, present in zip(canaries.groups, canaries.sites, coins, strict=True):
        if canaries.whole_sites:
            groups[site] = group if present else (group[0][:0], group[1][:0])
        elif present:
            own = groups[site]
            groups[site] = (torch.cat([own[0], group[0]]), torch.cat([own[1], group[1]]))
    return groups


def _score(left: Floats, coins: Coins, traces: Floats, other: Floats) -> Floats:
    """Whitened scores of one half, (transcripts, canaries), with the noise as estimated on the `other` half."""
    rounds, coordinates = _noise(other)
    whitened = np.einsum("ts,skp,pq->tkq", np.linalg.inv(rounds), traces, np.linalg.inv(coordinates))
    squares = np.maximum(np.einsum("tkp,tkp->k", whitened, traces), 1e-300)
    scores: Floats = (np.einsum("itp,tkp->ik", left, whitened) + coins * squares) / np.sqrt(squares)
    return scores


def _noise(left: Floats) -> tuple[Floats, Floats]:
    """The noise's covariance as a product of one over rounds and one over coordinates.

    From (transcripts, rounds, parameters), centred. Where there are too few values for all pairs, only variances.
    """
    count, rounds, size = left.shape
    centred = left - left.mean(axis=0)
    freedom = max(count - 1, 1) / count
    coordinates = np.einsum("itp,itq->pq", centred, centred) / (count * rounds * freedom)
    if count * rounds < 4 * size:
        coordinates = np.diag(np.diag(coordinates))
    # So little that a coordinate without noise stands out, and so much that the inverse exists.
    coordinates += (1e-9 * np.trace(coordinates) / size + 1e-18) * np.eye(size)
    if count * size < 4 * rounds:
        return np.eye(rounds), coordinates
    inverse = np.linalg.inv(coordinates)
    over = np.einsum("itp,pq,isq->ts", centred, inverse, centred) / (count * size * freedom)
    return over + (1e-9 * np.trace(over) / rounds + 1e-18) * np.eye(rounds), coordinates
