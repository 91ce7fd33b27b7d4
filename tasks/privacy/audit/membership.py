"""Attack 2: does a patient take part? A likelihood-ratio test on the observed vectors.

Three disjoint sets are drawn again and again: members, who are trained on; outsiders, who are not; and a reference set,
from which the adversary learns what gradients look like. Two adversaries:

reference   knows the candidate and the reference set. The sum of n members' gradients is about N(n m, n S + v I), with
            mean m and covariance S from the reference set and v the noise's variance; the statistic is the
            log-likelihood ratio of one member being the candidate: the whitened gradient against the whitened sum.
informed    knows the records of all others too, so that only noise hides the candidate. Nobody can know more, so this
            is the test that the promise is measured by.

Over several rounds the log-likelihood ratios add up. Sources: Homer et al. 2008; Sankararaman et al. 2009 (likelihood
ratio on sums); Nasr et al. 2019 (white-box gradients).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tasks.learning.arrays import Floats
from tasks.privacy.audit.adversary import Adversary, deal_out
from tasks.privacy.audit.observer import Observer, PatientGroup, PatientRows
from tasks.privacy.audit.statistics import auc_with_error, roc
from tasks.privacy.audit.verdict import RocCurve
from tasks.store.weights import Weights


@dataclass(frozen=True)
class LikelihoodRatios:
    """Log-likelihood ratios, (draws, rounds, candidates), of members and of outsiders, not yet added up."""

    members: Floats
    outsiders: Floats

    def auc(self, rounds: int) -> tuple[float, float]:
        """AUC over the first `rounds` rounds together, and its standard error."""
        return auc_with_error(self.members[:, :rounds].sum(axis=1), self.outsiders[:, :rounds].sum(axis=1))

    def curve(self, name: str, on: str, rounds: int) -> RocCurve:
        """The ROC curve over the first `rounds` rounds together."""
        fpr, tpr = roc(self.members[:, :rounds].sum(axis=1), self.outsiders[:, :rounds].sum(axis=1))
        return RocCurve.model_validate({"name": name, "on": on, "rounds": rounds, "fpr": tuple(fpr), "tpr": tuple(tpr)})


@dataclass(frozen=True)
class Membership:
    """Both adversaries' scores on the same releases."""

    reference: LikelihoodRatios
    informed: LikelihoodRatios


@dataclass(frozen=True)
class _Draw:
    members: PatientRows
    outsiders: PatientRows
    reference: PatientRows
    seen: Floats  # (rounds, parameters)


def attack_membership(
    observe: Observer,
    adversary: Adversary,
    patients: PatientGroup,
    models: Sequence[Weights],
    sites: Sequence[str],
    *,
    members: int,
    draws: int,
    seed: int,
    tick: Callable[[], None] = lambda: None,
) -> Membership:
    """Run both tests on `draws` random splits, each over one round per model.

    Raises:
        ValueError: fewer than three times `members` patients.
    """
    if len(patients[1]) < 3 * members:
        raise ValueError(f"{members} members, as many outsiders and a reference set need {3 * members} patients")
    rows = _contributions(adversary, patients, models, members)
    rng = np.random.default_rng([seed, 1])
    found = []
    for _ in range(draws):
        order = rng.permutation(len(patients[1]))
        groups = deal_out(sites, patients, order[:members])
        seen = np.stack([observe(weights, groups, t + 1) for t, weights in enumerate(models)])
        found.append(_Draw(order[:members], order[members : 2 * members], order[2 * members :], seen))
        tick()
    return _scores(found, rows)


def _contributions(adversary: Adversary, patients: PatientGroup, models: Sequence[Weights], members: int) -> Floats:
    """Each patient's contribution at each model, (rounds, patients, parameters)."""
    with torch.no_grad():
        rows = np.stack([adversary.contributions(weights, *patients).numpy() for weights in models])
    # An unclipped update is a mean over the site's patients, of whom there are only `members`.
    return rows if adversary.clip_norm is not None else rows * (len(patients[1]) / members)


def _scores(draws: Sequence[_Draw], rows: Floats) -> Membership:
    hidden = np.stack([draw.seen - rows[:, draw.members].sum(axis=1) for draw in draws])
    variance = np.maximum(np.square(hidden).mean(axis=(0, 2)), 1e-12 * np.square(rows).mean())
    reference = [_reference(draw, rows, variance) for draw in draws]
    informed = [_informed(draw, left, rows, variance) for draw, left in zip(draws, hidden, strict=True)]
    return Membership(_stack(reference), _stack(informed))


def _stack(pairs: Sequence[tuple[Floats, Floats]]) -> LikelihoodRatios:
    return LikelihoodRatios(np.stack([one for one, _ in pairs]), np.stack([other for _, other in pairs]))


def _reference(draw: _Draw, rows: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """(rounds, candidates) of each kind."""
    members: list[Floats] = []
    outsiders: list[Floats] = []
    count = len(draw.members)
    for t, seen in enumerate(draw.seen):
        known = rows[t, draw.reference]
        mean, spread_ = known.mean(axis=0), np.cov(known.T)
        # A hundredth of the mean variance on the diagonal keeps the estimate invertible.
        ridge = 0.01 * np.trace(spread_) / len(mean) * count + variance[t]
        whitened = np.linalg.inv(count * spread_ + ridge * np.eye(len(mean)))
        for kept, who in ((members, draw.members), (outsiders, draw.outsiders)):
            apart = rows[t, who] - mean
            kept.append(apart @ whitened @ (seen - count * mean) - np.einsum("ij,jk,ik->i", apart, whitened, apart) / 2)
    return np.stack(members), np.stack(outsiders)


def _informed(draw: _Draw, hidden: Floats, rows: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """(rounds, candidates) of each kind; `hidden` is what is seen less what all members contribute."""
    found = []
    for who, present in ((draw.members, 1.0), (draw.outsiders, 0.0)):
        own = rows[:, who]
        squares = np.square(own).sum(axis=2)
        left = np.einsum("tcp,tp->tc", own, hidden) + present * squares
        found.append((left - squares / 2) / variance[:, None])
    return found[0], found[1]
