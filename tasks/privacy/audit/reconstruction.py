"""Attack 1: are the records of a batch seen?

The batch is trained on at one site. Of what is released the adversary subtracts the known contributions of all others.
A record's error is the distance of the nearest guess, over the record's own length, at most `CAP`; a guess of all zeros
has error 1. The same guesses are scored against decoys, patients of the same kind who were not in the batch: what a
guess gains on true records over decoys, the advantage, it can only have learnt from the release.

That is what the promise bounds. An error in [0, CAP] that tells a record from a decoy is a test between two
neighbouring inputs, so the advantage is at most CAP times their total variation distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tasks.learning.arrays import Floats
from tasks.privacy.audit.adversary import Adversary
from tasks.privacy.audit.inversion import by_patterns, by_ratio, first_layer, relu_layer
from tasks.privacy.audit.matching import by_matching
from tasks.privacy.audit.observer import Observer, PatientGroup, PatientGroups, PatientRows
from tasks.privacy.audit.verdict import Example
from tasks.store.weights import Weights

CAP = 2.0
BATCHES = (1, 2, 4, 8)
#: A relative error below this is an exact reconstruction.
EXACT = 1e-3


@dataclass(frozen=True)
class Guesses:
    """One attack's guesses on some batches: per batch (guesses, inputs), and who was in it and who was not."""

    guesses: tuple[Floats, ...]
    truth: tuple[PatientRows, ...]
    decoys: tuple[PatientRows, ...]

    def errors(self, inputs: Floats, *, decoys: bool = False) -> Floats:
        """Mean error of each batch's records, (batches,)."""
        rows = self.decoys if decoys else self.truth
        return np.array([_errors(g, inputs[r]).mean() for g, r in zip(self.guesses, rows, strict=True)])

    def exact(self, inputs: Floats) -> float:
        """Share of records that are reconstructed exactly."""
        each = [_errors(g, inputs[r]) < EXACT for g, r in zip(self.guesses, self.truth, strict=True)]
        return float(np.concatenate(each).mean())

    def example(self, inputs: Floats, name: str, on: str) -> Example:
        """The first record of the first batch, beside its nearest guess."""
        truth, guesses = inputs[self.truth[0][0]], self.guesses[0]
        guess = guesses[np.linalg.norm(guesses - truth, axis=1).argmin()] if len(guesses) else np.zeros_like(truth)
        error = float(np.linalg.norm(guess - truth) / np.linalg.norm(truth))
        return Example.model_validate(
            {"name": name, "on": on, "truth": tuple(truth), "guess": tuple(guess), "error": error}
        )


def _errors(guesses: Floats, records: Floats) -> Floats:
    if not len(guesses):
        return np.ones(len(records))
    apart = np.linalg.norm(guesses[:, None] - records[None], axis=2).min(axis=0)
    found: Floats = np.minimum(apart / np.linalg.norm(records, axis=1), CAP)
    return found


@dataclass(frozen=True)
class Target:
    """Where the attack looks: an observer, at one public model, with patients to draw batches from."""

    observe: Observer
    adversary: Adversary
    weights: Weights
    patients: PatientGroup
    sites: tuple[str, ...]

    @property
    def limits(self) -> Floats:
        """Largest absolute value of each scaled input."""
        return np.array([spec.clip * spec.gain for spec in self.adversary.study.inputs])

    def watch(
        self, batch: int, trials: int, seed: int
    ) -> tuple[Floats, tuple[PatientRows, ...], tuple[PatientRows, ...]]:
        """What is seen of `trials` batches less the others' part, (trials, parameters); members and decoys."""
        rng = np.random.default_rng([seed, 3, batch])
        others = len(self.sites) - 1
        orders = [rng.permutation(len(self.patients[1])) for _ in range(trials)]
        seen = []
        for trial, order in enumerate(orders):
            around = {site: self._group(order[-1 - k :][:1]) for k, site in enumerate(self.sites[1:])}
            groups: PatientGroups = {self.sites[0]: self._group(order[:batch]), **around}
            vector = self.observe(self.weights, groups, trial + 1)
            seen.append(vector - self._known(order[len(order) - others :]) if others else vector)
        return np.stack(seen), tuple(o[:batch] for o in orders), tuple(o[batch : 2 * batch] for o in orders)

    def _group(self, rows: PatientRows) -> PatientGroup:
        return self.patients[0][rows], self.patients[1][rows]

    def _known(self, rows: PatientRows) -> Floats:
        with torch.no_grad():
            return np.asarray(self.adversary.contributions(self.weights, *self._group(rows)).sum(dim=0).numpy())


def invert(target: Target, batch: int, trials: int, seed: int) -> Guesses:
    """By exact algebra; the guesses are cut to the public ranges."""
    seen, truth, decoys = target.watch(batch, trials, seed)
    layer = first_layer(target.weights, len(target.limits))
    if layer is None:
        return Guesses(tuple(np.empty((0, len(target.limits))) for _ in seen), truth, decoys)
    following = relu_layer(target.weights, layer)
    found = []
    for vector in seen:
        if batch > 1 and following is not None:
            guesses = by_patterns(vector, target.weights, layer, following, target.limits, seed=seed)
        else:
            guesses = by_ratio(vector, target.weights, layer)[None]
        found.append(np.clip(guesses, -target.limits, target.limits))
    return Guesses(tuple(found), truth, decoys)


def match(
    target: Target, batch: int, trials: int, seed: int, *, noise_sd: float, starts: int, iterations: int
) -> Guesses:
    """By gradient matching; `noise_sd` 0 takes what is seen for exact."""
    seen, truth, decoys = target.watch(batch, trials, seed)
    variance = noise_sd**2 or 1e-6 * float(np.square(seen).mean())
    found = by_matching(
        target.adversary, target.weights, seen, variance, batch, starts=starts, iterations=iterations, seed=seed
    )
    return Guesses(tuple(found), truth, decoys)


def advantage(attacks: Sequence[Guesses], inputs: Floats) -> tuple[float, float]:
    """Mean over all batches of the decoys' error less the true records', and its standard error."""
    each = np.concatenate([guesses.errors(inputs, decoys=True) - guesses.errors(inputs) for guesses in attacks])
    return float(each.mean()), float(each.std(ddof=1) / np.sqrt(len(each)))
